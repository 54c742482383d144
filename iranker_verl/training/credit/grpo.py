"""``exclusion_grpo``: the reward of one step against those of other rollouts in the same place.

Notation, for one row (one step of one episode): reward ``r``; ``e``, what a random valid exclusion earns in that pool,
``(N - 1) / N`` with one positive among N; and the *others*, the rows of other rollouts of the same task

* that saw the same remaining set, where there are any: they answered the same prompt;
* otherwise with the same pool size.

The baseline shrinks the others' mean towards what randomness earns, as ``prior`` pseudo-observations would::

    b = (prior * e + sum of the others' r) / (prior + number of others)        A = r - b

The row's own reward is not in ``b`` (leave-one-out), so the gradient stays unbiased. ``prior -> infinity`` gives
``A = r - e``, the plain corrected reward; ``prior = 0`` gives leave-one-out GRPO on steps, which learns nothing where all
rollouts do the same wrong thing. A row without others has ``A = r - e`` for every positive prior.

Then ``normalise`` divides, and shifts nothing:

``batch``   by the standard deviation of all advantages of the batch (population, n)
``group``   by the standard deviation of the rewards of the row and its others (sample, n - 1), as GRPO does
            (arXiv 2402.03300, eq. 3 to 4; verl's ``norm_adv_by_std_in_grpo=true``). With ``prior = 0`` this is GRPO with
            equal remaining sets as groups, times n / (n - 1), which leave-one-out makes of "minus the group's mean"
``none``    by nothing, as Dr. GRPO (arXiv 2503.20783)

What has no spread is not divided: equal advantages, a group in which all earned the same, a row without others. Such a
group's ``A`` is 0 with ``prior = 0``; with a prior it is ``prior * (r - e) / (prior + n - 1)``, which is how a group that
agrees on a mistake learns of it. ``credit/zero_variance_groups`` counts them.

Worked example: N = 4, so e = .75; two rollouts meet the same pool, one excludes the positive (r = 0), the other does not
(r = 1); prior = 1. The first: b = (.75 + 1) / 2 = .875, A = -.875. The second: b = (.75 + 0) / 2 = .375, A = .625.

>>> from iranker_verl.training.credit import StepRow, step_advantages
>>> rows = [StepRow("t", f"t_{i}", "abcd", 4, reward, 0.75) for i, reward in enumerate((0.0, 1.0))]
>>> step_advantages(rows, prior=1.0, normalise="none")[0].tolist()
[-0.875, 0.625]

The group's standard deviation is sqrt(.5) = .7071; the batch's, of the two advantages, .75:

>>> step_advantages(rows, prior=1.0, normalise="group")[0].round(4).tolist()
[-1.2374, 0.8839]
>>> step_advantages(rows, prior=1.0, normalise="batch")[0].round(4).tolist()
[-1.1667, 0.8333]
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Sequence

import numpy as np

from iranker_verl.training.credit.rows import MIN_SPREAD, StepRow, check_normaliser, divide, share_of_zeros

ESTIMATOR = "exclusion_grpo"
NORMALISERS = ("batch", "group", "none")


def step_advantages(
    rows: Sequence[StepRow], *, prior: float = 1.0, normalise: str = "batch"
) -> tuple[np.ndarray, dict[str, float]]:
    """Advantages of shape ``(len(rows),)``, float64, and metrics about the groups.

    A group, in the metrics, is two or more rows that are compared with each other. ValueError for a negative prior, an
    unknown normaliser, or no rows.
    """
    if prior < 0:
        raise ValueError(f"credit.prior is a number of pseudo-observations, 0 or more, got {prior}")
    check_normaliser(normalise, NORMALISERS)
    if not rows:
        raise ValueError("no rows to give credit to")
    reward = np.array([r.reward for r in rows])
    expected = np.array([r.expected for r in rows])
    pools: list[Hashable] = [(r.task, r.pool) for r in rows]
    sizes: list[Hashable] = [(r.task, r.pool_size) for r in rows]
    by_pool, n_pool = _sums(pools, reward)
    by_size, n_size = _sums(sizes, reward)
    met = n_pool > 0
    total, others = np.where(met, by_pool, by_size), np.where(met, n_pool, n_size)
    weight = prior + others
    # prior = 0 and no others: nothing to compare with but randomness
    baseline = np.where(weight > 0, (prior * expected + total) / np.where(weight > 0, weight, 1.0), expected)
    advantage = reward - baseline
    spread = float(advantage.std())
    group_spread = np.where(met, _spreads(pools, reward), _spreads(sizes, reward))
    if normalise == "batch":
        advantage = divide(advantage, spread)
    elif normalise == "group":
        advantage = divide(advantage, group_spread)
    # A row's pool is a string and its size a number, so the two kinds of keys cannot be confused.
    groups = {
        (pool if is_met else size): deviation
        for pool, size, is_met, number, deviation in zip(pools, sizes, met, others, group_spread, strict=True)
        if number
    }
    metrics = {
        "credit/same_pool_share": float(met.mean()),
        "credit/alone_share": float((others == 0).mean()),
        "credit/zero_share": share_of_zeros(advantage),
        "credit/spread": spread,
        "credit/groups": float(len(groups)),
        "credit/zero_variance_groups": float(sum(deviation <= MIN_SPREAD for deviation in groups.values())),
    }
    return advantage, metrics


def _sums(keys: Sequence[Hashable], rewards: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For every row, (sum, count) of the *other* rows with its key."""
    total: dict[Hashable, float] = defaultdict(float)
    count: dict[Hashable, int] = defaultdict(int)
    for key, reward in zip(keys, rewards, strict=True):
        total[key] += reward
        count[key] += 1
    sums = np.array([total[k] for k in keys]) - rewards
    counts = np.array([count[k] - 1 for k in keys])
    return sums, counts


def _spreads(keys: Sequence[Hashable], rewards: np.ndarray) -> np.ndarray:
    """For every row, the sample standard deviation of the rewards of all rows with its key; 0 for a row alone."""
    members: dict[Hashable, list[float]] = defaultdict(list)
    for key, reward in zip(keys, rewards, strict=True):
        members[key].append(float(reward))
    spread = {key: float(np.std(values, ddof=1)) if len(values) > 1 else 0.0 for key, values in members.items()}
    return np.array([spread[key] for key in keys])
