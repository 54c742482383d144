"""The one recommendation sampler: what a task is made of, what is dropped, whatever the buckets."""

from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep.options import Options
from data_prep.prepare import prepare
from data_prep.readers.events import EVENTS
from data_prep.scenarios import recommendation
from data_prep.scenarios.interactions import Interactions, Item
from data_prep.tasks import TASKS, nothing_dropped
from data_prep.work import Work
from iranker_verl.ranking.templates import load

CROWD = "crowd-of-"
SMALL = Options(history=2, candidates=3)


def read_events(path, dropped):
    rows = [line.split("\t") for line in path.read_text().splitlines()]
    users, items, times = zip(*rows, strict=True) if rows else ((), (), ())
    columns = [pa.array(users, pa.string()), items, list(map(float, times)), [0] * len(rows)]
    yield pa.record_batch(columns, schema=EVENTS)


def read_items(path, dropped):
    for row, line in enumerate(path.read_text().splitlines(), 1):
        id, title = line.split("\t")
        yield Item(id, title, row=row)


def interactions(folder, *files, items="abcdefgh", dataset="rec-movie", crowd=True):
    """Interactions whose files hold ``(user, item, time)``; the items are called "Title a" and so on.

    With ``crowd`` every item was touched by somebody: a user of its own, too short to make a task.
    """
    folder.mkdir(exist_ok=True, parents=True)
    (folder / "items").write_text("".join(f"{i}\tTitle {i}\n" for i in items))
    paths = []
    for number, events in enumerate(files):
        paths.append(folder / f"events{number}")
        paths[-1].write_text("".join(f"{u}\t{i}\t{t}\n" for u, i, t in events))
    if crowd:
        with paths[-1].open("a") as file:
            file.writelines(f"{CROWD}{i}\t{i}\t0\n" for i in items)
    return Interactions(dataset, tuple(paths), (folder / "items",), read_events, read_items)


def made(data, options, folder):
    """All tasks, as dicts by id, and what was dropped."""
    dropped = nothing_dropped()
    units = recommendation.bucket_units(data, options, Work(folder / "work"))
    table = pa.concat_tables(
        [TASKS.empty_table(), *(t for unit in units for t in unit.run(options, [data.dataset], dropped))]
    )
    tasks = {row["task_id"]: row for row in table.to_pylist()}
    assert len(tasks) == table.num_rows
    short = f"users: fewer than {options.history + 1} items"
    dropped[data.dataset][short] -= sum(p.read_text().count(f"{CROWD}") for p in data.events)
    return tasks, dict(+dropped[data.dataset])


def only(result):
    tasks, dropped = result
    (task,) = tasks.values()
    assert not dropped
    return task


def test_last_item_is_the_positive_and_the_ones_before_it_are_the_context(tmp_path):
    # Time order is c(1) a(2) d(3) b(5): positive b, history a, d; c is out of the window but seen.
    data = interactions(tmp_path, [("u", "a", 2), ("u", "b", 5), ("u", "c", 1), ("u", "d", 3)])
    task = only(made(data, SMALL, tmp_path))
    assert (task["task_id"], task["scenario"], task["group"]) == ("rec-movie:u", "recommendation", "u")
    assert (task["context"], task["history_ids"], task["time"]) == ("Title a; Title d", ["a", "d"], 5.0)
    assert task["candidate_ids"][0] == "b" and task["relevance"] == [1.0, 0.0, 0.0]
    assert set(task["candidate_ids"][1:]) <= set("efgh") and len(set(task["candidate_ids"])) == 3
    assert task["candidates"] == [f"Title {i}" for i in task["candidate_ids"]]
    assert task["side"] is None


def test_a_user_gives_as_many_tasks_as_the_history_allows_the_last_items_first(tmp_path):
    data = interactions(tmp_path, [("u", item, time) for time, item in enumerate("abcd")])
    for most, expected in ((1, ["d"]), (2, ["d", "c"]), (9, ["d", "c"])):
        options = Options(history=2, candidates=3, tasks_per_user=most)
        tasks, _ = made(data, options, tmp_path / str(most))
        assert [t["candidate_ids"][0] for t in tasks.values()] == expected
        assert [t["earlier"] for t in tasks.values()] == list(range(len(expected)))
        for task, history in zip(tasks.values(), (["b", "c"], ["a", "b"]), strict=False):
            assert task["history_ids"] == history and not set(task["candidate_ids"][1:]) & set("abcd")


@pytest.mark.parametrize("split", ["group", "time"])
def test_test_users_give_one_task_and_training_users_several(tmp_path, split):
    events = [(f"u{u}", f"i{(3 * u + n) % 40}", 10 * n + u) for u in range(20) for n in range(8)]
    lines = [f"{user}\t{item}\t{time}" for user, item, time in events]
    (tmp_path / "rec-game").mkdir()
    (tmp_path / "rec-game" / "X.inter").write_text("\n".join(["user_id:token\titem_id:token\ttimestamp:float", *lines]))
    titles = [f"i{i}\tTitle {i}" for i in range(40)]
    (tmp_path / "rec-game" / "X.item").write_text("\n".join(["item_id:token\ttitle:token_seq", *titles]))
    options = Options(history=2, candidates=4, tasks_per_user=3, split=split)
    prepare(tmp_path / "rec-game", tmp_path / "out", load("label"), options)
    groups = {
        side: Counter(
            row["extra_info"]["group"] for row in pq.read_table(tmp_path / "out" / f"{side}.parquet").to_pylist()
        )
        for side in ("train", "test")
    }
    assert set(groups["train"].values()) == {3} and set(groups["test"].values()) == {1}


def test_long_titles_are_shortened_and_items_that_read_alike_then_are_one(tmp_path):
    data = interactions(tmp_path, [("u", item, time) for time, item in enumerate("abcd")])
    data.items[0].write_text(
        "".join(f"{i}\tThe long title of {dict(a='Ann', b='Bob').get(i, i)}\n" for i in "abcdefgh")
    )
    options = Options(history=2, candidates=3, max_title_chars=19)
    tasks, dropped = made(data, options, tmp_path / "out")
    assert dropped["items: shown like another item"] == 1
    assert tasks["rec-movie:u"]["context"] == "The long title of …; The long title of c"


def test_ties_in_time_keep_the_order_of_the_file_and_of_the_files(tmp_path):
    data = interactions(tmp_path, [("u", "b", 7), ("u", "a", 7)], [("u", "d", 7), ("u", "c", 3)])
    task = only(made(data, SMALL, tmp_path))
    assert (task["context"], task["candidate_ids"][0]) == ("Title b; Title a", "d")


def test_a_repeated_item_counts_at_its_first_place(tmp_path):
    # a(1) b(2) a(3) c(4) b(5): a b c are left, and c is last.
    events = [("u", "a", 1), ("u", "b", 2), ("u", "a", 3), ("u", "c", 4), ("u", "b", 5)]
    tasks, dropped = made(interactions(tmp_path, events), SMALL, tmp_path)
    assert (tasks["rec-movie:u"]["context"], tasks["rec-movie:u"]["candidate_ids"][0]) == ("Title a; Title b", "c")
    assert dropped == {"events: repeated item": 2}


def test_unknown_items_and_short_users_are_dropped_and_counted(tmp_path):
    # x has no title: u keeps three items, v two, w none, and three are needed.
    events = [
        (user, item, time)
        for user, items in (("u", "axbc"), ("v", "axb"), ("w", "x"))
        for time, item in enumerate(items)
    ]
    data = interactions(tmp_path, events)
    data.items[0].write_text(data.items[0].read_text() + "x\t<br>\na\tTitle  a\n")
    tasks, dropped = made(data, SMALL, tmp_path)
    assert list(tasks) == ["rec-movie:u"] and tasks["rec-movie:u"]["context"] == "Title a; Title b"
    assert dropped == {
        "items: no title": 1,
        "items: repeated id": 1,
        "events: item without a title": 3,
        "users: fewer than 3 items": 2,
    }


def test_who_has_seen_nearly_all_is_dropped_and_counted(tmp_path):
    events = [(user, item, t) for user, own in (("u", "abcdefg"), ("v", "abcdef")) for t, item in enumerate(own)]
    tasks, dropped = made(interactions(tmp_path, events), SMALL, tmp_path)
    assert list(tasks) == ["rec-movie:v"] and set(tasks["rec-movie:v"]["candidate_ids"]) == set("fgh")
    assert dropped == {"users: fewer than 2 items never seen": 1}


@pytest.mark.parametrize("negatives", ["uniform", "popularity", "bm25"])
def test_negatives_are_new_different_and_the_same_whatever_the_buckets(tmp_path, monkeypatch, negatives):
    items = [f"i{n}" for n in range(40)]
    events = [(f"u{u}", items[(u * 7 + n * n) % 40], n) for u in range(60) for n in range(8)]
    seen = defaultdict(set)
    for user, item, _ in events:
        seen[user].add(item)
    options = Options(history=3, candidates=10, negatives=negatives)
    data = interactions(tmp_path / "one", events, items=items)
    tasks, dropped = made(data, options, tmp_path / "one")
    assert len(tasks) > 30
    for task in tasks.values():
        ids = task["candidate_ids"]
        assert len(set(ids)) == 10 and not set(ids[1:]) & seen[task["group"]]
    monkeypatch.setattr(recommendation, "BUCKET_BYTES", 100)
    monkeypatch.setattr(recommendation, "CHUNK", 3)
    half = len(events) // 2
    cut = interactions(tmp_path / "many", events[:half], events[half:], items=items)
    assert len(recommendation.bucket_units(cut, options, Work(tmp_path / "count"))) > 30
    assert made(cut, options, tmp_path / "many") == (tasks, dropped)


def test_popular_negatives_are_popular_and_uniform_ones_uniform(tmp_path):
    items = [f"i{n}" for n in range(60)]
    # i50 … i59 are touched by many, i20 … i49 by one, i0 … i9 by nobody; the users drawn for have seen none of them
    events = [(f"crowd{u}", f"i{n}", n) for u in range(300) for n in range(50, 60)]
    events += [(f"u{u}", f"i{10 + n}", n) for u in range(400) for n in range(3)]
    events += [(f"rare{n}", f"i{n}", 0) for n in range(20, 50)]
    data = interactions(tmp_path, events, items=items, crowd=False)

    def drawn(negatives):
        tasks, _ = made(data, Options(history=2, candidates=6, negatives=negatives), tmp_path / negatives)
        own = [t for t in tasks.values() if t["group"].startswith("u")]
        return Counter(i for t in own for i in t["candidate_ids"][1:])

    uniform, popular = drawn("uniform"), drawn("popularity")
    expected = 400 * 5 / 40
    assert set(uniform) == {f"i{n}" for n in range(20, 60)} and all(
        abs(n - expected) < 6 * expected**0.5 for n in uniform.values()
    )
    assert all(popular[f"i{n}"] > 100 for n in range(50, 60)) and not any(popular[f"i{n}"] for n in range(10))


def test_hard_negatives_share_words_with_the_history(tmp_path):
    data = interactions(tmp_path, [("u", i, t) for t, i in enumerate("abc")], items="abcdefg")
    titles = {"a": "red rose", "b": "red tulip", "c": "tulip", "d": "red barn", "e": "tulip mania", "f": "x", "g": "y"}
    data.items[0].write_text("".join(f"{i}\t{t}\n" for i, t in titles.items()))
    task = only(made(data, Options(history=2, candidates=3, negatives="bm25"), tmp_path))
    assert set(task["candidate_ids"]) == {"c", "d", "e"}


def test_a_time_split_knows_nothing_of_the_future(tmp_path):
    events = [(f"u{u}", f"i{(u + n) % 30}", u + 2 * n) for u in range(40) for n in range(8)]
    data = interactions(tmp_path, events, items=[f"i{n}" for n in range(30)], crowd=False)
    options = Options(history=2, candidates=4, split="time", test_fraction=0.3)
    tasks, _ = made(data, options, tmp_path)
    times = sorted(float(t) for _, _, t in events)
    train = [t for t in tasks.values() if t["side"] == "train"]
    test = [t for t in tasks.values() if t["side"] == "test"]
    cut = min(t["time"] for t in test)
    assert train and test and max(t["time"] for t in train) < cut
    assert sum(t >= cut for t in times) / len(times) == pytest.approx(0.3, abs=0.05)
    when = {(u, i): t for u, i, t in events}
    for task in train:
        assert all(when[task["group"], item] < task["time"] for item in task["history_ids"])
        past = {i for (u, i), t in when.items() if u == task["group"] and t < cut}
        assert not set(task["candidate_ids"][1:]) & past
    last = {u: max(t for v, _, t in events if v == u) for u, _, _ in events}
    assert {t["group"] for t in test} == {u for u, t in last.items() if t >= cut}


@given(
    events=st.lists(st.tuples(st.sampled_from("uvw"), st.sampled_from("abcdex"), st.integers(0, 3)), max_size=30),
    history=st.integers(1, 3),
)
@settings(max_examples=60, deadline=None)
def test_against_a_slow_reference(tmp_path_factory, events, history):
    """One user at a time, in plain Python: who makes a task, of what, and what is dropped."""
    folder: Path = tmp_path_factory.mktemp("reference")
    tasks, dropped = made(interactions(folder, events, items="abcde"), Options(history=history, candidates=2), folder)
    expected, lost = {}, Counter()
    for user in dict.fromkeys(u for u, _, _ in events):
        own = sorted((e for e in events if e[0] == user), key=lambda e: e[2])
        lost["events: item without a title"] += sum(i == "x" for _, i, _ in own)
        known = [i for _, i, _ in own if i != "x"]
        items = list(dict.fromkeys(known))
        lost["events: repeated item"] += len(known) - len(items)
        if len(items) < history + 1:
            lost[f"users: fewer than {history + 1} items"] += 1
        elif len(items) == 5:
            lost["users: fewer than 1 items never seen"] += 1
        else:
            expected[f"rec-movie:{user}"] = (items[-1], items[-history - 1 : -1], set("abcde") - set(items))
    assert set(tasks) == set(expected) and dropped == dict(+lost)
    for name, (positive, before, new) in expected.items():
        assert tasks[name]["candidate_ids"][0] == positive
        assert tasks[name]["candidate_ids"][1] in new
        assert tasks[name]["history_ids"] == before


WHOLE = st.integers(-(2**60), 2**60) | st.integers(0, 3) | st.integers(10**18, 10**18 + 300)
BIG = st.floats(allow_nan=False, allow_infinity=False)


@given(st.lists(st.tuples(st.integers(0, 3), WHOLE)) | st.lists(st.tuples(st.integers(0, 3), BIG | WHOLE)))
def test_events_in_order_whatever_their_times_are(events):
    user, time = np.array([u for u, _ in events], np.int64), np.array([float(t) for _, t in events])
    rest = np.array([t - int(float(t)) if isinstance(t, int) else 0 for _, t in events], np.int64)
    expected = sorted(range(len(events)), key=lambda place: events[place])  # stable
    assert recommendation._by_user_and_time(user, time, rest).tolist() == expected


@given(st.lists(st.integers(0, 5)))
def test_firsts(values):
    expected = [value not in values[:place] for place, value in enumerate(values)]
    assert recommendation._firsts(np.array(values, np.int64)).tolist() == expected
