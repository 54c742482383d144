"""The loaders on real files, where they are there. Expected numbers were counted with pandas, apart from this code."""

from collections import Counter
from pathlib import Path

import pytest

from data_prep.prepare import prepare
from data_prep.schema import read_tasks
from iranker_verl.ranking.templates import load

DATA = Path(__file__).parents[2].parent / "shared" / "data"
pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason="no real data beside the project (../shared/data)")
REC, ROUTER = DATA / "rec", DATA / "router" / "graphrouter_format"


def run(raw, tmp_path, tasks=None):
    manifest = prepare(raw, tmp_path / "out", load("label"), tasks=tasks)
    train, test = (read_tasks(tmp_path / "out" / f"{split}.parquet") for split in ("train", "test"))
    return manifest["datasets"], train, test


@pytest.mark.parametrize(
    ("path", "dataset", "train", "test", "dropped"),
    [
        # 714 users, 687 of them with 21 events or more; the other copy has two users with 3 events each on top.
        ("ml100k_recbole", "rec-movie", 550, 137, {"users: fewer than 21 items": 27}),
        ("ml100k_grouplens", "rec-movie", 550, 137, {"users: fewer than 21 items": 29, "lines: blank": 1}),
        (
            "amazon/Amazon_CDs_and_Vinyl.inter",  # 60 users by raw events, 58 by different items with a title
            "rec-music",
            46,
            12,
            {
                "items: no title": 29,
                "events: item without a title": 134,
                "events: repeated item": 183,
                "users: fewer than 21 items": 2193,
            },
        ),
        (
            "amazon/Amazon_Video_Games.inter",  # 28 by raw events
            "rec-game",
            22,
            5,
            {"events: repeated item": 291, "users: fewer than 21 items": 2666},
        ),
        (
            "amazon/Amazon_CDs_and_Vinyl.orderonly.inter",
            "rec-music",
            205,
            51,
            {
                "items: no title": 29,
                "events: item without a title": 301,
                "events: repeated item": 749,
                "users: fewer than 21 items": 5183,
            },
        ),
        ("amazon/Amazon_Video_Games.orderonly.inter", "rec-game", 1480, 370, {}),
    ],
)
def test_recommendation(tmp_path, path, dataset, train, test, dropped):
    datasets, trained, tested = run(REC / path, tmp_path)
    assert datasets == {dataset: {"train": train, "test": test, "candidates": 20, "dropped": dropped}}
    assert not {t.id for t in trained} & {t.id for t in tested}
    for task in trained + tested:
        texts = [c.text for c in task.candidates] + [task.context]
        assert not any("\n" in text or "&amp;" in text or "<span" in text for text in texts)
        assert sum(task.relevance) == 1
    places = Counter(t.target for t in trained + tested)
    mean = (train + test) / 20
    assert max(places.values()) < mean + 6 * mean**0.5


@pytest.mark.parametrize(
    ("file", "queries", "candidates", "repeated", "positives"),
    [
        # How often an LLM is the best: performance, cost, balance.
        ("router_data.csv", 1419, 10, 20, [("claude-v2", 7, 6, 7), ("mistralai/mistral-7b-chat", 906, 929, 906)]),
        ("router_data_nq6.csv", 372, 6, 0, [("google/gemma-2-27b-it", 133, 132, 139)]),
    ],
)
def test_routing(tmp_path, file, queries, candidates, repeated, positives):
    datasets, train, test = run(ROUTER / file, tmp_path)
    tests = round(queries * 0.2)
    dropped = {"rows: repeated query and LLM": repeated} if repeated else {}
    row = {"train": queries - tests, "test": tests, "candidates": candidates, "dropped": dropped}
    names = ["router-performance", "router-cost", "router-balance"]
    assert datasets == dict.fromkeys(names, row)
    queries_of = [{t.context.split("\nPreference")[0] for t in side} for side in (train, test)]
    assert not queries_of[0] & queries_of[1]
    assert [len(side) for side in queries_of] == [queries - tests, tests]
    best = Counter((t.dataset, t.candidates[t.target].id) for t in train + test)
    for llm, *counts in positives:
        assert [best[name, llm] for name in names] == counts


def test_passages(tmp_path):
    datasets, train, test = run(DATA / "passage" / "msmarco_v11_schema", tmp_path)
    # Queries by (passages, selected) in train and test: 109+114 of (5, 1), 7 of (5, more); 905 rows in all.
    for size, trains, tests, several in ((5, 109, 114, 7), (7, 91, 98, 3), (9, 74, 81, 2)):
        assert datasets[f"passage-{size}"] == {
            "train": trains,
            "test": tests,
            "candidates": size,
            "dropped": {
                f"queries: not {size} passages": 905 - trains - tests - several,
                "queries: not exactly one selected passage": several,
            },
        }
    assert not {t.context.casefold() for t in train} & {t.context.casefold() for t in test}
