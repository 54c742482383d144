"""The direct reward: hand-computed values, an independent nDCG, and what leaving out and repeating costs."""

import itertools
import math
import random
import time
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reward_fns.answers import label
from reward_fns.direct import KINDS, _expected, complete, compute_score, compute_score_batch, ndcg, rr

ONE = {"candidates": ["a1", "b1", "c1", "d1"], "target": 2}
GRADED = {"candidates": ["a1", "b1", "c1"], "target": 1, "relevance": [1.0, 3.0, 0.0]}
relevances = st.lists(st.sampled_from([0.0, 1.0, 2.0, 3.0]), min_size=1, max_size=6)


def score(answer, truth=ONE, **kwargs):
    return compute_score("rec-movie", answer, truth, {}, **kwargs)


def said(order):
    return " > ".join(f"[{label(i)}]" for i in order)


def truth_of(relevance):
    return {"candidates": [f"text {i}" for i in range(len(relevance))], "target": 0, "relevance": relevance}


MALFORMED = {
    "no_answer": "",
    "not_a_candidate": "[E] > [F]",
    "several_answers": "<answer>[A]</answer><answer>[B]</answer>",
}


def test_golden_values():
    faults = ("duplicates", "unknown", "partial", "overlong", "malformed", *MALFORMED)
    assert score("[C] > [A] > [B] > [D]") == {
        "score": 1.0,
        "expected": pytest.approx((1 + 1 / math.log2(3) + 1 / 2 + 1 / math.log2(5)) / 4),
        **dict.fromkeys(("ndcg", "rr", "coverage", "format"), 1.0),
        **dict.fromkeys(faults, 0.0),
        "pool_size": 4.0,
    }
    second = score("[A] > [C] > [B] > [D]")
    assert (second["score"], second["rr"]) == (pytest.approx(1 / math.log2(3)), 0.5)
    assert score("[A] > [C] > [B] > [D]", kind="rr")["score"] == 0.5
    assert score("[A] > [C] > [B] > [D]", kind="rr")["expected"] == pytest.approx((1 + 1 / 2 + 1 / 3 + 1 / 4) / 4)


def test_graded_gains_are_linear():
    # gains 1, 3, 0; the best order has 3 + 1 / log2(3)
    best = 3 + 1 / math.log2(3)
    assert score("[A] > [B] > [C]", GRADED)["ndcg"] == pytest.approx((1 + 3 / math.log2(3)) / best)
    assert score("[C] > [A] > [B]", GRADED)["ndcg"] == pytest.approx((1 / math.log2(3) + 3 / 2) / best)
    lower = {**GRADED, "relevance": [-4.0, -2.0, -5.0]}  # gains are above the lowest: routing's scores may be negative
    assert score("[A] > [B] > [C]", lower)["ndcg"] == score("[A] > [B] > [C]", GRADED)["ndcg"]


def test_what_is_left_out_comes_last():
    alone = score("[C]")
    assert (alone["score"], alone["coverage"], alone["partial"]) == (pytest.approx(0.85), 0.25, 1.0)
    wrong = score("[A]")
    assert wrong["ndcg"] == pytest.approx(1 / math.log2(5))
    assert wrong["score"] == pytest.approx(1 / math.log2(5) - 0.15)
    assert score("[A]", coverage_weight=0.0)["score"] == pytest.approx(1 / math.log2(5))


def test_what_is_repeated_or_unknown_costs_a_share():
    parts = score("<answer>[C] > [A] > [C] > [B] > [D] > [Z]</answer>")
    assert (parts["duplicates"], parts["unknown"]) == (pytest.approx(1 / 6), pytest.approx(1 / 6))
    assert parts["score"] == pytest.approx(1 - 0.1 * 2 / 6)
    assert score("<answer>[C] > [A] > [C] > [B] > [D] > [Z]</answer>", extra_weight=0.24)["score"] == pytest.approx(
        0.92
    )
    assert score("Here: <answer>[C] > [A] > [B] > [D]</answer>")["score"] == 0.95


@pytest.mark.parametrize("kind", KINDS)
def test_what_could_not_be_read_lifts_nobody(kind):
    last = score("[A] > [B] > [D] > [C]", kind=kind)["score"]
    for between in ("->", "=>", "\u2192", "&gt;", "\n"):
        assert score(f"<answer>{between.join('ABDC')}</answer>", kind=kind)["score"] == last
    for unread in ("[A] (good) > [B] (so so) > [D]! > [C]", "1st [A]\n2nd [B]\n3rd [D]\n[C]", "x > y > z > [C]"):
        parts = score(f"<answer>{unread}</answer>", kind=kind)
        assert (parts[kind], parts["unknown"]) == (last, 0.75) and parts["score"] < last


@pytest.mark.parametrize("why", MALFORMED)
def test_malformed_rankings_say_why(why):
    parts = score(MALFORMED[why])
    assert {reason: parts[reason] for reason in MALFORMED} == {reason: float(reason == why) for reason in MALFORMED}
    assert (parts["score"], parts["malformed"], parts["ndcg"], parts["format"]) == (-0.5, 1.0, 0.0, 0.0)


def test_fault_3_a_line_of_characters_is_no_ranking():
    truth = {"candidates": ["Film one", "Film two", "Film three"], "target": 1}
    assert score("Film", truth)["malformed"] == 1.0
    assert [score(f"Film {x}", truth)["ndcg"] for x in ("two", "one")] == [1.0, pytest.approx(0.5)]


def test_nothing_to_rank():
    assert score("[A] > [B]", {"candidates": ["a1", "b1"], "target": 0, "relevance": [2.0, 2.0]})["score"] == 1.0
    assert score("[A]", {"candidates": ["a1"], "target": 0})["score"] == 1.0


def test_batch_form():
    answers, truths = ["[C] > [A] > [B] > [D]", "?"], [ONE, GRADED]
    assert compute_score_batch(["x", "y"], answers, truths, kind="rr") == [
        compute_score("x", a, t, kind="rr") for a, t in zip(answers, truths, strict=True)
    ]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"kind": "map"}, "choose one of ndcg, rr"),
        ({"coverage_weight": 0.4}, "stay below 0.5"),
        ({"coverage_weight": -0.1}, "0 or more"),
        ({"extra_weight": float("nan")}, "0 or more"),
        ({"weight": 1}, "unknown reward_kwargs 'weight'"),
        ({"malformed": 0.0}, "malformed"),
    ],
)
def test_settings_that_cannot_be_meant(settings, words):
    with pytest.raises(ValueError, match=words):
        score("[A]", **settings)


@given(relevances, st.randoms())
def test_ndcg_and_rr_against_a_few_lines(relevance, draw):
    order = list(range(len(relevance)))
    draw.shuffle(order)

    def dcg(values):
        return sum((v - min(relevance)) / math.log(k + 2, 2) for k, v in enumerate(values))

    best = dcg(sorted(relevance, reverse=True))
    assert ndcg(order, relevance) == pytest.approx(dcg([relevance[i] for i in order]) / best if best else 1.0)
    ranks = [k for k, i in enumerate(order, 1) if relevance[i] == max(relevance)]
    assert rr(order, relevance) == 1 / min(ranks)


@given(st.lists(st.sampled_from([0.0, 1.0, 2.0]), min_size=1, max_size=5), st.sampled_from(KINDS))
def test_expected_is_the_mean_over_all_orders(relevance, kind):
    orders = list(itertools.permutations(range(len(relevance))))
    parts = [score(said(order), truth_of(relevance), kind=kind) for order in orders]
    assert parts[0]["expected"] == pytest.approx(math.fsum(p["score"] for p in parts) / len(orders))


def test_expected_reciprocal_rank_is_exact_and_has_no_largest_pool():
    for good, count in itertools.combinations_with_replacement(range(1, 25), 2):
        ways = [Fraction(math.comb(count - k, good - 1), math.comb(count, good)) for k in range(1, count - good + 2)]
        exact = float(sum(way / k for k, way in enumerate(ways, 1)))
        assert _expected("rr", (1.0,) * good + (0.0,) * (count - good)) == pytest.approx(exact, rel=1e-14)
    assert 0.69 < _expected("rr", (1.0,) * 515 + (0.0,) * 516) < 0.7  # ln 2, nearly


def test_expected_is_linear_in_the_pool():
    start = time.process_time()  # not a timing test: quadratic work took a minute
    assert _expected("ndcg", (1.0, *[0.0] * 50_000)) < 0.1
    assert time.process_time() - start < 5


@given(relevances, st.sampled_from(KINDS), st.randoms())
def test_nothing_is_paid_above_the_perfect_order_and_nothing_below_malformed(relevance, kind, draw):
    truth = truth_of(relevance)
    places = [draw.randrange(len(relevance) + 1) for _ in range(draw.randint(1, 8))]
    answer = f"{draw.choice(['', 'So: '])}<answer>{said(places)}</answer>"
    perfect = sorted(range(len(relevance)), key=lambda i: -relevance[i])
    paid = score(answer, truth, kind=kind)
    assert paid["score"] <= score(said(perfect), truth, kind=kind)["score"] == pytest.approx(1.0)
    assert paid["malformed"] or paid["score"] > -0.5


@given(relevances, st.sampled_from(KINDS), st.randoms())
def test_leaving_out_is_never_better_than_ranking_last(relevance, kind, draw):
    order = list(range(len(relevance)))
    draw.shuffle(order)
    named = order[: draw.randint(1, len(order))]
    full = complete(named, relevance)
    assert sorted(full) == sorted(order) and full[: len(named)] == named
    assert (
        score(said(named), truth_of(relevance), kind=kind)["score"]
        <= score(said(full), truth_of(relevance), kind=kind)["score"]
    )


def test_a_random_order_of_twenty_leaves_much_to_learn():
    draw, truth = random.Random(0), {"candidates": [f"t{i}" for i in range(20)], "target": 7}
    mean = sum(score(said(draw.sample(range(20), 20)), truth)["score"] for _ in range(2000)) / 2000
    assert mean == pytest.approx(score(said(range(20)), truth)["expected"], abs=0.02)
    assert mean < 0.4
