"""Lists that are only to be ranked, from files of a user's own."""

import json

import pytest

from data_prep.custom.lists import read_lists
from data_prep.readers import opened
from iranker_verl.errors import UserError


def write(folder, name, content):
    path = folder / name
    path.write_text(content if isinstance(content, str) else "".join(json.dumps(one) + "\n" for one in content))
    return path


def shape(path):
    return [(one.row, one.id, one.query, one.candidates) for one in read_lists(path)]


def test_a_row_a_list(tmp_path):
    path = write(
        tmp_path,
        "help.jsonl",
        [
            {"query": "a", "candidates": ["x", {"text": "y", "relevance": 1}, {"id": "third", "text": "z"}]},
            {"query": "b", "candidates": [], "query_id": "q7"},
        ],
    )
    assert shape(path) == [(1, "1", "a", {"0": "x", "1": "y", "third": "z"}), (2, "q7", "b", {})]


@pytest.mark.parametrize("name", ["id", "docid", "_id", "doc_id", "passage_id"])
def test_the_ids_of_retrieval_tools_are_kept(tmp_path, name):
    candidates = [{name: "D7", "text": "x", "score": 1.5}, {name: 8, "text": "y", "title": "t"}]
    assert shape(write(tmp_path, "run.jsonl", [{"query": "a", "candidates": candidates}])) == [
        (1, "1", "a", {"D7": "x", "8": "y"})
    ]


def test_a_row_a_candidate(tmp_path):
    path = write(tmp_path, "faq.csv", "query,passage,relevance\na,x,1\nb,y,\na,z,0\n")
    assert shape(path) == [(2, "2", "a", {"0": "x", "1": "z"}), (3, "3", "b", {"0": "y"})]
    path = write(tmp_path, "ids.csv", "query_id,passage_id,query,passage\nq1,p1,a,x\nq2,p1,a,y\nq1,p2,a,z\n")
    assert shape(path) == [(2, "q1", "a", {"p1": "x", "p2": "z"}), (3, "q2", "a", {"p1": "y"})]


def test_white_space_and_repeats_are_as_in_preparation(tmp_path):
    path = write(tmp_path, "faq.csv", "query,passage,passage_id\nhow  long,x,p\nhow long ,y,q\nhow long,x,p\n")
    assert shape(path) == [(2, "2", "how long", {"p": "x", "q": "y"})]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("x.txt", "a\n", "read from .csv and .jsonl"),
        ("x.jsonl", [{"query": "a"}], "row 1: no candidates; it has query"),
        ("x.jsonl", [{"query": "a", "candidates": "b"}], "row 1: candidates is 'b', not a list"),
        ("x.jsonl", [{"query": "a", "candidates": [{"id": "b"}]}], "row 1: a candidate has no text"),
        ("x.jsonl", [{"query": "a", "candidates": [["b"]]}], "row 1: passage is"),
        ("x.jsonl", [{"query": ["a"], "candidates": []}], "row 1: query is"),
        (
            "x.jsonl",
            [{"query": "a", "candidates": ["b", {"id": "0", "text": "c"}]}],
            "row 1: passage '0' occurred before for this query",
        ),
        (
            "x.jsonl",
            [{"query": "a", "candidates": [], "query_id": "q"}, {"query": "b", "candidates": [], "query_id": "q"}],
            "row 2: list 'q' occurred before, in row 1",
        ),
        (
            "x.jsonl",
            [{"query": "a", "candidates": [{"id": "1", "text": "x"}, "y"]}],
            "passage '1' occurred before .*by its position",
        ),
        ("x.csv", "query,passage,passage_id\na,x,p\na,y,p\n", "row 3: passage 'p' occurred before"),
        ("x.csv", "query_id,query,passage\nq,a,x\nq,b,y\n", "row 3: another query than in row 2"),
        ("x.csv", "query,candidates\na,b\n", "no column passage"),
        ("x.csv", "query,passage\n", "no list|no row|empty"),
        ("x.jsonl", "", "empty"),
        ("x.jsonl", '{"query": \n', "row 1: not a JSON object"),
    ],
)
def test_what_is_refused(tmp_path, name, content, words):
    with pytest.raises(UserError, match=words):
        read_lists(write(tmp_path, name, content))


SMALL, HUGE = '{"query": "a", "candidates": ["x"]}', '{"query": "b", "candidates": ["y", "%s"]}' % ("z" * (1 << 18))


@pytest.mark.parametrize(
    ("name", "content", "row"),
    [
        ("a.jsonl", f"{HUGE}\n{SMALL}\n", 1),
        ("a.jsonl", f"\n\n{HUGE}\n", 3),
        ("a.jsonl", f"{SMALL}\n{HUGE}\n", 2),
        ("a.jsonl", f"[{SMALL},\n{SMALL},\n{HUGE}]\n", 3),
        ("a.jsonl", f"[{HUGE},\n{SMALL}]\n", 1),
        ("a.jsonl", HUGE.replace("[", "[\n", 1), 1),  # the place among objects that are written over several lines
        ("a.jsonl", HUGE.replace("z" * (1 << 15), "z" * (1 << 15) + '",\n"'), 1),
        ("a.csv", "query,passage\na,x\na," + "z" * (1 << 18) + "\n", 3),
    ],
    ids=["first", "after blanks", "second", "array", "array's first", "line of an object", "object of lines", "csv"],
)
def test_what_is_too_long_is_named_by_its_row(tmp_path, monkeypatch, name, content, row):
    monkeypatch.setattr(opened, "MAX_TEXT", 1 << 16)
    path = write(tmp_path, name, content)
    with pytest.raises(UserError, match=rf"{name} row {row}: .* of more than 0 MB"):
        read_lists(path)
