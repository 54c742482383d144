"""Tasks to rows: the same prompts as the templates give one by one, and states and orders as the paper has them."""

from collections import Counter, defaultdict

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep.options import Options
from data_prep.rows import episode_rows, rows, write_tasks
from data_prep.schema import SCHEMA, read_rows, read_tasks
from data_prep.tasks import TASKS, Draft, tables
from iranker_verl.ranking import DATASETS, Candidate, RankingTask
from iranker_verl.ranking.templates import available, load

TEXTS = st.text(min_size=1, max_size=12).filter(lambda t: t.strip() != "" and "\x00" not in t)


@st.composite
def ranking_tasks(draw, most=5):
    made = []
    for number in range(draw(st.integers(1, most))):
        dataset = draw(st.sampled_from([*DATASETS, "own"]))
        size = draw(st.integers(2, 6))
        grades = st.lists(st.sampled_from([0.0, 0.5, 1.0, 2.0]), min_size=size, max_size=size)
        relevance = draw(grades.filter(lambda values: len(set(values)) > 1))
        candidates = tuple(Candidate(f"c{i}", draw(TEXTS)) for i in range(size))
        scenario = DATASETS.get(dataset, "passage")
        context = draw(st.sampled_from(["", "{n} {candidates}", "line\none", "東"]))
        made.append(RankingTask(f"t{number}", scenario, dataset, context, candidates, tuple(relevance)))
    return made


def table(tasks):
    return pa.concat_tables([TASKS.empty_table(), *tables(Draft(t, t.id, None, ("h",), 7.0) for t in tasks)])


def back(made):
    return [RankingTask.from_row(row) for row in made.to_pylist()]


@pytest.mark.parametrize("template", [name for name in available() if load(name).kind in ("exclusion", "direct")])
@given(tasks=ranking_tasks())
@settings(max_examples=12, deadline=None)
def test_prompts_are_those_of_the_template(template, tasks):
    chosen = load(template)
    kind = "direct" if chosen.kind == "direct" else "episodes"
    made = rows(table(tasks), chosen, Options(rows=kind, orders=2), "train", 5)
    assert made.schema == SCHEMA
    shown = back(made)
    for row, task in zip(made.to_pylist(), shown, strict=True):
        assert row["prompt"] == chosen.messages(chosen.start(task))
        assert row["reward_model"]["ground_truth"] == {"relevance": None, **task.ground_truth()}
        assert row["extra_info"]["history_ids"] == ["h"] and row["extra_info"]["time"] == 7.0
        assert row["agent_name"] == ("direct_agent" if kind == "direct" else "elimination_agent")
    assert [row["extra_info"]["index"] for row in made.to_pylist()] == list(range(5, 5 + len(shown)))
    # every task twice, whole: the same candidates with the same relevance, in some order
    assert [t.id for t in shown] == [t.id for t in tasks for _ in range(2)]
    for task, one in zip((t for t in tasks for _ in range(2)), shown, strict=True):
        pairs = list(zip(task.candidates, task.relevance, strict=True))
        assert sorted(zip(one.candidates, one.relevance, strict=True), key=str) == sorted(pairs, key=str)


@given(tasks=ranking_tasks(), orders=st.integers(1, 3))
@settings(max_examples=50, deadline=None)
def test_states_hold_the_best_and_k_others(tasks, orders):
    made = back(rows(table(tasks), load("label"), Options(rows="states", orders=orders), "train", 0))
    by_task = defaultdict(list)
    for state in made:
        by_task[state.id].append(state)
    assert list(by_task) == [t.id for t in tasks]
    for task in tasks:
        states = by_task[task.id]
        sizes = [k + 1 for k in range(1, len(task.candidates)) for _ in range(orders)]
        others = sorted(task.relevance)[:-1]
        if max(others) < max(task.relevance):  # one best: no state is without a decision
            assert [len(s.candidates) for s in states] == sizes
        assert not Counter(len(s.candidates) for s in states) - Counter(sizes)
        relevance = dict(zip(task.candidates, task.relevance, strict=True))
        best = task.candidates[task.target]
        for state in states:
            assert best in state.candidates
            assert len(set(state.candidates)) == len(state.candidates)
            assert [relevance[c] for c in state.candidates] == list(state.relevance)


def one_positive(count, size=4):
    for number in range(count):
        candidates = tuple(Candidate(f"c{i}", f"text {i}") for i in range(size))
        yield RankingTask.with_positive(f"task {number}", "passage", "passage-5", "q", candidates, "c0")


def test_orders_and_negatives_of_states_are_uniform():
    """1200 tasks of four candidates: every place of the positive, every negative, every order about equally often."""
    made = back(rows(table(one_positive(1200)), load("label"), Options(rows="states"), "train", 0))
    for size in (2, 3, 4):
        own = [state for state in made if len(state.candidates) == size]
        assert len(own) == 1200
        expected = 1200 / size
        for count in Counter(state.target for state in own).values():
            assert abs(count - expected) < 6 * expected**0.5
    pairs = Counter(c.id for s in made if len(s.candidates) == 2 for c in s.candidates if c.id != "c0")
    assert set(pairs) == {"c1", "c2", "c3"} and max(pairs.values()) < 400 + 6 * 20
    whole = rows(table(one_positive(1200)), load("label"), Options(), "train", 0)
    orders = Counter(tuple(row["extra_info"]["candidate_ids"]) for row in whole.to_pylist())
    assert len(orders) == 24 and max(orders.values()) < 50 + 6 * 50**0.5


def test_a_row_depends_on_its_task_and_the_seed_alone():
    tasks = list(one_positive(9))
    alone = [rows(table([t]), load("label"), Options(rows="states"), "test", 0).to_pylist() for t in tasks]
    together = rows(table(tasks), load("label"), Options(rows="states"), "test", 0).to_pylist()
    strip = lambda row: {**row, "extra_info": {**row["extra_info"], "index": 0}}  # noqa: E731
    assert [strip(r) for one in alone for r in one] == [strip(r) for r in together]
    other = rows(table(tasks), load("label"), Options(rows="states", seed=2), "test", 0).to_pylist()
    assert [r["prompt"] for r in other] != [r["prompt"] for r in together]


def test_no_tasks_no_rows(tmp_path):
    for kind in ("episodes", "states"):
        made = rows(TASKS.empty_table(), load("think-label"), Options(rows=kind), "train", 0)
        assert made.num_rows == 0 and made.schema == SCHEMA
    assert write_tasks(tmp_path / "x.parquet", [], load("label"), "train") == 0
    assert list(read_rows(tmp_path / "x.parquet")) == []


@given(tasks=ranking_tasks())
@settings(max_examples=25, deadline=None)
def test_episode_rows_keep_the_order(tasks):
    made = episode_rows(tasks, load("think-text"), "train")
    assert back(made) == tasks


def test_written_tasks_are_read_again(tmp_path):
    tasks = list(one_positive(3))
    assert write_tasks(tmp_path / "train.parquet", tasks, load("label"), "train") == 3
    assert read_tasks(tmp_path / "train.parquet", load("label")) == tasks
    assert [p.name for p in tmp_path.iterdir()] == ["train.parquet"]
