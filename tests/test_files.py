"""The one writer of outputs: whole or not at all, one at a time, and only over what it wrote itself."""

import errno
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iranker_verl import files, marks
from iranker_verl.errors import UserError
from tests.foreign import ANY_PLACE, PLACES, plant, snapshot

ROOT = Path(__file__).parents[1]


def fresh(top):
    """A folder of its own for each example of a property."""
    folder = top / f"{len(list(top.iterdir()))}"
    folder.mkdir()
    return folder


def write_folder(target, text="new"):
    with files.locked(target), files.replacing_folder(target) as part:
        (part / "deep").mkdir()
        (part / "deep" / "a.txt").write_text(text)
        files.write_json(part / "manifest.json", {"text": text})


def everything(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


# ----------------------------------------------------------------------------------------------------- what is not ours


@settings(max_examples=60, deadline=None)
@given(places=PLACES, again=st.booleans(), seed=st.integers(0, 999))
def test_nothing_foreign_beside_or_inside_a_target_is_ever_changed(tmp_path_factory, places, again, seed):
    """Whatever lies there, each writer writes or says in one line why not, and each foreign byte is as it was."""
    top = fresh(tmp_path_factory.getbasetemp())
    rng = random.Random(seed)
    if again:  # ours was there first
        write_folder(top / "out", "old")
        with files.claimed(top / "run"):
            files.write_text(top / "run" / "results.json", "{}")
    plant(top, places, rng)
    before = snapshot(top)

    def claim_and_write():
        with files.claimed(top / "run"):
            for name in ("results.json", "report.html", "runs/a.run"):
                files.make_folder((top / "run" / name).parent)
                files.write_text(top / "run" / name, "x")

    writers = [
        lambda: write_folder(top / "out"),
        claim_and_write,
        lambda: files.write_json(top / "card.json", files.marked({})),
        lambda: files.remove_folder(files.kept_folder(top / "out", "key")),
    ]
    for write in writers:
        try:
            write()
        except UserError as error:
            assert "\n" not in str(error) and str(top) in str(error)
    assert {path: snapshot(top).get(path) for path in before} == before


def test_a_link_is_never_followed(tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("precious")
    for name in ("a.json", "a.json.part"):
        (tmp_path / name).symlink_to(victim)
    with pytest.raises(UserError, match=r"a.json: a link that iranker did not make is in the way"):
        files.write_text(tmp_path / "a.json", "x")
    assert victim.read_text() == "precious" and (tmp_path / "a.json").is_symlink()


def test_a_file_is_replaced_where_a_mark_lists_it_or_it_says_itself_what_made_it(tmp_path):
    files.write_json(tmp_path / "card.json", files.marked({"a": 1}))
    files.write_json(tmp_path / "card.json", files.marked({"a": 2}))
    (tmp_path / "page.html").write_text('<!doctype html><meta name="generator" content="iranker-verl">')
    files.write_text(tmp_path / "page.html", "new")
    with files.claimed(tmp_path / "run"):
        for text in ("1", "2"):
            files.write_text(tmp_path / "run" / "results.json", text)
    (tmp_path / "run" / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match=r"notes.txt: a file that iranker did not make is in the way"):
        files.write_text(tmp_path / "run" / "notes.txt", "x")
    assert (tmp_path / "run" / "results.json").read_text() == "2"


def test_the_users_own_files_in_a_folder_of_ours_are_named(tmp_path):
    out = tmp_path / "out"
    write_folder(out)
    for name in ("a", "b", "c", "d", "e"):
        (out / name).write_text(name)
    before = everything(out)
    with pytest.raises(
        UserError, match=r"out: it would be replaced, but holds a, b, c and 2 more, which iranker did not"
    ):
        write_folder(out)
    assert everything(out) == before
    with pytest.raises(UserError, match=r"mine: it holds a, which iranker did not write there"):
        (tmp_path / "mine").mkdir()
        (tmp_path / "mine" / "a").write_text("")
        files.claim(tmp_path / "mine")


def test_what_is_put_in_while_we_write_stays(tmp_path):
    out = tmp_path / "out"
    write_folder(out, "old")
    with pytest.raises(UserError, match=r"holds notes.txt"), files.replacing_folder(out) as part:
        (part / "a").write_text("new")
        (out / "notes.txt").write_text("mine")
    assert (out / "notes.txt").read_text() == "mine" and (out / "deep" / "a.txt").read_text() == "old"


def test_a_folder_of_the_former_version_is_taken_for_ours_only_if_it_is_recognised(tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "manifest.json").write_text("{}")
    with pytest.raises(UserError, match=r"holds manifest.json"), files.replacing_folder(out):
        pass
    with files.replacing_folder(out, lambda folder: True) as part:
        (part / "new").write_text("")
    assert sorted(everything(out)) == [".iranker", "new"]


# ------------------------------------------------------------------------------------------------------------- whole


def test_a_failure_leaves_what_was_there_and_nothing_beside_it(tmp_path):
    out = tmp_path / "out"
    write_folder(out, "old")
    before = everything(tmp_path)
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    for error, raised in ((KeyboardInterrupt(), KeyboardInterrupt), (full, UserError), (ValueError(), ValueError)):
        with pytest.raises(raised), files.replacing_folder(out) as part:
            (part / "half").write_text("half")
            raise error
        with pytest.raises(raised), files.replacing_file(tmp_path / "one.txt"):
            raise error
    assert everything(tmp_path) == before
    with pytest.raises(UserError, match=r"out: cannot be written \(No space left"), files.replacing_folder(out):
        raise full
    with pytest.raises(FileNotFoundError), files.replacing_folder(out):  # of what was read, not of what was written
        (tmp_path / "absent").read_text()


KILLED = """
import os, signal, sys
from pathlib import Path
from iranker_verl import files, marks
target, at = Path(sys.argv[1]), int(sys.argv[2])
calls = 0
def counted(do):
    def call(*arguments, **options):
        global calls
        calls += 1
        if calls == at:
            os.kill(os.getpid(), signal.SIGKILL)
        return do(*arguments, **options)
    return call
for name in ("rename", "replace", "rmdir", "unlink", "mkdir", "open", "write"):
    setattr(os, name, counted(getattr(os, name)))
with files.locked(target), files.replacing_folder(target) as part:
    (part / "manifest.json").write_text("new")
    (part / "a.txt").write_text("new")
"""


def test_killed_at_any_step_the_next_one_finds_the_old_or_the_new_whole(tmp_path):
    """Each system call of the exchange in turn is the last one."""
    ended = 0
    for at in range(1, 60):
        out = tmp_path / str(at) / "out"
        write_folder(out, "old")
        (out.parent / ".out.notes").write_text("mine")
        code = subprocess.run([sys.executable, "-c", KILLED, out, str(at)], cwd=ROOT, check=False).returncode
        if code == 0:
            ended += 1
            break
        assert code == -signal.SIGKILL
        write_folder(out, "next")
        assert everything(out)["deep/a.txt"] == b"next"
        left = set(os.listdir(out.parent)) - {".out.notes", "out"}
        within = [file for name in left for file in everything(out.parent / name)]
        assert all(file.startswith("..iranker.") for file in within)  # at most a folder that had no mark yet
    assert ended and at > 10


def test_what_a_kill_left_is_put_back(tmp_path):
    """Between the two renames the target is nowhere; the next command finds it."""
    out = tmp_path / "out"
    write_folder(out, "old")
    marks.write_mark(replace(marks.read_mark(out), target="out"))
    os.rename(out, tmp_path / f".out.{16 * '0'}.old")
    with pytest.raises(KeyboardInterrupt), files.replacing_folder(out):
        raise KeyboardInterrupt
    assert (out / "deep" / "a.txt").read_text() == "old" and os.listdir(tmp_path) == ["out"]


def test_unfinished_work_is_found_again_by_its_key_and_other_work_goes(tmp_path):
    out, theirs = tmp_path / "out", tmp_path / "out.work"
    theirs.mkdir()
    one = files.kept_folder(out, "one")
    (one / "done").write_text("")
    assert files.kept_folder(out, "one") == one and (one / "done").exists()
    other = files.kept_folder(out, "two")
    assert not one.exists() and theirs.is_dir()
    assert files.temporary_folders(out) == [other]
    files.remove_folder(other)
    assert sorted(os.listdir(tmp_path)) == ["out.work"]


# -------------------------------------------------------------------------------------------------------------- lock


def hold(target, ready, wait):
    with files.locked(target):
        ready.set()
        wait.wait()


def test_the_second_of_two_says_so_and_a_dead_one_is_none(tmp_path):
    out = tmp_path / "out"
    spawn = multiprocessing.get_context("spawn")
    ready, wait = spawn.Event(), spawn.Event()
    holder = spawn.Process(target=hold, args=(out, ready, wait))
    holder.start()
    assert ready.wait(60)
    with pytest.raises(UserError, match=r"out: another iranker is writing there; wait for it or choose another place"):
        write_folder(out)
    holder.kill()
    holder.join()
    write_folder(out)
    assert os.listdir(tmp_path) == ["out"]  # no lock is left


def race(top, number, count):
    """Add one to a number in a file, ``count`` times: wrong where two do so at once."""
    done = 0
    while done < count:
        try:
            with files.locked(top / "n"):
                value = int((top / "n").read_text())
                time.sleep(0.0005)
                (top / "n").write_text(str(value + 1))
                done += 1
        except UserError:
            time.sleep(0.0002)


def test_no_two_hold_a_lock_at_once(tmp_path):
    (tmp_path / "n").write_text("0")
    spawn = multiprocessing.get_context("spawn")
    racers = [spawn.Process(target=race, args=(tmp_path, number, 100)) for number in range(3)]
    for one in racers:
        one.start()
    for one in racers:
        one.join()
    assert (tmp_path / "n").read_text() == "300"


@given(st.sampled_from(ANY_PLACE))
@settings(deadline=None)
def test_a_foreign_thing_in_the_place_of_the_lock_stays(tmp_path_factory, kind):
    top = fresh(tmp_path_factory.getbasetemp())
    plant(top, [(".out.iranker-lock", kind)], random.Random(0))
    before = snapshot(top)
    try:
        write_folder(top / "out")
    except UserError as error:
        assert "cannot be written" in str(error)
    assert {path: snapshot(top).get(path) for path in before} == before


def test_beside_a_mounted_folder_the_folder_itself_is_locked(tmp_path, monkeypatch):
    """Its parent may not be written, as that of a volume of a container."""
    out, real = tmp_path / "out", os.open
    out.mkdir()

    def refusing(path, *args, **kwargs):
        if Path(path).parent == tmp_path and Path(path) != out:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return real(path, *args, **kwargs)

    monkeypatch.setattr(os, "open", refusing)
    with files.claimed(out):
        files.write_text(out / "results.json", "{}")
        with pytest.raises(UserError, match="another iranker is writing there"), files.claimed(out):
            pass
    with files.claimed(out):
        assert everything(out).keys() == {".iranker", "results.json"}


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_disk_without_locks_is_written_with_a_line_that_says_so(tmp_path, monkeypatch, capsys, number):
    def no_lock(descriptor, operation):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("fcntl.flock", no_lock)
    write_folder(tmp_path / "out")
    assert "its disk has no locks" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_the_root_is_no_folder_to_write():
    with pytest.raises(UserError, match="choose a folder in it"), files.locked(Path("/")):
        pass


@given(cut=st.integers(1, 12))
@settings(deadline=None)
def test_a_mark_whose_last_line_was_cut_short_goes_on(tmp_path_factory, cut):
    """As a full disk or a kill leaves it: what is listed before and after is ours still."""
    run = fresh(tmp_path_factory.getbasetemp()) / "run"
    with files.claimed(run):
        files.write_text(run / "first.json", "{}")
        files.write_text(run / "second.json", "{}")
    mark = run / ".iranker"
    mark.write_bytes(mark.read_bytes()[:-cut])
    (run / "second.json").unlink()
    with files.claimed(run):
        files.write_text(run / "third.json", "{}")
    with files.claimed(run):
        for name in ("first.json", "second.json", "third.json"):
            files.write_text(run / name, "new")


def test_two_processes_that_mark_one_folder_lose_no_name(tmp_path, monkeypatch):
    """The second one saw no mark yet, and writes its own when the first one has listed a file in it."""
    files.mark(tmp_path)
    files.write_text(tmp_path / "a.json", "first")
    with monkeypatch.context() as late:
        late.setattr(files, "read_mark", lambda folder: None)
        files.mark(tmp_path)
    files.write_text(tmp_path / "a.json", "second")
    assert sorted(os.listdir(tmp_path)) == [".iranker", "a.json"]


def test_a_disk_without_hard_links_is_marked(tmp_path, monkeypatch):
    def no_links(*_, **__):
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", no_links)
    files.mark(tmp_path)
    assert marks.read_mark(tmp_path) and os.listdir(tmp_path) == [".iranker"]


def test_a_full_disk_leaves_no_lock_behind(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(UserError, match="No space left"), files.locked(tmp_path / "out"):
        pass
    assert os.listdir(tmp_path) == []
