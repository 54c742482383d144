"""A store's files: what is written is read, and a broken one is named."""

import json

import pytest

from iranker_verl.errors import UserError
from iranker_verl.evaluation.cot.store import read_traces, write_traces
from iranker_verl.files import locked
from tests.evaluation.cot.samples import store, trace


def test_what_is_written_is_read(tmp_path):
    made = store(trace("a", said="line\u2028one\nline two"), trace("b", candidates=("東", "{n}"), answer=(1, 0)))
    write_traces(made, tmp_path / "deep" / "store")
    back = read_traces(tmp_path / "deep" / "store")
    assert back.traces == made.traces and back.hash == made.hash
    assert back.manifest == {**made.manifest, "hash": made.hash}
    assert len((tmp_path / "deep" / "store" / "traces.jsonl").read_text().split("\n")) == 3
    write_traces(store(), tmp_path / "empty")
    assert read_traces(tmp_path / "empty").traces == ()


def test_the_hash_covers_every_field_and_the_order():
    made = [store(trace("a"), trace("b")), store(trace("b"), trace("a")), store(trace("a")), store()]
    for changes in ({"said": "other"}, {"group": "g"}, {"candidates": ("x", "z")}, {"answer": (0,)}, {"task_id": "t"}):
        made.append(store(trace("a", **changes)))
    assert len({s.hash for s in made}) == len(made)


def test_a_broken_store_is_named(tmp_path):
    with pytest.raises(UserError, match="no store of `iranker cot collect`"):
        read_traces(tmp_path / "nowhere")
    write_traces(store(trace("a"), trace("b")), tmp_path)
    path = tmp_path / "traces.jsonl"
    whole = path.read_text()
    for text, words in (
        (whole.replace("because", "whatever"), "manifest says"),
        (whole.split("\n")[0] + "\n", "manifest says"),
        ("", "manifest says"),
        (whole[:-20], "line 2: not a reasoning trace"),
        ("{}\n" + whole, "line 1: not a reasoning trace"),
        ("[1]\n", "line 1: not a reasoning trace"),
    ):
        path.write_text(text)
        with pytest.raises(UserError, match=words):
            read_traces(tmp_path)
    path.write_text(whole)
    for manifest in ("{", "[]", json.dumps({"hash": None})):
        (tmp_path / "manifest.json").write_text(manifest)
        with pytest.raises(UserError):
            read_traces(tmp_path)
    with pytest.raises(UserError, match="the folder cannot be made"):
        write_traces(store(), path)


def test_another_process_that_writes_there_is_not_disturbed(tmp_path):
    with locked(tmp_path / "store"), pytest.raises(UserError, match="another iranker is writing there"):
        write_traces(store(), tmp_path / "store")
    write_traces(store(), tmp_path / "store")
