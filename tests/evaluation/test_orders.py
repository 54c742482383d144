"""Orders of candidates: what moves, what stays, and what the position bias is by hand."""

import itertools
from statistics import fmean, stdev

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iranker_verl.evaluation.metrics import measure
from iranker_verl.evaluation.orders import correlation, in_order
from iranker_verl.evaluation.records import Record, SystemResult
from iranker_verl.evaluation.results import collect
from iranker_verl.inference.episode import Episode
from iranker_verl.ranking import Candidate, RankingTask
from tests.evaluation.synthetic import make_tasks

TASK = RankingTask(
    "t", "recommendation", "rec-movie", "c", tuple(Candidate(i, f"text {i}") for i in "abcdef"), (0, 0, 1, 0, 0.5, 0)
)


def test_order_zero_is_the_prepared_one():
    assert in_order(TASK, 0, seed=1) is TASK


def test_golden_orders():
    shown = ["".join(c.id for c in in_order(TASK, order, seed=1).candidates) for order in (1, 2)]
    assert shown == ["adcfeb", "bdface"]
    assert "".join(c.id for c in in_order(TASK, 1, seed=2).candidates) != shown[0]


@given(st.integers(1, 50), st.integers(0, 5))
def test_relevance_goes_with_its_candidate(order, seed):
    moved = in_order(TASK, order, seed)
    before = dict(zip(TASK.candidates, TASK.relevance, strict=True))
    assert dict(zip(moved.candidates, moved.relevance, strict=True)) == before
    assert (moved.id, moved.context) == (TASK.id, TASK.context)


@pytest.mark.parametrize(
    ("ranking", "expected"),
    [
        ("abcd", 1.0),
        ("dcba", -1.0),
        ("bacd", 1 - 6 * 2 / 60),  # two places apart by one each
        ("cadb", 1 - 6 * (4 + 1 + 1 + 4) / 60),  # a: 0 to 1, b: 1 to 3, c: 2 to 0, d: 3 to 2
    ],
)
def test_correlation_by_hand(ranking, expected):
    assert correlation("abcd", ranking) == pytest.approx(expected)


def test_no_bias_is_zero_over_all_orders():
    assert fmean(correlation(shown, "abcd") for shown in itertools.permutations("abcd")) == pytest.approx(0)


def played(task, ranking, order):
    episode = Episode(task.id, task.dataset, tuple(ranking), (), 10, 1, 0.5)
    return Record(task, tuple(ranking), measure([task], [ranking])[0], episode, order)


def test_spread_and_bias_of_two_orders():
    """Task i's positive is c{i % 3}. One model repeats the order shown, the other always ranks c0, c1, c2."""
    tasks = make_tasks(["rec-movie"], n=3, size=3)
    flipped = [
        RankingTask(t.id, t.scenario, t.dataset, t.context, t.candidates[::-1], t.relevance[::-1]) for t in tasks
    ]
    shown = [(order, t) for order, part in enumerate((tasks, flipped)) for t in part]

    def numbers(rank):
        records = tuple(with_calls(played(t, rank(t), order)) for order, t in shown)
        return collect([SystemResult("after", records, 1.0)])

    repeats = numbers(lambda t: [c.id for c in t.candidates])["datasets"]["rec-movie"]["after"]
    assert repeats["orders"] == {"k": 2, "sd": pytest.approx(0), "position_bias": pytest.approx(1)}
    # both ways round the positives are at 1, 2 and 3; each task's value is the mean of its two orders
    assert repeats["rr"] == pytest.approx((1 + 1 / 2 + 1 / 3) / 3)
    assert (repeats["n"], repeats["hit@1"]) == (3, pytest.approx(1 / 3))

    fixed = numbers(lambda t: ["c0", "c1", "c2"])
    assert fixed["macro"]["after"]["orders"] == {"k": 2, "sd": pytest.approx(0), "position_bias": pytest.approx(0)}

    # right in order 0, and the order shown in order 1
    mixed = numbers(lambda t: sorted(("c0", "c1", "c2"), key=lambda c: c != t.candidates[t.target].id) if t in tasks
                    else [c.id for c in t.candidates])  # fmt: skip
    assert mixed["macro"]["after"]["orders"]["sd"] == pytest.approx(stdev([1, (1 + 1 / 2 + 1 / 3) / 3]))


def with_calls(record):
    """The record with one well-formed step, as rates are by calls."""
    from iranker_verl.ranking import Step

    step = Step(("c0", "c1"), "c1", "ok", "[B]")
    e = record.episode
    episode = Episode(e.task_id, e.dataset, e.ranking, (step,), e.prompt_tokens, e.new_tokens, e.seconds)
    return Record(record.task, record.ranking, record.values, episode, record.order)
