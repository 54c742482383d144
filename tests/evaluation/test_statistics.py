"""Intervals, paired tests and their correction on cases whose answer is known."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from iranker_verl.evaluation.statistics import (
    EXACT,
    comparisons,
    holm,
    interval,
    macro_mean,
    paired_p,
    sign_flip_p,
)


def apart(parts):
    """Values of tasks that have nothing to do with each other, from lists."""
    return {d: {f"{d}:{d}{i}": value for i, value in enumerate(values)} for d, values in parts.items()}


def test_macro_mean_weighs_datasets_alike():
    assert macro_mean(apart({"a": [1.0] * 99, "b": [0.0]})) == pytest.approx(0.5)


def test_constant_values_have_no_width():
    assert interval(apart({"a": [0.5] * 20, "b": [0.25] * 3}), seed=0) == pytest.approx((0.375, 0.375))


def test_one_task_in_a_dataset():
    low, high = interval(apart({"a": [1.0], "b": [0.0, 1.0] * 20}), seed=0)
    assert 0.5 < low < 0.75 < high < 1


def test_interval_is_close_to_the_normal_one_and_seeded():
    values = np.random.default_rng(1).normal(0.4, 0.2, 400)
    low, high = interval(apart({"a": values}), seed=3)
    half = 1.96 * values.std() / 20
    assert low == pytest.approx(values.mean() - half, abs=0.004)
    assert high == pytest.approx(values.mean() + half, abs=0.004)
    assert interval(apart({"a": values}), seed=3) == (low, high)


def test_interval_covers():
    rng = np.random.default_rng(0)
    hits = 0
    for trial in range(100):
        strata = {"a": rng.random(40), "b": rng.random(60) + 1}
        low, high = interval(apart(strata), seed=trial, resamples=400)
        hits += low <= 1.0 <= high
    assert hits >= 87  # 95 expected; 87 is more than three standard deviations below


def test_strata_stay_apart():
    # Between the datasets there is all the variance, within them none.
    assert interval(apart({"a": [0.0] * 10, "b": [1.0] * 10}), seed=0) == pytest.approx((0.5, 0.5))


def test_identical_results_give_p_one():
    same = apart({"a": [0.5, 1.0, 0.2], "b": [0.1]})
    assert paired_p(same, same, seed=0) == 1.0


def test_few_pairs_give_the_exact_p():
    # Four equal gains: of 16 sign assignments, 2 are as extreme (all up, all down).
    p = paired_p(apart({"a": [0.0] * 4}), apart({"a": [1.0] * 4}), seed=0, permutations=20_000)
    assert p == pytest.approx(2 / 16, abs=0.01)


def test_a_large_gain_has_a_small_p_that_is_not_zero():
    p = paired_p(apart({"a": [0.1] * 60}), apart({"a": [0.9] * 60}), seed=0)
    assert p == 1 / 10_000


def test_the_statistic_is_the_macro_mean():
    # 100 small gains in one dataset against losses as large in total in another: the macro mean did not move.
    before = apart({"a": [0.0] * 100, "b": [0.5] * 4})
    after = apart({"a": [0.1] * 100, "b": [0.4] * 4})
    assert paired_p(before, after, seed=0) > 0.9


def test_noise_is_not_significant():
    rng = np.random.default_rng(5)
    before = rng.random(200)
    p = paired_p(apart({"a": before}), apart({"a": before + rng.normal(0, 0.1, 200)}), seed=0)
    assert p > 0.05


@pytest.mark.parametrize("after", [{"b": [1.0]}, {"a": [1.0, 2.0]}, {"a": []}])
def test_what_does_not_pair_is_refused(after):
    with pytest.raises(ValueError):
        paired_p(apart({"a": [1.0]}), apart(after), seed=0)


def test_nothing_to_average_is_refused():
    with pytest.raises(ValueError):
        macro_mean({"a": {}})


def three_times(values):
    """The routing datasets: the same queries in all three, here with the same value."""
    return {d: {f"{d}:{i}": value for i, value in enumerate(values)} for d in ("performance", "cost", "balance")}


def test_tasks_of_one_query_are_one_observation():
    rng = np.random.default_rng(7)
    values = rng.normal(0.1, 0.4, 60)
    once, thrice = {"a": dict(enumerate_as_text(values))}, three_times(values)
    assert interval(thrice, seed=1) == pytest.approx(interval(once, seed=1))
    none = {d: dict.fromkeys(tasks, 0.0) for d, tasks in thrice.items()}
    assert paired_p(none, thrice, seed=2) == paired_p({"a": dict.fromkeys(once["a"], 0.0)}, once, seed=2)
    # by hand: two queries that gained in all three: of 4 sign assignments 2 are as extreme, and not of 64
    [macro, *each] = comparisons({"x": three_times([1, 2]), "y": three_times([0, 0])}, "x", seed=0)
    assert (macro["dataset"], macro["p"], macro["n"]) == ("macro", 2 / 4, 6)
    assert [row["p"] for row in each] == [2 / 4] * 3
    # and of many queries, by the sampled test
    rows = comparisons({"x": thrice, "y": none}, "x", seed=0, permutations=5000)
    assert {row["p"] for row in rows} == {rows[0]["p"]}


def enumerate_as_text(values):
    return ((str(i), value) for i, value in enumerate(values))


def test_p_is_uniform_where_datasets_share_their_queries():
    rng = np.random.default_rng(12)
    p = []
    for trial in range(300):
        common = rng.normal(0, 1, 30)
        after = {d: {f"{d}:{i}": c + e for i, (c, e) in enumerate(zip(common, rng.normal(0, 0.5, 30), strict=True))}
                 for d in ("a", "b", "c")}  # fmt: skip
        before = {d: dict.fromkeys(tasks, 0.0) for d, tasks in after.items()}
        p.append(paired_p(before, after, seed=trial, permutations=499))
    for level in (0.05, 0.25, 0.5):
        assert np.mean(np.array(p) <= level) == pytest.approx(level, abs=4 * (level * (1 - level) / 300) ** 0.5)


def test_a_systems_only_dataset_counts_once():
    values = {name: {"a": {str(i): float(i % k == 0) for i in range(8)}} for k, name in enumerate(("x", "y", "z"), 1)}
    rows = comparisons(values, "x", seed=0)
    by_hand = holm([row["p"] for row in rows if row["dataset"] == "macro"])  # two tests, though there are four rows
    assert [row["p_holm"] for row in rows] == [p for p in by_hand for _ in range(2)]


def test_sign_flips_by_hand():
    # sums of ±1 ±2 ±3: 6, 4, 2, 0, 0, -2, -4, -6; as far from 0 as 1 + 2 + 3 are two, as far as 3 - 2 + 1 six
    assert sign_flip_p([1, 2, 3], seed=0) == 2 / 8
    assert sign_flip_p([3, -2, 1], seed=0) == 6 / 8
    assert sign_flip_p([1, 2, 3, 0, 0, 0], seed=0) == 2 / 8  # pairs without a difference decide nothing
    assert sign_flip_p([0, 0], seed=0) == 1


@given(st.lists(st.sampled_from([-0.5, -0.05, 0.0, 1 / 3, 0.5, 0.95]), min_size=1, max_size=8))
def test_exact_is_the_enumeration(differences):
    sums = [
        sum(s * d for s, d in zip(signs, differences, strict=True))
        for signs in product((1, -1), repeat=len(differences))
    ]
    expected = sum(abs(s) >= abs(sum(differences)) - 1e-9 for s in sums) / len(sums)
    assert sign_flip_p(differences, seed=0) == pytest.approx(expected)


def test_sampled_is_close_to_exact():
    rng = np.random.default_rng(4)
    for _ in range(3):
        differences = rng.normal(0.15, 0.4, EXACT)
        padded = [*differences, 1e-12]  # one more pair than is enumerated, too small to matter
        exact, sampled = sign_flip_p(differences, seed=0), sign_flip_p(padded, seed=0, permutations=20_000)
        assert sampled == pytest.approx(exact, abs=4 * (exact * (1 - exact) / 20_000) ** 0.5 + 1e-4)


def test_p_is_uniform_where_nothing_differs():
    rng = np.random.default_rng(11)
    p = np.array([sign_flip_p(rng.normal(0, 1, 30), seed=i, permutations=499) for i in range(400)])
    assert p.min() > 0
    for level in (0.05, 0.25, 0.5, 0.75):  # four standard deviations of a share of 400
        assert np.mean(p <= level) == pytest.approx(level, abs=4 * (level * (1 - level) / 400) ** 0.5)


def test_p_is_never_zero():
    assert sign_flip_p([1.0] * 200, seed=0, permutations=999) == 1 / 1000
    assert sign_flip_p([1.0] * EXACT, seed=0) == 2 / 2**EXACT


def test_holm_by_hand():
    # 4 × .01, 3 × .02, then 2 × .03 and 1 × .04 stay at the largest so far
    assert holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


@given(st.lists(st.floats(1e-6, 1), min_size=1, max_size=12))
def test_holm_only_raises_and_keeps_the_order(p):
    corrected = holm(p)
    assert all(a <= b <= min(1, len(p) * a) + 1e-12 for a, b in zip(p, corrected, strict=True))
    assert sorted(corrected) == [corrected[i] for i in sorted(range(len(p)), key=lambda i: p[i])]


def one(table, system, dataset):
    [row] = [r for r in table if (r["system"], r["dataset"]) == (system, dataset)]
    return row


def test_comparisons_by_hand():
    values = {
        "after": {"a": {"1": 1.0, "2": 1.0, "3": 1.0}, "b": {"1": 0.5}},
        "bm25": {"a": {"1": 0.5, "2": 0.5, "3": 0.5}, "b": {"1": 0.5}},
        "popularity": {"a": {"3": 0.0, "2": 0.5, "other": 1.0}},
        "elsewhere": {"c": {"1": 1.0}},
    }
    table = comparisons(values, "after", seed=0)
    assert [(r["system"], r["dataset"]) for r in table] == [
        *[("bm25", d) for d in ("macro", "a", "b")],
        *[("popularity", d) for d in ("macro", "a")],
    ]
    assert all(r["against"] == "after" for r in table)
    a, b, macro = (one(table, "bm25", d) for d in ("a", "b", "macro"))
    assert (a["difference"], a["n"], a["p"], a["ci95"]) == (-0.5, 3, 2 / 8, [-0.5, -0.5])
    assert (b["difference"], b["n"], b["p"]) == (0, 1, 1)
    assert (macro["difference"], macro["n"], macro["p"]) == (-0.25, 4, 2 / 8)  # the mean of -0.5 and 0
    # popularity ranked two of the tasks, with differences -1 and -0.5, in another order
    part, whole = one(table, "popularity", "a"), one(table, "popularity", "macro")
    assert (
        (part["difference"], part["n"], part["p"]) == (whole["difference"], whole["n"], whole["p"]) == (-0.75, 2, 0.5)
    )
    assert a["p_holm"] == 1  # 4 × 0.25


def test_comparisons_of_many_tasks_agree_with_a_test_alone():
    rng = np.random.default_rng(2)
    noise = {s: {d: rng.normal(0.05, 0.3, 40) for d in ("a", "b")} for s in ("x", "y")}
    values = {"after": {d: {str(i): 0.0 for i in range(40)} for d in ("a", "b")}}
    values |= {s: {d: {str(i): v for i, v in enumerate(vs)} for d, vs in parts.items()} for s, parts in noise.items()}
    table = comparisons(values, "after", seed=1, permutations=20_000)
    for system, parts in noise.items():
        for dataset, differences in parts.items():
            row = one(table, system, dataset)
            alone = sign_flip_p(differences, seed=9, permutations=20_000)
            assert row["p"] == pytest.approx(alone, abs=0.015)
            assert row["difference"] == pytest.approx(differences.mean())
            assert row["ci95"][0] < row["difference"] < row["ci95"][1]
        alone = paired_p(values["after"], values[system], seed=9)
        assert one(table, system, "macro")["p"] == pytest.approx(alone, abs=0.02)
    assert table == comparisons(values, "after", seed=1, permutations=20_000)


def test_comparisons_with_nothing_to_compare():
    assert comparisons({"after": {"a": {"1": 1.0}}}, "after", seed=0) == []
    with pytest.raises(ValueError, match="no system 'before'"):
        comparisons({"after": {"a": {"1": 1.0}}}, "before", seed=0)
