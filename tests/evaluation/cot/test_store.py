"""A store's files: what is written is read, and a broken one is named."""

import json

import pytest

from iranker_verl.errors import UserError
from iranker_verl.evaluation.cot import read, write
from tests.evaluation.cot.samples import store, thought


def test_what_is_written_is_read(tmp_path):
    made = store(thought("a", said="line\u2028one\nline two"), thought("b", candidates=("東", "{n}"), answer=(1, 0)))
    write(made, tmp_path / "deep" / "store")
    back = read(tmp_path / "deep" / "store")
    assert back.thoughts == made.thoughts and back.hash == made.hash
    assert back.manifest == {**made.manifest, "hash": made.hash}
    assert len((tmp_path / "deep" / "store" / "thoughts.jsonl").read_text().split("\n")) == 3
    write(store(), tmp_path / "empty")
    assert read(tmp_path / "empty").thoughts == ()


def test_the_hash_covers_every_field_and_the_order():
    made = [store(thought("a"), thought("b")), store(thought("b"), thought("a")), store(thought("a")), store()]
    for changes in ({"said": "other"}, {"group": "g"}, {"candidates": ("x", "z")}, {"answer": (0,)}, {"task_id": "t"}):
        made.append(store(thought("a", **changes)))
    assert len({s.hash for s in made}) == len(made)


def test_a_broken_store_is_named(tmp_path):
    with pytest.raises(UserError, match="no store of `iranker thoughts collect`"):
        read(tmp_path / "nowhere")
    write(store(thought("a"), thought("b")), tmp_path)
    path = tmp_path / "thoughts.jsonl"
    whole = path.read_text()
    for text, words in (
        (whole.replace("because", "whatever"), "manifest says"),
        (whole.split("\n")[0] + "\n", "manifest says"),
        ("", "manifest says"),
        (whole[:-20], "line 2: not a thought"),
        ("{}\n" + whole, "line 1: not a thought"),
        ("[1]\n", "line 1: not a thought"),
    ):
        path.write_text(text)
        with pytest.raises(UserError, match=words):
            read(tmp_path)
    path.write_text(whole)
    for manifest in ("{", "[]", json.dumps({"hash": None})):
        (tmp_path / "manifest.json").write_text(manifest)
        with pytest.raises(UserError):
            read(tmp_path)
    with pytest.raises(UserError, match="a file is in the way"):
        write(store(), path)
