"""What a result was made of: equal mappings are the same, and the first difference is named."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iranker_verl import provenance
from iranker_verl.errors import UserError

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.tuples(inner, inner),
    max_leaves=5,
)
MADE_OF = st.dictionaries(st.text(min_size=1, max_size=5), VALUES, max_size=6)


@given(MADE_OF)
def test_what_is_written_and_read_back_is_the_same(made_of):
    read = json.loads(json.dumps(made_of))
    assert provenance.is_same(read, made_of) and not provenance.differences(read, made_of)
    assert provenance.digest(read) == provenance.digest(made_of)


@given(MADE_OF, st.text(min_size=1, max_size=5), st.integers())
def test_one_other_value_is_the_difference_and_changes_the_hash(made_of, name, value):
    before = made_of | {name: value}
    now = made_of | {name: value + 1}
    found = provenance.differences(before, now)
    assert [(d.name, d.before, d.now) for d in found] == [(name, value, value + 1)]
    assert provenance.digest(before) != provenance.digest(now) and not provenance.is_same(before, now)


def test_the_order_of_the_names_does_not_matter_to_the_hash():
    assert provenance.digest({"a": 1, "b": (2, 3)}) == provenance.digest({"b": [2, 3], "a": 1})


def test_a_result_may_hold_more_than_what_it_was_made_of():
    assert provenance.is_same({"seed": 1, "rows": 40}, {"seed": 1})
    assert not provenance.is_same({"rows": 40}, {"seed": 1})


def test_the_message_names_the_first_difference_and_counts_the_others():
    before, now = {"seed": 1, "rate": 0.1, "old": 2, "free": 1}, {"seed": 2, "rate": 0.2, "free": 2}
    with pytest.raises(UserError) as error:
        provenance.require_same(before, now, "runs/x holds a run", "choose another")
    assert str(error.value) == (
        "runs/x holds a run with other settings (seed was 1, is now 2, and 3 more); choose another"
    )
    provenance.require_same(before, now | {"seed": 1, "rate": 0.1}, "x", "y", names=("rate", "seed"))


def test_what_was_there_and_is_no_more_is_a_difference():
    with pytest.raises(UserError, match=r"old was 2, is now None\)"):
        provenance.require_same({"old": 2}, {}, "it", "go")


def test_flattened_names_are_paths():
    assert provenance.flatten({"a": {"b": 1, "c": {"d": [2]}}, "e": {}}) == {"a.b": 1, "a.c.d": [2]}


def test_files_are_whole_until_a_byte_is_changed_or_one_is_gone(tmp_path):
    path = tmp_path / "train.parquet"
    path.write_bytes(b"rows")
    files = {path.name: provenance.file_digest(path)}
    assert files[path.name]["bytes"] == 4 and provenance.are_whole(tmp_path, files)
    path.write_bytes(b"rowz")
    assert not provenance.are_whole(tmp_path, files)
    path.unlink()
    assert not provenance.are_whole(tmp_path, files)
    with pytest.raises(UserError, match=r"train\.parquet: cannot be read"):
        provenance.file_digest(path)


def test_versions_leave_out_what_is_not_installed(monkeypatch):
    monkeypatch.setattr(provenance, "PACKAGES", ("pytest", "no-such-distribution"))
    found = provenance.versions()
    assert list(found) == ["python", "pytest"]
    assert found["pytest"] == pytest.__version__
