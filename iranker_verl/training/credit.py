"""Credit for every exclusion: advantages of single steps, and sessions that weigh the same.

Notation, for one row (one step of one episode): reward ``r``; ``e``, what a random valid exclusion earns in that pool,
``(N - 1) / N`` with one positive among N; and the *others*, the rows of other rollouts of the same task

* that saw the same remaining set, where there are any: they answered the same prompt;
* otherwise with the same pool size.

The baseline shrinks the others' mean towards what randomness earns, as ``prior`` pseudo-observations would::

    b = (prior * e + sum of the others' r) / (prior + number of others)        A = r - b

The row's own reward is not in ``b`` (leave-one-out), so the gradient stays unbiased. ``prior -> infinity`` gives
``A = r - e``, the plain corrected reward; ``prior = 0`` gives leave-one-out GRPO on steps, which learns nothing where all
rollouts do the same wrong thing. A row without others has ``A = r - e`` for every positive prior.

Then ``normalise``: ``batch`` divides by the standard deviation over the batch (where there is one: equal advantages stay
as they are), ``none`` leaves ``A`` as it is.

Worked example: N = 4, so e = .75; two rollouts meet the same pool, one excludes the positive (r = 0), the other does not
(r = 1); prior = 1. The first: b = (.75 + 1) / 2 = .875, A = -.875. The second: b = (.75 + 0) / 2 = .375, A = .625.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

ESTIMATOR = "exclusion_grpo"
NORMALISERS = ("batch", "none")
# Equal advantages have a standard deviation of about 1e-17 by rounding, and dividing by that would wreck a run.
MIN_SPREAD = 1e-6


@dataclass(frozen=True)
class StepRow:
    """What credit needs to know of a training row. ``reward`` and ``expected`` are in units of the reward function."""

    task: str
    session: str
    pool: str
    pool_size: int
    reward: float
    expected: float


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


def step_advantages(
    rows: Sequence[StepRow], *, prior: float = 1.0, normalise: str = "batch"
) -> tuple[np.ndarray, dict[str, float]]:
    """Advantages of shape ``(len(rows),)``, float64, and metrics about the groups.

    ValueError for a negative prior, an unknown normaliser, or no rows.
    """
    if prior < 0:
        raise ValueError(f"credit.prior is a number of pseudo-observations, 0 or more, got {prior}")
    if normalise not in NORMALISERS:
        raise ValueError(f"unknown normaliser {normalise!r}; choose one of {', '.join(NORMALISERS)}")
    if not rows:
        raise ValueError("no rows to give credit to")
    reward = np.array([r.reward for r in rows])
    expected = np.array([r.expected for r in rows])
    by_pool, n_pool = _sums([(r.task, r.pool) for r in rows], reward)
    by_size, n_size = _sums([(r.task, r.pool_size) for r in rows], reward)
    met = n_pool > 0
    total, others = np.where(met, by_pool, by_size), np.where(met, n_pool, n_size)
    weight = prior + others
    # prior = 0 and no others: nothing to compare with but randomness
    baseline = np.where(weight > 0, (prior * expected + total) / np.where(weight > 0, weight, 1.0), expected)
    advantage = reward - baseline
    spread = float(advantage.std())
    if normalise == "batch" and spread > MIN_SPREAD:
        advantage = advantage / spread
    metrics = {
        "credit/same_pool_share": float(met.mean()),
        "credit/alone_share": float((others == 0).mean()),
        "credit/zero_share": float((np.abs(advantage) < 1e-9).mean()),
        "credit/spread": spread,
    }
    return advantage, metrics


def session_weights(sessions: Sequence[str | None], total_rows: int | None = None) -> np.ndarray:
    """A weight for each row so that every session has the same total, and the weights' mean is 1.

    ``None`` marks a padding row (weight 0). ``total_rows`` (default: all rows, padding included) is what the loss divides
    by (verl's ``seq-mean-*`` divides by the global batch size), so that the loss is the mean over sessions of the mean
    over their steps.
    """
    rows = len(sessions) if total_rows is None else total_rows
    count: dict[str, int] = defaultdict(int)
    for session in sessions:
        if session is not None:
            count[session] += 1
    if not count:
        raise ValueError("no sessions to weigh: every row is padding")
    return np.array([rows / (len(count) * count[s]) if s is not None else 0.0 for s in sessions])
