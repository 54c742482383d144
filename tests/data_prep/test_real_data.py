"""The loaders on real files, where they are there. Expected numbers were counted with pandas, apart from this code."""

from collections import Counter, defaultdict
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest

from data_prep.options import Options
from data_prep.prepare import prepare
from data_prep.schema import read_tasks
from data_prep.sides import CONTRADICTED
from iranker_verl.ranking import DATASETS
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
        # 714 users, 687 of them with 21 events or more, 686 with 21 different films; the other copy has two users with 3 events each on top.
        (
            "ml100k_recbole",
            "rec-movie",
            549,
            137,
            {"items: shown like another item": 18, "events: repeated item": 227, "users: fewer than 21 items": 28},
        ),
        (
            "ml100k_grouplens",
            "rec-movie",
            549,
            137,
            {
                "items: shown like another item": 18,
                "events: repeated item": 227,
                "users: fewer than 21 items": 30,
                "lines: blank": 1,
            },
        ),
        (
            "amazon/Amazon_CDs_and_Vinyl.inter",  # 60 users by raw events, 55 by different titles
            "rec-music",
            44,
            11,
            {
                "items: no title": 29,
                "events: item without a title": 134,
                "items: shown like another item": 412,
                "events: repeated item": 509,
                "users: fewer than 21 items": 2196,
            },
        ),
        (
            "amazon/Amazon_Video_Games.inter",  # 28 by raw events
            "rec-game",
            22,
            5,
            {"items: shown like another item": 49, "events: repeated item": 302, "users: fewer than 21 items": 2666},
        ),
        (
            "amazon/Amazon_CDs_and_Vinyl.orderonly.inter",
            "rec-music",
            201,
            50,
            {
                "items: no title": 29,
                "events: item without a title": 301,
                "items: shown like another item": 436,
                "events: repeated item": 1633,
                "users: fewer than 21 items": 5188,
            },
        ),
        (
            "amazon/Amazon_Video_Games.orderonly.inter",
            "rec-game",
            1474,
            368,
            {"items: shown like another item": 456, "events: repeated item": 97, "users: fewer than 21 items": 8},
        ),
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


NINE = {
    # train, test, candidates and what was dropped
    "rec-movie": (
        549,
        137,
        20,
        {"items: shown like another item": 18, "events: repeated item": 227, "users: fewer than 21 items": 28},
    ),
    "rec-music": (
        44,
        11,
        20,
        {
            "items: no title": 29,
            "events: item without a title": 134,
            "items: shown like another item": 412,
            "events: repeated item": 509,
            "users: fewer than 21 items": 2196,
        },
    ),
    "rec-game": (
        22,
        5,
        20,
        {"items: shown like another item": 49, "events: repeated item": 302, "users: fewer than 21 items": 2666},
    ),
    # 1,421 task ids and queries, two queries occur in two tasks: 1,419 by text
    **dict.fromkeys(
        ("router-performance", "router-cost", "router-balance"), (1135, 284, 10, {"rows: repeated query and LLM": 20})
    ),
}


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    """One folder with a source of each of the nine, as links."""
    folder = tmp_path_factory.mktemp("real") / "raw"
    folder.mkdir()
    for path in (
        REC / "ml100k_recbole",
        *(
            REC / "amazon" / f"Amazon_{name}.{kind}"
            for name in ("CDs_and_Vinyl", "Video_Games")
            for kind in ("inter", "item")
        ),
        ROUTER / "router_data.csv",
        DATA / "passage" / "msmarco_v11_schema",
    ):
        (folder / path.name).symlink_to(path)
    return folder


def passages_by_hand():
    """``{dataset: (train, test, dropped)}`` by a few lines of pandas: exactly N passages, one selected, 2,600 characters."""
    sides = {
        side: pd.read_parquet(DATA / "passage" / "msmarco_v11_schema" / f"{side}-00000-of-00001.parquet")
        for side in ("train", "test")
    }
    result = {}
    for n in (5, 7, 9):
        counts, dropped = Counter(), Counter()
        asked, grades = [], defaultdict(set)
        for side, frame in sides.items():
            size = frame.passages.map(lambda p: len(p["passage_text"]))
            single = frame.passages.map(lambda p: sum(p["is_selected"]) == 1)
            twin = frame.passages.map(
                lambda p: [*p["passage_text"]].count(p["passage_text"][p["is_selected"].argmax()]) > 1
            )
            one = single & ~twin
            length = frame.passages.map(lambda p: sum(len(" ".join(t.split())) for t in p["passage_text"]))
            dropped[f"queries: not {n} passages"] += int((size != n).sum())
            dropped["queries: not exactly one selected passage"] += int(((size == n) & ~single).sum())
            dropped["queries: equal passages, selected and not"] += int(((size == n) & single & twin).sum())
            dropped["queries: passages longer than 2600 characters"] += int(((size == n) & one & (length > 2600)).sum())
            for row in frame[(size == n) & one & (length <= 2600)].itertuples():
                query = " ".join(row.query.split()).casefold()
                asked.append((side, query))
                for text, flag in zip(row.passages["passage_text"], row.passages["is_selected"], strict=True):
                    grades[query, " ".join(text.split())].add(int(flag))
        contradicted = {query for (query, _), found in grades.items() if len(found) > 1}
        counts.update(side for side, query in asked if query not in contradicted)
        dropped[CONTRADICTED] = sum(query in contradicted for _, query in asked)
        result[f"passage-{n}"] = (counts["train"], counts["test"], n, dict(+dropped))
    return result


@pytest.mark.parametrize("kind", ["episodes", "states"])
def test_all_nine_presets(raw, tmp_path, kind):
    manifest = prepare(raw, tmp_path / "out", load("label"), Options(rows=kind))
    expected = NINE | passages_by_hand()
    assert {n: tuple(row.values()) for n, row in manifest["datasets"].items()} == expected
    assert list(manifest["datasets"]) == list(DATASETS)
    assert all(check["ok"] for check in manifest["checks"])
    train, test = (pq.read_table(tmp_path / "out" / f"{s}.parquet") for s in ("train", "test"))
    assert test.num_rows == sum(row[1] for row in expected.values())
    states = sum(row[0] * (row[2] - 1 if kind == "states" else 1) for row in expected.values())
    assert train.num_rows == states


def test_a_time_split_of_real_interactions(tmp_path):
    manifest = prepare(REC / "ml100k_recbole", tmp_path / "out", load("label"), Options(split="time"))
    assert all(check["ok"] for check in manifest["checks"])
    events = pd.read_csv(REC / "ml100k_recbole" / "ml-100k.inter", sep="\t").set_axis(list("uirt"), axis=1)
    rows = pq.read_table(tmp_path / "out" / "test.parquet")["extra_info"].to_pylist()
    items = pd.read_csv(REC / "ml100k_recbole" / "ml-100k.item", sep="\t", dtype=str).set_axis(list("inyc"), axis=1)
    events["film"] = events.i.astype(str).map(dict(zip(items.i, items.n + items.y + items["c"], strict=True)))
    films = events.sort_values("t", kind="stable").drop_duplicates(["u", "film"])
    last = films.groupby("u").tail(1).set_index("u")
    for info in rows:
        assert float(last.t[int(info["group"])]) == info["time"]
    trained = pq.read_table(tmp_path / "out" / "train.parquet")["extra_info"].to_pylist()
    assert max(info["time"] for info in trained) < min(info["time"] for info in rows)
    share = (events.t >= min(info["time"] for info in rows)).mean()
    assert 0.18 < share <= 0.2
