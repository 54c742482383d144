"""Step-level advantages against hand-computed cases and a slow reference."""

import math
import statistics
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iranker_verl.training.credit import step_advantages
from tests.training.credit_batches import batches, record


def row(reward, *, task="t", session="t_0", pool="p", size=4, expected=0.75):
    return record(task, session, pool, size, reward, expected)


def advantages(rows, **kwargs):
    return step_advantages(rows, **{"normalise": "none", **kwargs})[0].tolist()


# ---------------------------------------------------------------- by hand


def test_the_worked_example_of_the_docstring():
    rows = [row(0.0, session="t_0"), row(1.0, session="t_1")]
    assert advantages(rows, prior=1.0) == [-0.875, 0.625]


def test_the_numbers_of_the_default_stay():
    """Taken from the code that made docs/results.md: sessions of 3, 1, 2, 2, 1 and 1 steps, and every kind of group."""
    rows = [
        record("t", "t_0", "abcd", 4, 1.0, 0.75),
        record("t", "t_1", "abcd", 4, 0.0, 0.75),
        record("t", "t_2", "abcd", 4, 1.0, 0.75),
        record("t", "t_0", "abc", 3, 1.0, 2 / 3),
        record("t", "t_2", "abd", 3, -0.5, 2 / 3),
        record("t", "t_0", "ab", 2, 0.0, 0.5),
        record("u", "u_0", "wxyz", 4, 1.0, 0.75),
        record("u", "u_1", "wxyz", 4, 1.0, 0.75),
        record("u", "u_0", "xyz", 3, 0.0, 2 / 3),
        record("v", "v_0", "pq", 2, 1.0, 0.5),
    ]
    default, metrics = step_advantages(rows, prior=8.0, normalise="batch")
    # fmt: off
    assert default == pytest.approx(
        [0.515162952082, -1.373767872218, 0.515162952082, 0.795004555682, -2.067011844772,
         -0.858604920136, 0.381602186727, 0.381602186727, -1.144806560182, 0.858604920136], abs=1e-11,
    )
    # fmt: on
    assert metrics == pytest.approx(
        {
            "credit/same_pool_share": 0.5,
            "credit/alone_share": 0.3,
            "credit/zero_share": 0.0,
            "credit/spread": 0.5823400125876901,
            "credit/groups": 3,  # abcd, t's pools of 3, wxyz
            "credit/zero_variance_groups": 1,  # wxyz
        }
    )
    assert advantages(rows, prior=0.0) == pytest.approx([0.5, -1, 0.5, 1.5, -1.5, -0.5, 0, 0, -2 / 3, 0.5])


def test_three_rollouts_of_one_pool():
    # others of the first: 1, -.5; b = (2 * .75 + .5) / 4 = .5
    rows = [row(0.0, session="t_0"), row(1.0, session="t_1"), row(-0.5, session="t_2")]
    assert advantages(rows, prior=2.0) == [0 - 2.0 / 4, 1 - (1.5 - 0.5) / 4, -0.5 - 2.5 / 4]


def test_without_the_same_pool_those_of_the_same_size_are_compared():
    rows = [
        row(0.0, session="t_0", pool="p"),
        row(1.0, session="t_1", pool="q"),
        row(1.0, session="t_2", pool="r"),
        row(1.0, session="t_3", pool="s", size=3, expected=2 / 3),
    ]
    got = advantages(rows, prior=1.0)
    # b = (.75 + 1 + 1) / 3, then (.75 + 0 + 1) / 3 twice, then alone: A = r - e
    assert got == pytest.approx([-2.75 / 3, 1 - 1.75 / 3, 1 - 1.75 / 3, 1 / 3])


def test_the_same_pool_goes_before_the_same_size():
    rows = [row(1.0, session="t_0"), row(0.0, session="t_1"), row(1.0, session="t_2", pool="q")]
    # the first two compare with each other only; the third has its pool for itself and takes both by size
    assert advantages(rows, prior=1.0) == pytest.approx([1 - 0.75 / 2, 0 - 1.75 / 2, 1 - 1.75 / 3])


def test_tasks_are_never_compared_with_each_other():
    rows = [row(1.0, task="t"), row(0.0, task="u", session="u_0")]
    values, metrics = step_advantages(rows, prior=1.0, normalise="none")
    assert values.tolist() == [0.25, -0.75]
    assert (metrics["credit/alone_share"], metrics["credit/same_pool_share"]) == (1.0, 0.0)


@pytest.mark.parametrize("prior", [0.0, 0.5, 1.0, 100.0])
def test_a_row_alone_gets_the_corrected_reward(prior):
    for reward in (1.0, 0.0, -0.5):
        assert advantages([row(reward)], prior=prior) == [reward - 0.75]


def test_prior_zero_is_leave_one_out_and_sees_nothing_where_all_do_the_same():
    rows = [row(r, session=f"t_{i}") for i, r in enumerate((0.0, 1.0, 1.0))]
    assert advantages(rows, prior=0.0) == [-1.0, 0.5, 0.5]
    same = [row(0.0, session=f"t_{i}") for i in range(3)]
    assert advantages(same, prior=0.0) == [0.0, 0.0, 0.0]
    # with a prior, three rollouts that all exclude the positive are punished
    assert advantages(same, prior=1.0) == pytest.approx([-0.75 / 3] * 3)
    assert step_advantages(same, prior=0.0)[1]["credit/zero_share"] == 1.0


def test_a_large_prior_is_the_corrected_reward():
    rows = [row(r, session=f"t_{i}") for i, r in enumerate((0.0, 1.0, -0.5))]
    assert advantages(rows, prior=1e12) == pytest.approx([-0.75, 0.25, -1.25], abs=1e-9)


def test_batch_divides_by_the_standard_deviation_and_shifts_nothing():
    rows = [row(0.0, session="t_0"), row(1.0, session="t_1")]
    values, metrics = step_advantages(rows, prior=1.0, normalise="batch")
    assert metrics["credit/spread"] == pytest.approx(0.75)
    assert values.tolist() == pytest.approx([-0.875 / 0.75, 0.625 / 0.75])


def test_group_divides_by_the_groups_standard_deviation():
    rows = [row(0.0, session="t_0"), row(1.0, session="t_1"), row(1.0, session="t_2", pool="q")]
    # the first two are a group, of rewards 0 and 1; the third is compared by size, with rewards 0, 1 and 1
    spreads = [math.sqrt(1 / 2), math.sqrt(1 / 2), math.sqrt(1 / 3)]
    plain = advantages(rows, prior=1.0)
    grouped = advantages(rows, prior=1.0, normalise="group")
    assert grouped == pytest.approx([a / s for a, s in zip(plain, spreads, strict=True)])


@pytest.mark.parametrize("reward", [0.0, 0.1, 1.0])
def test_groups_without_variance_and_rows_alone_are_not_divided(reward):
    rows = [row(reward, session=f"t_{i}") for i in range(3)] + [row(reward, task="u", session="u_0")]
    values, metrics = step_advantages(rows, prior=8.0, normalise="group")
    # prior * (r - e) / (prior + n - 1): they agree, and learn of it all the same
    assert values.tolist() == pytest.approx([8 * (reward - 0.75) / 10] * 3 + [reward - 0.75])
    assert (metrics["credit/groups"], metrics["credit/zero_variance_groups"]) == (1, 1)
    assert advantages(rows[:3], prior=0.0, normalise="group") == pytest.approx([0.0] * 3, abs=1e-12)


@pytest.mark.parametrize("size", [2, 3, 5, 6, 7, 10, 20])
def test_equal_advantages_are_not_blown_up_by_rounding(size):
    # numpy's standard deviation of three numbers 0.1 is 1e-17, not 0
    for count in range(1, 40):
        rows = [row(1.0, task=f"t{i}", session=f"t{i}_0", expected=1 - 1 / size, size=size) for i in range(count)]
        assert advantages(rows, normalise="batch") == pytest.approx([1 / size] * count)


def test_metrics_of_groups():
    rows = [
        row(0.0, session="t_0"),
        row(1.0, session="t_1"),
        row(1.0, session="t_2", pool="q"),
        row(0.5, task="u", session="u_0", expected=0.5),
    ]
    metrics = step_advantages(rows)[1]
    assert metrics["credit/same_pool_share"] == 0.5
    assert metrics["credit/alone_share"] == 0.25
    assert metrics["credit/zero_share"] == 0.25  # u: alone, and exactly what is expected


def test_wrong_settings():
    with pytest.raises(ValueError, match="prior"):
        step_advantages([row(1.0)], prior=-0.1)
    with pytest.raises(ValueError, match="batch, group, none"):
        step_advantages([row(1.0)], normalise="std")
    with pytest.raises(ValueError, match="no rows"):
        step_advantages([])


# ---------------------------------------------------------------- against a slow reference


def reference(rows, prior):
    values = []
    for i, mine in enumerate(rows):
        mates = [r for j, r in enumerate(rows) if j != i and r.task == mine.task]
        others = [r.reward for r in mates if r.candidate_ids == mine.candidate_ids]
        others = others or [r.reward for r in mates if r.pool_size == mine.pool_size]
        weight = prior + len(others)
        values.append(
            mine.reward
            - ((prior * mine.expected_reward + math.fsum(others)) / weight if weight else mine.expected_reward)
        )
    return values


some_rows = st.lists(
    st.builds(
        lambda task, session, pool, size, reward: record(
            task, f"{task}_{session}", f"{size}{pool}", size, reward, (size - 1) / size
        ),
        st.sampled_from("tuv"),
        st.integers(0, 4),
        st.sampled_from("pqr"),
        st.integers(2, 4),
        st.sampled_from([-0.5, 0.0, 0.25, 1.0]),
    ),
    min_size=1,
    max_size=30,
)
priors = st.one_of(st.just(0.0), st.floats(0.01, 50))


@settings(deadline=None)
@given(st.one_of(some_rows, batches()), priors)
def test_the_reference_agrees(rows, prior):
    assert advantages(rows, prior=prior) == pytest.approx(reference(rows, prior), abs=1e-9)
    values, metrics = step_advantages(rows, prior=prior, normalise="batch")
    spread = np.std(reference(rows, prior))
    assert metrics["credit/spread"] == pytest.approx(spread, abs=1e-9)
    if spread > 1e-3:
        assert values == pytest.approx(np.array(reference(rows, prior)) / spread, abs=1e-6)


@settings(deadline=None)
@given(st.one_of(some_rows, batches()), priors)
def test_the_reference_of_groups_agrees(rows, prior):
    plain, groups = reference(rows, prior), []
    for i, mine in enumerate(rows):
        place = [j for j, r in enumerate(rows) if (r.task, r.candidate_ids) == (mine.task, mine.candidate_ids)]
        if place == [i]:
            place = [j for j, r in enumerate(rows) if (r.task, r.pool_size) == (mine.task, mine.pool_size)]
        groups.append(place)
    expected = []
    for value, place in zip(plain, groups, strict=True):
        rewards = [rows[j].reward for j in place]
        equal = len(set(rewards)) == 1
        expected.append(value if equal else value / statistics.stdev(rewards))
    values, metrics = step_advantages(rows, prior=prior, normalise="group")
    assert values == pytest.approx(expected, abs=1e-9)
    compared = {tuple(place) for place in groups if len(place) > 1}
    without = [place for place in compared if len({rows[j].reward for j in place}) == 1]
    assert (metrics["credit/groups"], metrics["credit/zero_variance_groups"]) == (len(compared), len(without))


@settings(deadline=None)
@given(some_rows, priors, st.data(), st.sampled_from([-0.5, 0.0, 1.0, 7.0]))
def test_a_rows_own_reward_is_not_in_its_baseline(rows, prior, data, other):
    i = data.draw(st.integers(0, len(rows) - 1))
    before = rows[i].reward - advantages(rows, prior=prior)[i]
    changed = [*rows]
    changed[i] = replace(rows[i], reward=other)
    after = other - advantages(changed, prior=prior)[i]
    assert after == pytest.approx(before, abs=1e-9)


@given(some_rows, priors, st.randoms())
def test_the_order_of_rows_does_not_matter(rows, prior, random):
    places = list(range(len(rows)))
    random.shuffle(places)
    straight, shuffled = advantages(rows, prior=prior), advantages([rows[p] for p in places], prior=prior)
    assert shuffled == pytest.approx([straight[p] for p in places], abs=1e-9)
