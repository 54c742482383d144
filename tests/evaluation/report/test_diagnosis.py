"""Diagnoses worked out by hand, and the random expectations against enumeration."""

import json
from itertools import permutations
from math import comb

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iranker_verl.evaluation.records import Record
from iranker_verl.evaluation.report.diagnosis import (
    POSITIONS,
    THIRDS,
    diagnose,
    diagnosis,
    expected_rr,
    random_survival,
)
from iranker_verl.evaluation.report.files import all_records
from tests.evaluation.synthetic import make_tasks, play_as


def line(relevance, ranking, *, task="t", dataset="d", **more):
    best = max(relevance)
    good = {f"c{i}" for i, r in enumerate(relevance) if r == best}
    relevant = {f"c{i}" for i, r in enumerate(relevance) if r > 0}
    content = {
        "task_id": task,
        "dataset": dataset,
        **{"scenario": "passage", "order": 0, "context": "context", "ndcg@5": 0.0, "ndcg@10": 0.0},
        "candidates": [{"id": f"c{i}", "text": f"text {i}"} for i in range(len(relevance))],
        "relevance": relevance,
        "ranking": ranking,
        "rank_of_best": next(k for k, id in enumerate(ranking, 1) if id in good),
        "rr": next(1 / k for k, id in enumerate(ranking, 1) if id in relevant),
        "hit@1": float(ranking[0] in relevant),
        **more,
    }
    return Record.from_json(content)


@given(st.integers(2, 6).flatmap(lambda n: st.tuples(st.just(n), st.integers(1, n))))
def test_random_survival_is_the_enumeration(case):
    size, best = case
    orders = list(permutations(range(size)))  # exclude from the end; 0 … best-1 are the best
    alive = [sum(min(o.index(b) for b in range(best)) < size - t for o in orders) / len(orders) for t in range(size)]
    assert random_survival(size, best) == pytest.approx(tuple(alive))


@given(st.integers(2, 6).flatmap(lambda n: st.tuples(st.just(n), st.integers(1, n))))
def test_expected_rr_is_the_enumeration(case):
    size, relevant = case
    orders = list(permutations(range(size)))
    mean = sum(1 / (1 + min(o.index(r) for r in range(relevant))) for o in orders) / len(orders)
    assert expected_rr(size, relevant) == pytest.approx(mean)


def test_random_by_formula():
    assert random_survival(4, 1) == (1.0, 0.75, 0.5, 0.25)
    assert expected_rr(20, 1) == pytest.approx(sum(1 / k for k in range(1, 21)) / 20)
    assert random_survival(300, 7)[100] == pytest.approx(1 - comb(293, 200) / comb(300, 200))


def test_survival_by_hand():
    lines = [
        line([0, 1, 0], ["c1", "c0", "c2"]),  # survives both exclusions
        line([1, 0, 0], ["c1", "c0", "c2"]),  # goes in the second
        line([0, 0, 1], ["c0", "c1", "c2"]),  # goes in the first
        line([0, 0, 1, 0], ["c2", "c0", "c1", "c3"]),
    ]
    found = diagnosis(lines)
    assert found["n"] == 4
    assert found["survival"]["3"] == {
        "n": 3,
        "alive": [1, 2 / 3, 1 / 3],
        "random": [1, pytest.approx(2 / 3), pytest.approx(1 / 3)],
    }
    assert found["survival"]["4"]["alive"] == [1, 1, 1, 1]
    assert list(found["survival"]) == ["3", "4"]


def test_regret_is_one_minus_hit_for_one_positive_and_relevance_lost_for_grades():
    one = diagnosis([line([0, 1, 0], ["c1", "c0", "c2"]), line([1, 0, 0], ["c2", "c0", "c1"])])
    assert one["regret"] == 0.5 and one["regret_random"] == pytest.approx(2 / 3)
    graded = diagnosis([line([0.2, 0.9, 0.5], ["c2", "c1", "c0"]), line([0.0, 1.0], ["c0", "c1"], dataset="other")])
    assert graded["regret"] == pytest.approx((0.4 + 1) / 2)
    assert graded["regret_by_dataset"] == {"d": pytest.approx(0.4), "other": 1}


def test_bins_by_hand():
    lines = [
        line([1, 0, 0], ["c0", "c1", "c2"], task="a"),
        line([1, 0, 0], ["c1", "c0", "c2"], task="b"),
        line([0] * 29 + [1], [f"c{i}" for i in range(30)], task="c"),
    ]
    found = diagnosis(lines, {("d", "a"): 1, ("d", "b"): 3, ("elsewhere", "c"): 1})
    assert found["by_pool_size"] == [
        {"candidates": 3, "n": 2, "rr": 0.75, "hit@1": 0.5, "random_rr": pytest.approx((1 + 1 / 2 + 1 / 3) / 3)},
        {
            "candidates": 30,
            "n": 1,
            "rr": pytest.approx(1 / 30),
            "hit@1": 0,
            "random_rr": pytest.approx(expected_rr(30, 1)),
        },
    ]
    assert [(b["position"], b["n"], b["rr"]) for b in found["by_position"]] == [
        (1, 2, 0.75),
        (POSITIONS, 1, pytest.approx(1 / 30)),
    ]
    assert [(b["popularity"], b["n"], b["rr"]) for b in found["by_popularity"]] == [
        (THIRDS[0], 1, 1),
        (THIRDS[2], 1, 0.5),
    ]


def test_costs_and_statuses_of_a_model():
    def asked(seconds, statuses):
        steps = [{"excluded": "c0", "status": s, "response": ""} for s in statuses]
        cost = {"calls": len(steps), "malformed": 0, "prompt_tokens": 100, "new_tokens": 7, "seconds": seconds}
        return line([1, 0], ["c0", "c1"], steps=steps, **cost)

    found = diagnosis([asked(1.0, ["ok", "ok"]), asked(3.0, ["ok", "no answer"])])
    assert found["statuses"] == {"ok": 3, "no answer": 1}
    assert found["cost"] == {"calls": 2, "prompt_tokens": 100, "new_tokens": 7, "seconds_p50": 2, "seconds_p95": 2.9}
    assert "cost" not in diagnosis([line([1, 0], ["c0", "c1"])])


def test_nothing_is_no_diagnosis(tmp_path):
    assert diagnosis([]) == {"n": 0}
    assert diagnose(all_records(tmp_path)) == {}


def test_a_run_is_read_back_from_its_files(tmp_path):
    tasks = make_tasks(n=30)
    for result in (
        play_as("after", tasks, knows=1),
        play_as("random", tasks, knows=0),
        play_as("popularity", tasks[:30], knows=0),
    ):
        lines = [json.dumps(r.to_json()) for r in result.records]
        (tmp_path / f"episodes-{result.system}.jsonl").write_text("\n".join([*lines, "{"]))
    found = diagnose(all_records(tmp_path))
    assert set(found) == {"after", "random", "popularity"}
    assert found["after"]["survival"]["6"]["alive"] == [1] * 6 and found["after"]["regret"] == 0
    chance = found["random"]["survival"]["6"]
    assert chance["random"] == pytest.approx([1, 5 / 6, 4 / 6, 3 / 6, 2 / 6, 1 / 6])
    assert all(
        abs(a - r) < 0.26 for a, r in zip(chance["alive"], chance["random"], strict=True)
    )  # four deviations of 60
    assert sum(b["n"] for b in found["after"]["by_popularity"]) == 30  # only where popularity ranked
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_only_the_systems_asked_for(tmp_path):
    tasks = make_tasks(n=4)
    for system in ("after", "before", "popularity"):
        lines = [json.dumps(r.to_json()) for r in play_as(system, tasks, knows=0).records]
        (tmp_path / f"episodes-{system}.jsonl").write_text("\n".join(lines))
    assert set(diagnose(all_records(tmp_path, ["popularity", "after", "none"]))) == {"after", "popularity"}
    alone = diagnose(all_records(tmp_path, ["after"]))
    assert set(alone) == {"after"} and "by_popularity" not in alone["after"]  # popularity is of other tasks, perhaps
