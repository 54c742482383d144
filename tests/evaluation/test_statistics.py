"""Intervals and the paired test on cases whose answer is known."""

import numpy as np
import pytest

from iranker_verl.evaluation.statistics import interval, macro_mean, paired_p


def test_macro_mean_weighs_datasets_alike():
    assert macro_mean({"a": [1.0] * 99, "b": [0.0]}) == 0.5


def test_constant_values_have_no_width():
    assert interval({"a": [0.5] * 20, "b": [0.25] * 3}, seed=0) == (0.375, 0.375)


def test_one_task_in_a_dataset():
    low, high = interval({"a": [1.0], "b": [0.0, 1.0] * 20}, seed=0)
    assert 0.5 < low < 0.75 < high < 1


def test_interval_is_close_to_the_normal_one_and_seeded():
    values = np.random.default_rng(1).normal(0.4, 0.2, 400)
    low, high = interval({"a": values}, seed=3)
    half = 1.96 * values.std() / 20
    assert low == pytest.approx(values.mean() - half, abs=0.004)
    assert high == pytest.approx(values.mean() + half, abs=0.004)
    assert interval({"a": values}, seed=3) == (low, high)


def test_interval_covers():
    rng = np.random.default_rng(0)
    hits = 0
    for trial in range(100):
        strata = {"a": rng.random(40), "b": rng.random(60) + 1}
        low, high = interval(strata, seed=trial, resamples=400)
        hits += low <= 1.0 <= high
    assert hits >= 87  # 95 expected; 87 is more than three standard deviations below


def test_strata_stay_apart():
    # Between the datasets there is all the variance, within them none.
    assert interval({"a": [0.0] * 10, "b": [1.0] * 10}, seed=0) == (0.5, 0.5)


def test_identical_results_give_p_one():
    same = {"a": [0.5, 1.0, 0.2], "b": [0.1]}
    assert paired_p(same, same, seed=0) == 1.0


def test_few_pairs_give_the_exact_p():
    # Four equal gains: of 16 sign assignments, 2 are as extreme (all up, all down).
    p = paired_p({"a": [0.0] * 4}, {"a": [1.0] * 4}, seed=0, permutations=20_000)
    assert p == pytest.approx(2 / 16, abs=0.01)


def test_a_large_gain_has_a_small_p_that_is_not_zero():
    p = paired_p({"a": [0.1] * 60}, {"a": [0.9] * 60}, seed=0)
    assert p == 1 / 10_000


def test_the_statistic_is_the_macro_mean():
    # 100 small gains in one dataset against losses as large in total in another: the macro mean did not move.
    before = {"a": [0.0] * 100, "b": [0.5] * 4}
    after = {"a": [0.1] * 100, "b": [0.4] * 4}
    assert paired_p(before, after, seed=0) > 0.9


def test_noise_is_not_significant():
    rng = np.random.default_rng(5)
    before = rng.random(200)
    p = paired_p({"a": before}, {"a": before + rng.normal(0, 0.1, 200)}, seed=0)
    assert p > 0.05


@pytest.mark.parametrize("after", [{"b": [1.0]}, {"a": [1.0, 2.0]}, {"a": []}])
def test_what_does_not_pair_is_refused(after):
    with pytest.raises(ValueError):
        paired_p({"a": [1.0]}, after, seed=0)


def test_nothing_to_average_is_refused():
    with pytest.raises(ValueError):
        macro_mean({"a": []})
