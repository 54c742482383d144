"""Jobs: what is done stays done, what fails leaves nothing, and processes give what one process gives."""

import importlib
import os
import signal
import sys

import pyarrow as pa
import pytest

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


def with_arrow(folder):
    looked = "pandas" in sys.modules
    values = pa.array(["x"]).to_numpy(zero_copy_only=False)
    found = f"{looked} {'pandas' in sys.modules} {values} {len(importlib.import_module('pandas').Series([1]))}"
    (folder / "result").write_text(found)


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
    assert sorted(p.name for p in work.folder.iterdir()) == ["good"]
    assert results(work.run(jobs[:1])) == ["9"]


def test_a_killed_process_is_one_line_and_can_go_on(tmp_path):
    log = tmp_path / "log"
    work = Work(tmp_path / "work", 2)
    with pytest.raises(Interrupted, match="the same command goes on"):
        work.run([Job("good", count, (3, log)), Job("dies", die)])
    done = [p.name for p in work.folder.iterdir() if not p.name.endswith(".part")]
    assert done in (["good"], [])
    assert results(work.run([Job("good", count, (3, log)), Job("dies", count, (4, log))])) == ["9", "16"]


def test_what_a_killed_process_left_is_not_trusted(tmp_path):
    work = Work(tmp_path / "work")
    part = work.folder / "set_1.part"
    part.mkdir(parents=True)
    (part / "rubbish").write_text("x")
    (folder,) = work.run([Job("set:1", count, (2, tmp_path / "log"))])
    assert [p.name for p in folder.iterdir()] == ["result"]


def test_processes_do_without_pandas_unless_a_job_needs_it(tmp_path):
    jobs = [Job(f"set:{i}", with_arrow) for i in range(2)]
    assert results(Work(tmp_path / "work", 2).run(jobs)) == ["False False ['x'] 1"] * 2
