"""An evaluation that was interrupted: what is kept, what is dropped, what is refused."""

import json

import pytest

from iranker_verl.errors import UserError
from iranker_verl.evaluation.journal import Journal, finished, of_system

PRINT = {"model_hash": "abc", "seed": 1, "temperature": 0.0}


def half_done(folder, lines=2):
    journal = Journal(of_system(folder, "after"), PRINT)
    with journal:
        for number in range(lines):
            journal.append({"number": number, "text": "ein Wört\u2028ch"})
    return folder / "episodes-after.jsonl.unfinished"


def test_it_goes_on(tmp_path):
    half_done(tmp_path)
    journal = Journal(of_system(tmp_path, "after"), PRINT)
    assert [line["number"] for line in journal.lines] == [0, 1] and journal.summary is None
    with journal:
        journal.append({"number": 2})
    journal.finish([{"number": n} for n in (0, 1, 2)], {"seconds": 3.5})
    assert sorted(p.name for p in tmp_path.iterdir()) == ["episodes-after.header.json", "episodes-after.jsonl"]

    again = Journal(of_system(tmp_path, "after"), PRINT)
    assert again.summary == {"seconds": 3.5} and [line["number"] for line in again.lines] == [0, 1, 2]


@pytest.mark.parametrize("kept", [1, 12, 30])
def test_a_last_line_cut_short_is_dropped(tmp_path, kept):
    part = half_done(tmp_path)
    content = part.read_bytes()
    first = content.index(b"\n") + 1
    part.write_bytes(content[: first + kept])  # also within the bytes of a letter
    journal = Journal(of_system(tmp_path, "after"), PRINT)
    assert [line["number"] for line in journal.lines] == [0]
    with journal:
        journal.append({"number": 7})
    assert [json.loads(line)["number"] for line in part.read_bytes().splitlines() if line] == [0, 7]


def test_a_line_spoilt_in_the_middle_is_refused_by_row(tmp_path):
    part = half_done(tmp_path, lines=3)
    lines = part.read_bytes().split(b"\n")
    for spoilt in (b'{"number": ', b"[1]", b""):
        part.write_bytes(b"\n".join([lines[0], spoilt, *lines[2:]]))
        with pytest.raises(UserError, match=r"unfinished row 2: not"):
            Journal(of_system(tmp_path, "after"), PRINT)


@pytest.mark.parametrize(
    ("now", "message"),
    [
        (PRINT | {"seed": 2}, r"\(seed was 1, is now 2"),
        (PRINT | {"temperature": 0.5, "seed": 3}, r"\(seed was 1, is now 3, and 1 more\)"),  # the first difference
        ({"model_hash": "abc", "seed": 1}, r"\(temperature was 0.0, is now None"),
        (PRINT | {"more": 1}, r"\(more was None, is now 1"),
    ],
)
def test_another_evaluation_in_the_folder_is_refused(tmp_path, now, message):
    part = half_done(tmp_path)
    before = part.read_bytes()
    with pytest.raises(UserError, match=message):
        Journal(of_system(tmp_path, "after"), now)
    assert part.read_bytes() == before
    Journal(of_system(tmp_path, "before"), now)  # another system is another file


def test_what_has_kept_nothing_refuses_nothing(tmp_path):
    half_done(tmp_path, lines=0)
    assert Journal(of_system(tmp_path, "after"), PRINT | {"seed": 2}).lines == []
    half_done(tmp_path / "other")
    (tmp_path / "other" / "episodes-after.jsonl.unfinished").unlink()
    assert Journal(of_system(tmp_path / "other", "after"), PRINT | {"seed": 2}).lines == []
    assert '"seed": 2' in (tmp_path / "other" / "episodes-after.header.json").read_text()


def test_lines_without_a_header_are_not_ours_and_stay(tmp_path):
    part = half_done(tmp_path)
    before = part.read_bytes()
    (tmp_path / "episodes-after.header.json").unlink()
    with pytest.raises(UserError, match=r"episodes-after.jsonl.unfinished exists"):
        Journal(of_system(tmp_path, "after"), PRINT)
    assert part.read_bytes() == before


def test_a_header_that_it_did_not_make_stays(tmp_path):
    theirs = tmp_path / "mine.header.json"
    theirs.write_text('{"fingerprint": {}, "took": null}')
    with pytest.raises(UserError, match=r"mine.header.json: a file that iranker did not make is in the way"):
        Journal(tmp_path / "mine.jsonl", PRINT)
    assert theirs.read_text() == '{"fingerprint": {}, "took": null}'


def test_a_file_that_it_did_not_make_stays(tmp_path):
    theirs = tmp_path / "mine.jsonl"
    theirs.write_text("of somebody")
    with pytest.raises(UserError, match=r"mine.jsonl exists, and no mine.header.json beside it"):
        Journal(theirs, PRINT)
    assert theirs.read_text() == "of somebody" and len(list(tmp_path.iterdir())) == 1


def test_killed_while_finishing(tmp_path):
    """The header says that it is done, the result is not there yet: what was kept is still there."""
    half_done(tmp_path)
    header = tmp_path / "episodes-after.header.json"
    header.write_text(header.read_text().replace('"took": null', '"took": {"seconds": 1}'))
    journal = Journal(of_system(tmp_path, "after"), PRINT)
    assert journal.summary is None and len(journal.lines) == 2
    journal.finish(journal.lines, {"seconds": 2})
    assert Journal(of_system(tmp_path, "after"), PRINT).summary == {"seconds": 2}


@pytest.mark.parametrize("folder", ["file", "file/sub"])
def test_a_file_in_the_place_of_the_folder_is_one_line(tmp_path, folder):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=f"{folder}: the folder cannot be made .*choose another"):
        Journal(of_system(tmp_path / folder, "after"), PRINT)


def test_what_is_finished(tmp_path):
    half_done(tmp_path)
    for system in ("setwise", "before.2"):
        Journal(of_system(tmp_path, system), PRINT).finish([{"number": 7}], {"seconds": 3.5})
    Journal(of_system(tmp_path, "lost"), PRINT).finish([], {"seconds": 1})
    (tmp_path / "episodes-lost.jsonl").unlink()
    first, second = finished(tmp_path)
    assert (first.system, second.system) == ("before.2", "setwise")
    assert (first.fingerprint, first.summary, first.lines()) == (PRINT, {"seconds": 3.5}, [{"number": 7}])
