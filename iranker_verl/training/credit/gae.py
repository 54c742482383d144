"""``exclusion_gae``: generalised advantage estimation across the steps of an episode, along the elimination.

Step k of a session has the reward ``r_k``, and ``V_k`` is what the critic makes of the state before it (the pool that is
left, as the prompt shows it). The last step of a session is terminal: nothing comes after it, so ``V`` and ``A`` behind it
are 0 (arXiv 1506.02438, eq. 11 to 16)::

    delta_k = r_k + gamma * V_(k+1) - V_k        A_k = delta_k + gamma * lam * A_(k+1)        return_k = A_k + V_k

An answer is one action: all its tokens get ``A_k``, and all are taught ``return_k`` for a value. gamma and lam discount by
the step and not by the token, so a long thought costs nothing. An exclusion of the positive, which ends a training episode,
loses the rewards of all the steps that it cut off; that is what a step-level baseline cannot see.

Which value is ``V_k``: verl's ``values``, shape ``(rows, response tokens)``, come shifted by one token (its
``response_from_nested``), so that entry j was computed *before* response token j, from the prompt and the j tokens in front
of it. Entry 0 is the critic at the **last prompt token**: the state before the answer, which is what the formula asks for.

Then ``normalise``: ``batch`` takes off the mean over the batch's rows and divides by their standard deviation (population),
as verl's ``gae`` does over tokens: a critic that is still wrong is wrong in one direction, and that would drown the rest.
``none`` leaves ``A`` as it is. There are no groups. Returns are never normalised.

Worked example: three steps with rewards 1, 1, 0 and values .5, .25, .5; gamma = 1, lam = .5. From the end:
delta = 0 - .5 = -.5, A = -.5; delta = 1 + .5 - .25 = 1.25, A = 1.25 - .25 = 1; delta = 1 + .25 - .5 = .75, A = .75 + .5 = 1.25.

>>> from iranker_verl.training.credit import StepRow, episode_advantages
>>> rows = [StepRow("t", "t_0", f"pool of {n}", n, reward, 1 - 1 / n) for n, reward in ((4, 1.0), (3, 1.0), (2, 0.0))]
>>> advantages, returns, _ = episode_advantages(rows, [0.5, 0.25, 0.5], gamma=1.0, lam=0.5, normalise="none")
>>> advantages.tolist(), returns.tolist()
([1.25, 1.0, -0.5], [1.75, 1.25, 0.0])

The published training's GAE is verl's own ``gae``: the same recursion over *tokens*, cut where a row ends (:func:`gae`
with ``ends`` there; a test shows that they are equal).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike

from iranker_verl.training.credit.rows import StepRow, check_normaliser, divide, share_of_zeros

ESTIMATOR = "exclusion_gae"
NORMALISERS = ("batch", "none")


def gae(rewards: np.ndarray, values: np.ndarray, ends: np.ndarray, *, gamma: float, lam: float) -> np.ndarray:
    """Advantages of episodes that stand one after the other, each in the order of time; not normalised.

    ``rewards``, ``values`` (before the step) and ``ends`` (true for an episode's last step) have one shape, ``(steps,)``.
    """
    advantages = np.empty(len(rewards))
    next_value = next_advantage = 0.0
    for i in reversed(range(len(rewards))):
        if ends[i]:
            next_value = next_advantage = 0.0
        next_advantage = rewards[i] + gamma * next_value - values[i] + gamma * lam * next_advantage
        next_value = values[i]
        advantages[i] = next_advantage
    return advantages


def episode_advantages(
    rows: Sequence[StepRow], values: ArrayLike, *, gamma: float = 1.0, lam: float = 1.0, normalise: str = "batch"
) -> tuple[np.ndarray, np.ndarray, dict[str, float]]:
    """(advantages, returns, metrics): two arrays of shape ``(len(rows),)``, float64, in the order of ``rows``.

    ``values[i]`` is the critic's value of what row i was shown, shape ``(len(rows),)``. Rows may come in any order: a pool
    shrinks with every step, so its size tells which step of its session a row is. ValueError for a gamma or lam outside
    [0, 1], an unknown normaliser, no rows, values of another shape or not finite, and a pool size twice in one session.
    """
    for name, share in (("gamma", gamma), ("lam", lam)):
        if not 0 <= share <= 1:
            raise ValueError(f"algorithm.{name} is between 0 and 1, got {share}")
    check_normaliser(normalise, NORMALISERS)
    if not rows:
        raise ValueError("no rows to give credit to")
    value = np.asarray(values, dtype=np.float64)
    if value.shape != (len(rows),):
        raise ValueError(f"one value a row: {len(rows)} rows, and values of shape {value.shape}")
    if not np.isfinite(value).all():
        row = rows[int(np.isfinite(value).argmin())]
        raise ValueError(f"the critic's value of session {row.session} at {row.pool_size} candidates is not finite")
    reward = np.array([r.reward for r in rows])
    order = sorted(range(len(rows)), key=lambda i: (rows[i].session, -rows[i].pool_size))
    advantage = np.empty(len(rows))
    advantage[order] = gae(reward[order], value[order], _ends([rows[i] for i in order]), gamma=gamma, lam=lam)
    returns = advantage + value
    spread = float(advantage.std())
    if normalise == "batch":
        advantage = divide(advantage - advantage.mean(), spread)
    return advantage, returns, {"credit/zero_share": share_of_zeros(advantage), "credit/spread": spread}


def _ends(rows: Sequence[StepRow]) -> np.ndarray:
    """Which of the rows, sorted by session and step, is its session's last."""
    ends = np.ones(len(rows), dtype=bool)
    for i, (row, after) in enumerate(pairwise(rows)):
        if row.session == after.session:
            ends[i] = False
            if row.pool_size == after.pool_size:
                raise ValueError(
                    f"session {row.session} has two steps with {row.pool_size} candidates; which is first?"
                )
    return ends
