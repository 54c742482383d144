"""Spoilt and monstrous files, for all readers: each is read, named as not read, or refused in one line."""

import io
import json
import os
import random

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_prep.discover import discover
from data_prep.options import Options
from data_prep.work import Work
from iranker_verl.errors import UserError
from tests.data_prep.source_runs import made
from tests.spoiling import spoilt

COUNT = int(os.environ.get("IRANKER_FUZZ", "300"))


def table(separator, *rows):
    return "".join(separator.join(map(str, row)) + "\n" for row in rows).encode()


def jsonl(*rows):
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def parquet(*rows):
    file = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(list(rows)), file)
    return file.getvalue()


EVENTS = [(f"u{i % 3}", f"i{i}", 5, 1_000_000_000 + i) for i in range(12)]
FLAGS = ["0"] * 19
LLMS = [
    {"query": f"q{i}", "llm": llm, "effect": float(llm == "a"), "cost": 0.1} for i in range(4) for llm in ("a", "b")
]
MARCO = [
    {"query": f"q{i}", "passages": {"is_selected": [1, 0, 0, 0, 0], "passage_text": [f"p{i}{j}" for j in range(5)]}}
    for i in range(3)
]
BENCH = [
    {"problem": "in order: A\n\nNow there are 2", "gt": "a", "candidates": ["a", "b"], "task_name": "Rec-Movie"}
] * 2
HITS = [
    {"query": "q", "hits": [{"qid": 1, "docid": i, "content": f"c{i}", "rank": i, "score": 9 - i} for i in range(3)]}
]
WIKI = ("QuestionID", "Question", "DocumentID", "DocumentTitle", "SentenceID", "Sentence", "Label")
BENCHED = {
    "sample_id": "s",
    "prompt": "['p']",
    "eval_name": "e",
    "x": 1.0,
    "x|total_cost": 0.1,
    "y": 0.0,
    "y|total_cost": 0.2,
}
# One small copy of every format: its files, of which one is spoilt at a time.
FORMATS = {
    "100k": {
        "u.data": table("\t", *EVENTS),
        "u.item": table("|", *((f"i{i}", f"T{i}", "", "", "", *FLAGS) for i in range(12))),
    },
    "1m": {
        "ratings.dat": table("::", *EVENTS),
        "movies.dat": table("::", *((f"i{i}", f"T{i} (1999)", "Drama|War") for i in range(12))),
    },
    "ml-csv": {
        "ratings.csv": table(",", ("userId", "movieId", "rating", "timestamp"), *EVENTS),
        "movies.csv": table(",", ("movieId", "title", "genres"), *((f"i{i}", f'"T, {i}"', "War") for i in range(12))),
    },
    "amazon": {
        "Video_Games.json": jsonl(*({"reviewerID": u, "asin": i, "unixReviewTime": t} for u, i, _, t in EVENTS)),
        "meta_Video_Games.json": jsonl(*({"asin": f"i{i}", "title": f"<b>T{i}</b>"} for i in range(12))),
    },
    "amazon-csv": {
        "Video_Games.csv": table(",", ("user_id", "parent_asin", "rating", "timestamp"), *EVENTS),
        "meta_Video_Games.jsonl": jsonl(*({"parent_asin": f"i{i}", "title": f"T{i}"} for i in range(12))),
    },
    "recbole": {
        "ml.inter": table("\t", ("user_id:token", "item_id:token", "rating:float", "timestamp:float"), *EVENTS),
        "ml.item": table("\t", ("item_id:token", "title:token_seq"), *((f"i{i}", f"T{i}") for i in range(12))),
    },
    "graphrouter": {
        "router.csv": table(
            ",", ("task_id", "query", "llm", "effect", "cost"), *(("t", *row.values()) for row in LLMS)
        ),
        "llm_descriptions.json": json.dumps({"a": {"description": "A"}, "b": {"description": "B"}}).encode(),
    },
    "llmrouter": {"train.json": json.dumps([{"question": f"q{i}", "scores": {"a": 1, "b": 0}} for i in range(3)]).encode()},
    "llmrouter-long": {
        "routing_data.jsonl": jsonl(
            *({"query": r["query"], "model_name": r["llm"], "performance": r["effect"]} for r in LLMS)
        )
    },
    "routerbench": {"routerbench.parquet": parquet(*({**BENCHED, "sample_id": f"s{i}"} for i in range(3)))},
    "routerbench-csv": {"routerbench.csv": table(",", BENCHED, *(BENCHED.values() for _ in range(3)))},
    "marco": {"train.parquet": parquet(*MARCO)},
    "marco-lines": {"train.json": jsonl(*MARCO)},
    "marco-columns": {
        "train.json": json.dumps({k: {str(i): row[k] for i, row in enumerate(MARCO)} for k in MARCO[0]}).encode()
    },
    "trec": {
        "x.qrels.txt": table(" ", (1, 0, "d0", 1), (1, 0, "d1", 0)),
        "x.run": table(" ", (1, "Q0", "d0", 1, 9.5, "r"), (1, "Q0", "d1", 2, 9, "r")),
        "x.topics.tsv": table("\t", (1, "what")),
        "collection.tsv": table("\t", ("d0", "zero"), ("d1", "one")),
    },
    "trec-hits": {"qrels.txt": table(" ", (1, 0, 0, 1), (1, 0, 1, 0)), "retrieve_results.json": json.dumps(HITS).encode()},
    "beir": {
        "qrels/test.tsv": table("\t", ("query-id", "corpus-id", "score"), (1, "d0", 1), (1, "d1", 0)),
        "x.run": table(" ", (1, "Q0", "d0", 1, 9.5, "r"), (1, "Q0", "d1", 2, 9, "r")),
        "queries.jsonl": jsonl({"_id": "1", "text": "what"}),
        "corpus.jsonl": jsonl({"_id": "d0", "title": "T", "text": "zero"}, {"_id": "d1", "title": "", "text": "one"}),
    },
    "wikiqa": {"a.tsv": table("\t", WIKI, *(("Q1", "why", "D", "t", f"S{i}", f"s{i}", int(i == 0)) for i in range(3)))},
    "bench": {"train.csv": table(",", BENCH[0], ('"in order: A\n\nNow there are 2"', "a", "\"['a', 'b']\"", "Rec-Movie"))},
    "bench-parquet": {"train.parquet": parquet(*BENCH)},
    "own-clicks": {"clicks.csv": table(",", ("user_id", "item_id", "x", "timestamp", "title"), *((*e, e[1]) for e in EVENTS))},
    "own-passages": {"faq.csv": table(",", ("query", "passage", "relevance"), ("q", "a", 1), ("q", "b", 0))},
    "own-lists": {
        "help.jsonl": jsonl({"query": "q", "candidates": [{"text": "a", "relevance": 1}, {"text": "b", "relevance": 0}]})
    },
    "own-router": {"router.csv": table(",", ("query", "llm", "effect", "cost"), *(row.values() for row in LLMS))},
}  # fmt: skip


def outcome(raw, work):
    """How many tasks were read, or the error's one line."""
    try:
        found = discover(raw)
        tasks = 0
        for source in found.sources:
            options = Options(history=1, candidates=2)
            tasks += sum(part.num_rows for part in made(source, options, work=Work(work)))
        return tasks
    except UserError as error:
        return str(error)


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_is_read_as_it_is(tmp_path, name):
    for file, content in FORMATS[name].items():
        (tmp_path / "raw" / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "raw" / file).write_bytes(content)
    found = outcome(tmp_path / "raw", tmp_path / "work")
    assert isinstance(found, int) and found > 0, found


@pytest.mark.parametrize("part", range(10))
def test_a_spoilt_file_is_read_or_refused_in_one_line(tmp_path, part):
    for number in range(part, COUNT, 10):
        rng = random.Random(f"fuzz {number}")
        name = rng.choice(sorted(FORMATS))
        files = FORMATS[name]
        target = rng.choice(sorted(files))
        raw = tmp_path / str(number) / "raw"
        for file, content in files.items():
            (raw / file).parent.mkdir(parents=True, exist_ok=True)
            (raw / file).write_bytes(spoilt(rng, content) if file == target else content)
        try:
            found = outcome(raw, tmp_path / str(number) / "work")
        except Exception as error:
            raise AssertionError(f"{number}: {name}/{target}: {(raw / target).read_bytes()[:300]}") from error
        if isinstance(found, str):
            assert "\n" not in found and len(found) < 1500, found
