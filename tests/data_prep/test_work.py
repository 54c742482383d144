"""Jobs: what is done stays done, what fails leaves nothing, and processes give what one process gives."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_prep.work import Interrupted, Job, Work
from iranker_verl.errors import UserError


def count(folder, number, log):
    (folder / "result").write_text(str(number * number))
    with open(log, "a") as file:
        file.write(f"{number}\n")


def refuse(folder, number):
    (folder / "half").write_text("half")
    raise UserError(f"file {number}: broken")


def die(folder):
    os.kill(os.getpid(), signal.SIGKILL)


def results(folders):
    return [(folder / "result").read_text() for folder in folders]


@pytest.mark.parametrize("processes", [1, 2])
def test_all_jobs_in_order_and_once(tmp_path, processes):
    log, said = tmp_path / "log", []
    work = Work(tmp_path / "work", processes, progress=said.append)
    jobs = [Job(f"set:{i}", count, (i, log)) for i in range(5)]
    assert results(work.run(jobs)) == ["0", "1", "4", "9", "16"]
    assert said[-1].endswith("done, 5 of 5")
    assert results(work.run([*jobs, Job("set:9", count, (9, log))])) == ["0", "1", "4", "9", "16", "81"]
    assert sorted(log.read_text().split()) == ["0", "1", "2", "3", "4", "9"]
    assert "5 of 6 pieces were done before" in said


@pytest.mark.parametrize("processes", [1, 2])
def test_a_mistake_is_raised_and_leaves_nothing(tmp_path, processes):
    log = tmp_path / "log"
    work = Work(tmp_path / "work", processes)
    jobs = [Job("good", count, (3, log)), Job("bad", refuse, (7,))]
    with pytest.raises(UserError, match="file 7: broken"):
        work.run(jobs)
    assert [p.name.split("-")[0] for p in work.folder.iterdir()] == ["good"]
    assert results(work.run(jobs[:1])) == ["9"]


def test_a_killed_process_is_one_line_and_can_go_on(tmp_path):
    log = tmp_path / "log"
    work = Work(tmp_path / "work", 2)
    with pytest.raises(Interrupted, match="the same command continues"):
        work.run([Job("good", count, (3, log)), Job("dies", die)])
    done = [p.name.split("-")[0] for p in work.folder.iterdir() if not p.name.endswith(".part")]
    assert done in (["good"], [])
    assert results(work.run([Job("good", count, (3, log)), Job("dies", count, (4, log))])) == ["9", "16"]


def test_what_a_killed_process_left_is_not_trusted(tmp_path):
    work, job = Work(tmp_path / "work"), Job("set:1", count, (2, tmp_path / "log"))
    part = work.folder / f".{job.folder_name[:80]}.{16 * '0'}.part"
    part.mkdir(parents=True)
    (part / "result").write_text("half")
    (folder,) = work.run([job])
    assert (folder / "result").read_text() == "4"


@given(st.lists(st.text("aA _-:./%\n", max_size=200), min_size=2, max_size=6, unique=True))
def test_no_two_jobs_share_a_folder(names):
    folders = [Job(name, count).folder_name for name in names]
    assert len({folder.casefold() for folder in folders}) == len(names)
    assert all("/" not in folder and len(folder.encode()) < 200 and folder not in (".", "..") for folder in folders)


def test_two_jobs_of_one_name_are_an_error_and_not_one_result(tmp_path):
    with pytest.raises(ValueError, match="two jobs are named 'set:1'"):
        Work(tmp_path / "work").run([Job("set:1", count, (n, tmp_path / "log")) for n in (1, 2)])


ENDLESS = """
import sys, time
from pathlib import Path
from data_prep.work import Job, Work
from tests.data_prep.test_work import wait
if __name__ == "__main__":
    Work(Path(sys.argv[1]) / "work", 2).run([Job(f"set:{i}", wait, (sys.argv[1], i)) for i in range(2)])
"""


def wait(folder, top, number):
    (Path(top) / f"pid-{number}").write_text(str(os.getpid()))
    time.sleep(600)


def test_children_end_with_the_process_that_started_them(tmp_path):
    (tmp_path / "endless.py").write_text(ENDLESS)
    parent = subprocess.Popen(
        [sys.executable, tmp_path / "endless.py", tmp_path], env={**os.environ, "PYTHONPATH": str(Path.cwd())}
    )
    pids = [tmp_path / f"pid-{number}" for number in range(2)]
    until(lambda: all(path.exists() and path.read_text() for path in pids))
    parent.kill()
    parent.wait()
    until(lambda: not any(alive(int(path.read_text())) for path in pids))


def until(holds, seconds=60):
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
