"""Measures against values worked out by hand."""

from math import log2

import pytest

from iranker_verl.errors import UserError
from iranker_verl.evaluation.metrics import gains, measure, rank_of_best
from iranker_verl.ranking import Candidate, RankingTask


def task(relevance, *, id="q", dataset="rec-movie", ids=None):
    ids = ids or [f"c{i}" for i in range(len(relevance))]
    candidates = tuple(Candidate(i, f"text of {i}") for i in ids)
    return RankingTask(id, "recommendation", dataset, "context", candidates, tuple(relevance))


def test_one_positive_at_rank_three():
    [values] = measure([task([0, 0, 1, 0, 0, 0])], [["c0", "c1", "c2", "c3", "c4", "c5"]])
    assert values["rr"] == pytest.approx(1 / 3)
    assert values["ndcg@5"] == values["ndcg@10"] == pytest.approx(1 / log2(4))
    assert values["hit@1"] == 0


def test_cut_offs():
    [values] = measure([task([0] * 6 + [1])], [[f"c{i}" for i in range(7)]])
    assert values["rr"] == pytest.approx(1 / 7)
    assert values["ndcg@5"] == 0
    assert values["ndcg@10"] == pytest.approx(1 / log2(8))


def test_best_first():
    [values] = measure([task([0, 1])], [["c1", "c0"]])
    assert values == {"rr": 1, "ndcg@5": 1, "ndcg@10": 1, "hit@1": 1}


def test_graded_gains_are_linear():
    # ranking: 0.5, 0, 1.0; ideal: 1.0, 0.5, 0
    [values] = measure([task([0.5, 1.0, 0.0])], [["c0", "c2", "c1"]])
    assert values["ndcg@5"] == pytest.approx((0.5 + 1 / log2(4)) / (1 + 0.5 / log2(3)), abs=1e-4)
    assert values["rr"] == values["hit@1"] == 1  # 0.5 is above 0


def test_scale_of_relevance_does_not_matter():
    order = ["c2", "c0", "c1"]
    [small], [large] = measure([task([0.1, 0.2, 0])], [order]), measure([task([1, 2, 0])], [order])
    assert small == large


@pytest.mark.parametrize(
    ("relevance", "expected"),
    [([0.5, 1.0, 0.0], [500, 1000, 0]), ([1e-9, 1.0], [1, 1000]), ([-1.0, 2.0], [0, 1000]), ([0, 3], [0, 1000])],
)
def test_gains(relevance, expected):
    assert gains(relevance) == expected


def test_nothing_above_zero_is_said_with_the_task():
    with pytest.raises(UserError, match=r"'q' of 'rec-movie'.*above 0"):
        measure([task([-1.0, 0.0])], [["c0", "c1"]])


@pytest.mark.parametrize("relevance", [1e308, 1e100, -1e100])
def test_a_relevance_that_no_sum_holds_is_said_with_the_task(relevance):
    with pytest.raises(UserError, match=r"'q' of 'rec-movie': its relevance .*1e\+\d+ is not within ±1e\+100"):
        measure([task([relevance, 1.0])], [["c0", "c1"]])


def test_ids_are_safe():
    # One query id in two data sets, and candidate ids with spaces or shared between tasks.
    tasks = [task([1, 0], ids=["a b", "a\tb"]), task([0, 1], dataset="rec-music", ids=["a b", "a\tb"])]
    first, second = measure(tasks, [["a b", "a\tb"], ["a b", "a\tb"]])
    assert (first["rr"], second["rr"]) == (1, 0.5)


def test_many_candidates_keep_their_order():
    n = 500
    ids = [f"c{i}" for i in range(n)]
    [values] = measure([task([0] * (n - 1) + [1])], [ids])
    assert values["rr"] == pytest.approx(1 / n)


@pytest.mark.parametrize("ranking", [["c0"], ["c0", "c0"], ["c0", "x"], ["c0", "c1", "c1"]])
def test_a_ranking_of_other_ids_is_refused(ranking):
    with pytest.raises(ValueError, match="not an order"):
        measure([task([0, 1])], [ranking])


def test_rank_of_best():
    assert rank_of_best(task([0.5, 1, 1]), ["c0", "c2", "c1"]) == 2
