"""Credit for every exclusion: the advantage of each step, and the weight of its session in the loss.

``algorithm.adv_estimator``:

=======================  ==============================================================================================
``exclusion_grpo``       :func:`step_advantages`: a step against the steps of other rollouts that saw the same candidates
``exclusion_gae``        :func:`episode_advantages`: a critic, bootstrapped along the elimination
``exclusion_expected``   :mod:`iranker_verl.training.policy_loss`: the rewards of all possible exclusions, weighted by the
                         policy's own probabilities
``exclusion_order``      :mod:`iranker_verl.training.policy_loss`: the same label teaches the whole order that it implies, so
                         that a model can exclude several candidates, or all, in one call
``supervised``           :mod:`iranker_verl.training.supervised`: no reinforcement learning, but verl's SFT trainer on worked answers
any other                verl's own: ``gae`` treats each row as an episode (the published training), ``grpo`` gives the
                         advantage of a session's last row to all its rows
=======================  ==============================================================================================

All functions take the records of real rows only (no padding rows), one record a step, and return one number a row, which stands on
every token of the response. They know nothing of verl or torch. Row weights go with every estimator.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Hashable, Sequence
from functools import partial
from itertools import pairwise
from typing import Any, NoReturn

import numpy as np
from numpy.typing import ArrayLike

from iranker_verl.errors import UserError
from iranker_verl.training.step_record import StepRecord

GRPO_ESTIMATOR, GAE_ESTIMATOR = "exclusion_grpo", "exclusion_gae"
EXPECTED_ESTIMATOR, ORDER_ESTIMATOR = "exclusion_expected", "exclusion_order"
# These read the probabilities of all labels, and the reward of each (:mod:`iranker_verl.training.policy_loss`).
LABEL_ESTIMATORS = (EXPECTED_ESTIMATOR, ORDER_ESTIMATOR)
# The values of iranker.credit.normalise that each estimator takes.
NORMALISERS: dict[str, tuple[str, ...]] = {
    GRPO_ESTIMATOR: ("batch", "group", "none"),
    GAE_ESTIMATOR: ("batch", "none"),
}
# No estimator, but worked answers in place of the policy's own (:mod:`iranker_verl.training.supervised`).
SUPERVISED = "supervised"
ESTIMATORS = (*NORMALISERS, *LABEL_ESTIMATORS, SUPERVISED)

# The values of iranker.credit.weights: how the rows of a batch weigh in the loss.
WEIGHTS = ("session", "rr", "none")

# Equal advantages have a standard deviation of about 1e-17 by rounding; dividing by that would wreck a run.
MIN_SPREAD = 1e-6


def step_advantages(
    steps: Sequence[StepRecord], *, prior: float = 1.0, normalise: str = "batch"
) -> tuple[np.ndarray, dict[str, float]]:
    """Return ``exclusion_grpo``'s advantages, shape ``(len(steps),)``, float64, and metrics of the groups.

    Notation, for one step: its reward ``r``; ``e``, the expected reward of a uniformly random valid exclusion from the same
    candidates (``(N - 1) / N`` with one positive among N); and the *others*, the steps of other rollouts of the same task

    * with the same candidates, where there are any: they answer the same prompt (the anchor states of GiGPO, arXiv 2505.10978,
      which found such groups in agents' episodes);
    * otherwise with the same number of candidates.

    The baseline shrinks the others' mean towards ``e``, as ``prior`` pseudo-observations of it would::

        b = (prior * e + sum of the others' r) / (prior + number of others)        A = r - b

    The step's own reward is not in ``b`` (leave-one-out), so the gradient stays unbiased. ``prior -> infinity`` gives
    ``A = r - e``. ``prior = 0`` gives leave-one-out GRPO on steps, which learns nothing where all rollouts make the same
    mistake. A step without others has ``A = r - e`` for every positive prior.

    Then ``normalise`` divides ``A``, and shifts nothing:

    ``batch``   by the standard deviation of all advantages of the batch (population, n)
    ``group``   by the standard deviation of the rewards of the step and its others (sample, n - 1), as GRPO does
                (arXiv 2402.03300, eq. 3 to 4; verl's ``norm_adv_by_std_in_grpo=true``). With ``prior = 0`` this is GRPO
                with equal candidates as groups, times n / (n - 1), the factor of leave-one-out
    ``none``    by nothing, as Dr. GRPO (arXiv 2503.20783)

    What has no spread is not divided: equal advantages, a group of equal rewards, a step without others. Such a group has
    ``A = prior * (r - e) / (prior + n - 1)``: with a prior, a group that agrees on a mistake learns from it.
    ``credit/zero_variance_groups`` counts those groups. A group, in the metrics, is two or more steps that are compared.

    Example: N = 4, so e = .75; of two rollouts with the same candidates one excludes the positive (r = 0) and the other does
    not (r = 1); prior = 1. The first: b = (.75 + 1) / 2 = .875, A = -.875. The second: b = (.75 + 0) / 2 = .375, A = .625.

    >>> steps = [StepRecord("t", f"t_{i}", tuple("abcd"), reward, 0.75) for i, reward in enumerate((0.0, 1.0))]
    >>> step_advantages(steps, prior=1.0, normalise="none")[0].tolist()
    [-0.875, 0.625]

    The group's standard deviation is sqrt(.5) = .7071; that of the two advantages is .75:

    >>> step_advantages(steps, prior=1.0, normalise="group")[0].round(4).tolist()
    [-1.2374, 0.8839]
    >>> step_advantages(steps, prior=1.0, normalise="batch")[0].round(4).tolist()
    [-1.1667, 0.8333]

    Raise ValueError for a negative prior, an unknown normaliser, or no steps.
    """
    if prior < 0:
        raise ValueError(f"credit.prior is a number of pseudo-observations, 0 or more, got {prior}")
    _check(steps, normalise, NORMALISERS[GRPO_ESTIMATOR])
    reward = np.array([s.reward for s in steps])
    expected = np.array([s.expected_reward for s in steps])
    by_pool = _Groups([(s.task, s.candidate_ids) for s in steps], reward)
    by_size = _Groups([(s.task, s.pool_size) for s in steps], reward)
    same_pool = by_pool.others > 0
    total = np.where(same_pool, by_pool.sum_of_others, by_size.sum_of_others)
    others = np.where(same_pool, by_pool.others, by_size.others)
    weight = prior + others
    # prior = 0 and no others: there is only the expected reward to compare with
    baseline = np.where(weight > 0, (prior * expected + total) / np.where(weight > 0, weight, 1.0), expected)
    advantage = reward - baseline
    spread = float(advantage.std())
    if normalise == "batch":
        advantage = _divide(advantage, spread)
    elif normalise == "group":
        advantage = _divide(advantage, np.where(same_pool, by_pool.spread, by_size.spread))
    compared = np.append(by_pool.spread_of(same_pool), by_size.spread_of(~same_pool & (others > 0)))
    metrics = {
        "credit/same_pool_share": float(same_pool.mean()),
        "credit/alone_share": float((others == 0).mean()),
        "credit/zero_share": _zero_share(advantage),
        "credit/spread": spread,
        "credit/groups": float(len(compared)),
        "credit/zero_variance_groups": float((compared <= MIN_SPREAD).sum()),
    }
    return advantage, metrics


def episode_advantages(
    steps: Sequence[StepRecord], values: ArrayLike, *, gamma: float = 1.0, lam: float = 1.0, normalise: str = "batch"
) -> tuple[np.ndarray, np.ndarray, dict[str, float]]:
    """Return ``exclusion_gae``'s (advantages, returns, metrics); both arrays ``(len(steps),)``, float64, in the order of ``steps``.

    Step k of a session has the reward ``r_k``, and ``V_k`` is the critic's value of the state before it (its prompt). The last
    step of a session is terminal: ``V`` and ``A`` after it are 0 (arXiv 1506.02438, eq. 11 to 16)::

        delta_k = r_k + gamma * V_(k+1) - V_k        A_k = delta_k + gamma * lam * A_(k+1)        return_k = A_k + V_k

    A response is one action: all its tokens get ``A_k``, and all are taught ``return_k`` for a value. gamma and lam discount
    by the step and not by the token, so a long reasoning trace costs nothing. An exclusion of the positive, which ends a
    training episode, loses the rewards of all the steps that it cut off; a step-level baseline cannot see that.

    ``values[i]`` is ``V`` of step i, shape ``(len(steps),)``. verl's ``values``, shape (rows, response tokens), come shifted by
    one token (``response_from_nested``): entry j was computed *before* response token j. So ``V_k`` is entry 0, the critic at
    the last prompt token.

    Then ``normalise``: ``batch`` subtracts the mean over the batch's steps and divides by their standard deviation
    (population), as verl's ``gae`` does over tokens: a critic that is still wrong is wrong in one direction, which would drown
    the rest. ``none`` leaves ``A`` as it is. Returns are never normalised.

    Steps come in any order: every step has fewer candidates than the one before, so their number gives the order.

    Example: rewards 1, 1, 0 and values .5, .25, .5; gamma = 1, lam = .5. From the end: delta = 0 - .5 = -.5, A = -.5;
    delta = 1 + .5 - .25 = 1.25, A = 1.25 - .25 = 1; delta = 1 + .25 - .5 = .75, A = .75 + .5 = 1.25.

    >>> steps = [StepRecord("t", "t_0", tuple("abcd"[:n]), reward, 1 - 1 / n) for n, reward in ((4, 1.0), (3, 1.0), (2, 0.0))]
    >>> advantages, returns, _ = episode_advantages(steps, [0.5, 0.25, 0.5], gamma=1.0, lam=0.5, normalise="none")
    >>> advantages.tolist(), returns.tolist()
    ([1.25, 1.0, -0.5], [1.75, 1.25, 0.0])

    Raise ValueError for gamma or lam outside [0, 1], an unknown normaliser, no steps, values of another shape or not
    finite, and two steps of one session with the same number of candidates.
    """
    for name, share in (("gamma", gamma), ("lam", lam)):
        if not 0 <= share <= 1:
            raise ValueError(f"algorithm.{name} is between 0 and 1, got {share}")
    _check(steps, normalise, NORMALISERS[GAE_ESTIMATOR])
    value = np.asarray(values, dtype=np.float64)
    if value.shape != (len(steps),):
        raise ValueError(f"one value a row: {len(steps)} rows, and values of shape {value.shape}")
    if not np.isfinite(value).all():
        step = steps[int(np.isfinite(value).argmin())]
        raise ValueError(f"the critic's value of session {step.session} at {step.pool_size} candidates is not finite")
    reward = np.array([s.reward for s in steps])
    order = sorted(range(len(steps)), key=lambda i: (steps[i].session, -steps[i].pool_size))
    advantage = np.empty(len(steps))
    advantage[order] = gae(reward[order], value[order], _ends([steps[i] for i in order]), gamma=gamma, lam=lam)
    returns = advantage + value
    spread = float(advantage.std())
    if normalise == "batch":
        advantage = _divide(advantage - advantage.mean(), spread)
    return advantage, returns, {"credit/zero_share": _zero_share(advantage), "credit/spread": spread}


def gae(rewards: np.ndarray, values: np.ndarray, ends: np.ndarray, *, gamma: float, lam: float) -> np.ndarray:
    """Return the advantages, not normalised, of episodes that stand one after the other, each in the order of time.

    ``rewards``, ``values`` (before the step) and ``ends`` (true for an episode's last step) have one shape, ``(steps,)``. With
    tokens for steps and rows for episodes this is verl's ``gae``, the published training's.
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


def row_weights(steps: Sequence[StepRecord | None], weights: str = "session") -> np.ndarray:
    """Return the weight of each row in the loss, shape ``(len(steps),)``. ``None`` marks a padding row, whose weight is 0.

    verl's ``seq-mean-*`` losses divide by the number of real rows R, so with S sessions, where every row below has a factor
    ``R / S``, the loss is the mean over sessions of the sum over their rows:

    ``session``   ``R / S / most_calls``: an exclusion counts as one of those that its episode can take, N - 1 of N candidates, so
                  that long lists do not outweigh short ones
    ``rr``        ``R / S * omega_k`` for a pool of k candidates, which makes the loss's gradient that of E[RR] (below)
    ``none``      1

    No weight depends on what the session's own exclusions were, nor on how soon they ended it. Dividing by the session's own
    number of exclusions would: then ``E[weight * grad log pi]`` is not 0, and exclusions that end an episode early are taught for
    that (+.115 on the positive's logit at a uniform N = 4).

    ``omega``: the reciprocal rank is ``1 / N`` plus ``1 / (k (k - 1))`` for every pool of k that the best candidate survives. With
    ``S_k`` the probability of that, the value of what comes below k is ``V_k = S_k (1 / (k (k - 1)) + V_(k-1))``, ``V_1 = 0``, and ::

        grad E[RR] = sum over the pools visited of omega_k * grad S_k        omega_k = 1 / (k (k - 1)) + V_(k-1)

    which is (k - 1) / k where the policy is perfect. ``S_k`` is the share of the batch's pools of k that the best survived, with
    one more that a random exclusion met.

    >>> pair = StepRecord("t", "t_0", ("a", "b"), 1.0, 0.5, most_calls=2)
    >>> three = StepRecord("t", "t_0", ("a", "b", "c"), 1.0, 2 / 3, most_calls=2)
    >>> row_weights([three, pair, None]).tolist()
    [1.0, 1.0, 0.0]
    >>> row_weights([three, pair], "rr").round(3).tolist()  # S_2 = (1 + 1/2) / 2: 2 (1/6 + .75 * 1/2), and 2 * 1/2
    [1.083, 1.0]

    Raise ValueError for an unknown kind, and where every row is padding.
    """
    if weights not in WEIGHTS:
        raise ValueError(f"unknown weights {weights!r}; choose one of {', '.join(WEIGHTS)}")
    real = [step for step in steps if step is not None]
    if not real:
        raise ValueError("no sessions to weigh: every row is padding")
    a_session = len(real) / len({step.session for step in real})
    if weights == "session":
        return np.array([a_session / step.most_calls if step is not None else 0.0 for step in steps])
    if weights == "none":
        return np.array([float(step is not None) for step in steps])
    omega = _omega(real)
    answers = Counter((step.session, step.pool_size) for step in real)  # of each state (iranker.branch)
    return np.array(
        [a_session * omega[s.pool_size] / answers[s.session, s.pool_size] if s is not None else 0.0 for s in steps]
    )


def _omega(steps: Sequence[StepRecord]) -> dict[int, float]:
    """Return the weights omega of :func:`row_weights`, by pool size."""
    survived: dict[int, list[float]] = defaultdict(list)
    for step in steps:
        survived[step.pool_size].append(float(step.positive_survived))
    omega, value = {}, 0.0
    for size in range(2, max(survived) + 1):
        omega[size] = 1 / (size * (size - 1)) + value
        survival = (sum(survived[size]) + (size - 1) / size) / (len(survived[size]) + 1)
        value = survival * omega[size]
    return omega


def _check(steps: Sequence[StepRecord], normalise: str, known: tuple[str, ...]) -> None:
    if normalise not in known:
        raise ValueError(f"unknown normaliser {normalise!r}; choose one of {', '.join(known)}")
    if not steps:
        raise ValueError("no rows to give credit to")


class _Groups:
    """Rows with one key, compared with each other.

    Attributes:
        others: of each row, the number of other rows with its key.
        sum_of_others: the sum of their rewards.
        spread: the sample standard deviation of the rewards of all rows with its key; 0 for a row alone.
    """

    def __init__(self, keys: Sequence[Hashable], rewards: np.ndarray) -> None:
        """Group by ``keys``; the arrays have the shape of ``rewards``, ``(rows,)``."""
        numbers: dict[Hashable, int] = {}
        self._group = np.array([numbers.setdefault(key, len(numbers)) for key in keys])
        size = np.bincount(self._group)
        total = np.bincount(self._group, rewards)
        squares = np.bincount(self._group, (rewards - (total / size)[self._group]) ** 2)
        self.others = size[self._group] - 1
        self.sum_of_others = total[self._group] - rewards
        self.spread = np.sqrt(squares / np.maximum(size - 1, 1))[self._group]

    def spread_of(self, rows: np.ndarray) -> np.ndarray:
        """Return the spread of each group that has a row in the mask ``rows``."""
        return self.spread[rows][np.unique(self._group[rows], return_index=True)[1]]


def _divide(advantage: np.ndarray, spread: np.ndarray | float) -> np.ndarray:
    """Return ``advantage / spread`` where there is a spread, and ``advantage`` where there is none (all are equal)."""
    return advantage / np.where(np.asarray(spread) > MIN_SPREAD, spread, 1.0)


def _zero_share(advantage: np.ndarray) -> float:
    """Return the share of rows without a gradient."""
    return float((np.abs(advantage) < 1e-9).mean())


def _ends(steps: Sequence[StepRecord]) -> np.ndarray:
    """Return which of the steps, sorted by session and time, is its session's last."""
    ends = np.ones(len(steps), dtype=bool)
    for i, (step, after) in enumerate(pairwise(steps)):
        if step.session == after.session:
            ends[i] = False
            if step.pool_size == after.pool_size:
                raise ValueError(
                    f"session {step.session} has two steps with {step.pool_size} candidates; which is first?"
                )
    return ends


def _refuse(name: str, **_: Any) -> NoReturn:
    raise UserError(
        f"algorithm.adv_estimator={name} needs to know which step of which session a row is, and verl's own trainer does "
        "not tell: start the run with `iranker train`, or choose one of verl's estimators (gae, grpo)"
    )


# Made once: verl takes a name twice only with the very same function.
_REFUSALS = {name: partial(_refuse, name) for name in ESTIMATORS}


def register() -> None:
    """Register :data:`ESTIMATORS` with verl, so that it lists them; imports verl. Further calls change nothing.

    verl hands a registered estimator token rewards, the response mask and the prompt's uid. That does not say which step of
    which session a row is, nor its candidates, so the functions above cannot run there:
    :mod:`iranker_verl.training.trainer` calls them. The registered functions raise a UserError with this reason.
    """
    from verl.trainer.ppo.core_algos import register_adv_est

    for name, refusal in _REFUSALS.items():
        register_adv_est(name)(refusal)
