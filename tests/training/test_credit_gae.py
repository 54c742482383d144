"""GAE across the steps of an episode: by hand and against a slow reference."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iranker_verl.training.credit import episode_advantages
from tests.training.credit_batches import batches, critic_values, episode, shares


def credited(rows, values, **kwargs):
    advantages, returns, _ = episode_advantages(rows, values, **{"normalise": "none", **kwargs})
    return advantages.tolist(), returns.tolist()


# ---------------------------------------------------------------- by hand


def test_the_worked_example_of_the_docstring():
    assert credited(episode([1, 1, 0]), [0.5, 0.25, 0.5], gamma=1, lam=0.5) == ([1.25, 1, -0.5], [1.75, 1.25, 0])


def test_gamma_discounts_by_the_step():
    # delta: 1 - .5 = .5, then 1 + .8 * .5 - .25 = 1.15; A: .5, then 1.15 + .8 * .5 * .5
    assert credited(episode([1, 1]), [0.25, 0.5], gamma=0.8, lam=0.5)[0] == pytest.approx([1.35, 0.5])


def test_lam_zero_looks_one_step_ahead_and_lam_one_to_the_end():
    rows, values = episode([1, 0.5, -0.5]), [0.5, 0.25, 1.0]
    assert credited(rows, values, lam=0.0) == ([0.75, 1.25, -1.5], [1.25, 1.5, -0.5])
    assert credited(rows, values, lam=1.0)[1] == [1.0, 0.0, -0.5]  # the returns are what is really earned from here on


def test_an_exclusion_that_ends_the_episode_is_charged_with_what_it_cut_off():
    # both sessions see the same values; the second excludes the positive at once and loses the .9 that the state promised
    rows = episode([1, 1], session="t_0") + episode([0], session="t_1", first=3)
    advantages, _ = credited(rows, [1.5, 0.9, 1.5], lam=0.0)
    assert advantages == pytest.approx([1 + 0.9 - 1.5, 1 - 0.9, 0 - 1.5])


def test_sessions_do_not_reach_into_each_other_and_rows_come_in_any_order():
    first, second = episode([1, 0, 1], session="t_1"), episode([0, 1], session="t_10")
    apart = credited(first, [0.1, 0.2, 0.3])[0], credited(second, [0.4, 0.5])[0]
    mixed = [second[1], first[2], first[0], second[0], first[1]]
    together = credited(mixed, [0.5, 0.3, 0.1, 0.4, 0.2])[0]
    assert together == [apart[1][1], apart[0][2], apart[0][0], apart[1][0], apart[0][1]]


def test_batch_whitens_the_advantages_and_leaves_the_returns():
    rows, values = episode([1, 0, 1]), [0.5, 0.25, 0.125]
    plain, returns = credited(rows, values)
    white, same, metrics = episode_advantages(rows, values, normalise="batch")
    assert white == pytest.approx((np.array(plain) - np.mean(plain)) / np.std(plain))
    assert same.tolist() == returns
    assert metrics == {"credit/spread": pytest.approx(np.std(plain)), "credit/zero_share": 0.0}


@pytest.mark.parametrize("count", range(1, 20))
def test_equal_advantages_are_not_blown_up_by_rounding(count):
    rows = [row for i in range(count) for row in episode([0.7], session=f"t_{i}")]
    advantages, _, metrics = episode_advantages(rows, [0.6] * count)
    assert advantages == pytest.approx(np.zeros(count), abs=1e-12)
    assert metrics["credit/zero_share"] == 1.0


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"gamma": 1.1}, "algorithm.gamma is between 0 and 1, got 1.1"),
        ({"lam": -0.1}, "algorithm.lam"),
        ({"lam": float("nan")}, "algorithm.lam"),
        ({"normalise": "group"}, "unknown normaliser 'group'; choose one of batch, none"),
        ({"steps": []}, "no rows"),
        ({"values": [0.5]}, r"2 rows, and values of shape \(1,\)"),
        ({"values": [[0.5, 0.5]]}, r"shape \(1, 2\)"),
        ({"values": [0.5, float("inf")]}, "session t_0 at 2 candidates is not finite"),
        ({"steps": episode([1]) + episode([0])}, "session t_0 has two steps with 2 candidates"),
    ],
)
def test_what_cannot_be_credited(kwargs, message):
    with pytest.raises(ValueError, match=message):
        episode_advantages(**{"steps": episode([1, 0]), "values": [0.5, 0.5], **kwargs})


# ---------------------------------------------------------------- against a slow reference


def reference(rows, values, gamma, lam):
    """A_k as the sum that it stands for (arXiv 1506.02438, eq. 16), for each row by itself."""
    result = []
    for mine in rows:
        later = [(r, v) for r, v in zip(rows, values, strict=True) if r.session == mine.session]
        later = sorted((p for p in later if p[0].pool_size <= mine.pool_size), key=lambda p: -p[0].pool_size)
        total = 0.0
        for distance, (row, value) in enumerate(later):
            after = later[distance + 1][1] if distance + 1 < len(later) else 0.0
            total += (gamma * lam) ** distance * (row.reward + gamma * after - value)
        result.append(total)
    return result


@settings(deadline=None)
@given(batches(), st.data(), shares, shares)
def test_the_reference_agrees(rows, data, gamma, lam):
    values = data.draw(st.lists(critic_values, min_size=len(rows), max_size=len(rows)))
    expected = np.array(reference(rows, values, gamma, lam))
    advantages, returns, metrics = episode_advantages(rows, values, gamma=gamma, lam=lam, normalise="none")
    assert advantages == pytest.approx(expected, abs=1e-9)
    assert returns == pytest.approx(expected + values, abs=1e-9)
    assert metrics["credit/spread"] == pytest.approx(expected.std(), abs=1e-9)
    if expected.std() > 1e-3:
        white = episode_advantages(rows, values, gamma=gamma, lam=lam)[0]
        assert white == pytest.approx((expected - expected.mean()) / expected.std(), abs=1e-6)


@settings(deadline=None)
@given(batches())
def test_a_critic_that_knows_what_will_happen_leaves_nothing_to_credit(rows):
    to_go = [sum(r.reward for r in rows if r.session == x.session and r.pool_size <= x.pool_size) for x in rows]
    advantages, returns = credited(rows, to_go, lam=0.7)
    assert advantages == pytest.approx(np.zeros(len(rows)), abs=1e-9)
    assert returns == pytest.approx(to_go)
