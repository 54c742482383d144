"""Rewards that add up to a measure of the final ranking."""

import math
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iranker_verl.ranking import Candidate, Elimination, RankingTask
from reward_fns.answers import label
from reward_fns.exclusion import compute_score

GRADES = st.lists(st.sampled_from([0.0, 1.0, 2.0, 0.5]), min_size=2, max_size=7).filter(
    lambda grades: len(set(grades)) > 1 and 0.0 in grades
)


def rr(grades):
    return 1 / next(rank for rank, grade in enumerate(grades, 1) if grade)


def discounted(discount, grades):
    return math.fsum(grade * discount(rank) for rank, grade in enumerate(grades, 1))


MEASURES = {
    "rr": (rr, lambda grades: 1 / len(grades)),
    "dcg": (
        partial(discounted, lambda rank: 1 / math.log2(rank + 1)),
        lambda grades: sum(grades) / math.log2(len(grades) + 1),
    ),
    "gain": (partial(discounted, lambda rank: 1 / rank), lambda grades: sum(grades) / len(grades)),
}


@pytest.mark.parametrize("kind", MEASURES)
@settings(deadline=None)
@given(grades=GRADES, data=st.data())
def test_the_rewards_of_an_episode_and_a_constant_are_the_measure(kind, grades, data):
    candidates = tuple(Candidate(str(i), f"text {i}") for i in range(len(grades)))
    state = Elimination(RankingTask("t", "passage", "passage-5", "query", candidates, tuple(grades)))
    total = decided = 0.0
    while not state.done:
        answer = f"[{label(data.draw(st.integers(0, len(state.pool) - 1)))}]"
        total += compute_score("", answer, state.ground_truth(), kind=kind)["score"]
        state.step(answer)
        if state.decided and not decided:
            decided = total  # a training episode ends here
    measure, constant = MEASURES[kind]
    ranked = [grades[int(id)] for id in state.ranking()]
    # with equal grades in any order: episodes that end early do not order those
    assert total + constant(grades) == pytest.approx(measure(ranked))
    assert decided == pytest.approx(total)


def test_measures_by_hand():
    truth = {"candidates": ["a", "b", "c", "d"], "target": 0, "relevance": [2.0, 0.0, 1.0, 0.0]}
    binary = truth | {"relevance": None}
    score = lambda kind, truth=truth: [compute_score("", f"[{x}]", truth, kind=kind)["score"] for x in "ABCD"]  # noqa: E731
    assert score("rr", binary) == pytest.approx([0, 1 / 12, 1 / 12, 1 / 12])
    assert score("gain") == pytest.approx([1 / 12, 3 / 12, 2 / 12, 3 / 12])
    fall = 1 / 2 - 1 / math.log2(5)
    assert score("dcg") == pytest.approx([fall, 3 * fall, 2 * fall, 3 * fall])
    pair = {"candidates": ["a", "b", "c"], "target": 0, "relevance": [1.0, 1.0, 0.0]}
    assert compute_score("", "[C]", pair, kind="rr")["score"] == pytest.approx(2 / 3)  # from rank 3 at worst to rank 1
    assert compute_score("", "[C]", pair, kind="rr")["regret"] == 0.0
    assert compute_score("", "?", pair, kind="rr")["score"] == -0.5


@pytest.mark.parametrize("kind", MEASURES)
def test_a_measure_takes_no_negative_relevance(kind):
    truth = {"candidates": ["a", "b"], "target": 0, "relevance": [1.0, -1.0]}
    with pytest.raises(ValueError, match="0 or more"):
        compute_score("", "[A]", truth, kind=kind)
