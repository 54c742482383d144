"""WikiQA's TSV files: which sentences are relevant, which files are which side, what is dropped and refused."""

from collections import Counter, defaultdict
from pathlib import Path

import pytest

from data_prep.options import Options
from data_prep.sources import wikiqa
from iranker_verl.errors import UserError
from tests.data_prep.source_runs import find, run

DATA = Path(__file__).parents[2].parent / "shared" / "data" / "passage" / "wikiqa"
HEADER = "QuestionID\tQuestion\tDocumentID\tDocumentTitle\tSentenceID\tSentence\tLabel"


def write(path, rows, header=HEADER, end="\n"):
    """``rows`` are ``(question id, sentence, label)``; the question's text is its id spelt out."""
    lines = [header]
    for n, (question, sentence, label) in enumerate(rows):
        fields = [question, f"what is {question}", "D1", "Some title", f"D1-{n}", sentence, label]
        lines.append("\t".join(fields[: header.count("\t") + 1]))
    path.write_text(end.join(lines) + end, encoding="utf-8", newline="")
    return path


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_task(tmp_path, end):
    rows = [
        ("Q1", 'He said "no\u2028 more', "0"),
        ("Q1", "It is.", "1"),
        ("Q2", "a", "1"),
        ("Q2", "b", "0"),
        ("Q2", "c", "1"),
    ]
    write(tmp_path / "WikiQA-dev.tsv", rows, end=end)
    (one, two), dropped, source = run(wikiqa.find_wikiqa, tmp_path)
    assert one == {
        "task_id": "wikiqa:Q1",
        "dataset": "wikiqa",
        "scenario": "passage",
        "context": "what is Q1",
        "candidate_ids": ["D1-0", "D1-1"],
        "candidates": ['He said "no more', "It is."],
        "relevance": [0.0, 1.0],
        "group": "what is q1",
        "side": None,
        "history_ids": [],
        "time": None,
        "earlier": 0,
    }
    assert two["relevance"] == [1.0, 0.0, 1.0]
    assert not dropped
    assert (source.format, source.datasets) == ("WikiQA", ("wikiqa",))


def test_every_reason_to_drop(tmp_path):
    rows = [
        *(("Q1", text, label) for text, label in (("yes", "1"), ("no", "0"), (" ", "0"))),
        *(("Q2", text, "0") for text in "ab"),
        *(("Q3", text, "1") for text in "ab"),
        ("Q4", "alone", "1"),
        *(("Q5", text, label) for text, label in (("left", "1"), ("", "0"))),
        *(("Q6", text, label) for text, label in (("x" * 6, "1"), ("y" * 5, "0"))),
        *((" ", text, label) for text, label in (("x", "1"), ("y", "0"))),
    ]
    path = write(tmp_path / "WikiQA-dev.tsv", rows)
    path.write_text(path.read_text().replace("what is  \t", " \t") + "\n")
    tasks, dropped, _ = run(wikiqa.find_wikiqa, tmp_path, Options(max_chars=10, passages=7))
    assert [task["task_id"] for task in tasks] == ["wikiqa:Q1"]
    assert dropped["wikiqa"] == {
        "queries: no answer": 1,
        "queries: nothing but answers": 1,
        "queries: fewer than 2 sentences": 2,
        "queries: passages longer than 10 characters": 1,
        "queries: empty": 1,
        "sentences: empty": 2,
        "lines: blank": 1,
    }


@pytest.mark.parametrize(
    ("names", "sides"),
    [
        ("train dev test", {"train": "train", "test": "test"}),
        ("train dev", {"train": "train", "dev": "test"}),
        ("dev test", {"dev": None, "test": None}),
    ],
)
def test_names_decide_the_sides(tmp_path, names, sides):
    for name in names.split():
        write(tmp_path / f"WikiQA-{name}.tsv", [(name, "a", "0"), (name, "b", "1")])
    tasks, _, _ = run(wikiqa.find_wikiqa, tmp_path)
    assert {task["task_id"].removeprefix("wikiqa:"): task["side"] for task in tasks} == sides


def test_a_file_without_labels(tmp_path):
    bare = write(tmp_path / "WikiQA-test.tsv", [("Q1", "a", "")], HEADER.removesuffix("\tLabel"))
    write(tmp_path / "WikiQA-dev.tsv", [("Q2", "a", "0"), ("Q2", "b", "1")])
    with pytest.raises(
        UserError, match=r"WikiQA-test.tsv row 1: no column Label; put the file with labels beside it, or"
    ):
        find(wikiqa.find_wikiqa, tmp_path)
    gold = write(tmp_path / "WikiQA-test-gold.tsv", [("Q1", "a", "0"), ("Q1", "b", "1")])
    assert bare not in run(wikiqa.find_wikiqa, tmp_path)[2].files
    assert gold in run(wikiqa.find_wikiqa, tmp_path)[2].files


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("b\t1", "b\t2"), "row 3: Label is '2', not 0 or 1"),
        (("b\t1", "b\t"), "row 3: Label is '', not 0 or 1"),
        (("b\t1", "b\tc\t1"), "row 3: 8 fields separated by tabs, 7 expected"),
        (("\tD1\tSome title\tD1-1\tb\t1", ""), "row 3: 2 fields separated by tabs, 7 expected"),
        (("D1-1", "D1-0"), "row 3: SentenceID 'D1-0' occurs twice"),
    ],
)
def test_what_is_refused(tmp_path, change, message):
    path = write(tmp_path / "WikiQA-dev.tsv", [("Q1", "a", "0"), ("Q1", "b", "1")])
    path.write_text(path.read_text().replace(*change))
    with pytest.raises(UserError, match=f"WikiQA-dev.tsv {message}") as error:
        run(wikiqa.find_wikiqa, tmp_path)
    assert "\n" not in str(error.value)


def test_another_encoding(tmp_path):
    path = write(tmp_path / "WikiQA-dev.tsv", [("Q1", "a", "0"), ("Q1", "é", "1")])
    path.write_bytes(path.read_text(encoding="utf-8").encode("latin-1"))
    with pytest.raises(UserError, match=r"WikiQA-dev.tsv row 3: byte .* is not utf-8 text"):
        run(wikiqa.find_wikiqa, tmp_path)


def test_files_of_something_else_are_left_alone(tmp_path):
    (tmp_path / "a.tsv").write_text("QuestionID\tQuestion\n")
    (tmp_path / "b.tsv").write_text("")
    (tmp_path / "c.csv").write_text(HEADER)
    (tmp_path / "d.tsv").write_bytes(b"\xff\xfe")
    assert not find(wikiqa.find_wikiqa, tmp_path)


@pytest.mark.skipif(not DATA.is_dir(), reason="no real data beside the project (../shared/data)")
def test_real_files():
    tasks, dropped, source = run(wikiqa.find_wikiqa, DATA, Options(max_chars=20_000))  # sentences of whole articles
    assert [path.name for path in source.files] == ["WikiQA-dev.tsv", "WikiQA-test-gold.tsv"]
    labels = defaultdict(list)
    for path in source.files:
        for line in path.read_bytes().decode().split("\n")[1:-1]:
            labels[line.split("\t")[0]].append(float(line.rstrip("\r").split("\t")[6]))
    kept = {f"wikiqa:{id}": own for id, own in labels.items() if len(own) > 1 and len(set(own)) == 2}
    assert {task["task_id"]: task["relevance"] for task in tasks} == kept
    assert len(labels) == 248
    assert len(tasks) == 242
    assert dropped["wikiqa"] == {"queries: fewer than 2 sentences": 4, "queries: nothing but answers": 2}
    assert Counter(sum(task["relevance"]) > 1 for task in tasks)[True] == sum(sum(own) > 1 for own in kept.values())
