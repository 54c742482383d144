"""The exclusion reward: the value of one step of iterative elimination (IRanker, arXiv 2506.21638, section 3).

A pool of N candidates has relevances ``rel``; with one positive they are 1 and 0. ``kind`` says what the value of excluding
candidate i is, for the first four in [0, 1]. Where all are equally relevant, every exclusion has the value 1.

``published``   1, or 0 for a candidate of the best grade. The paper's reward: 1 for any candidate but the positive.
``corrected``   the same, minus the mean value of a uniformly random exclusion: ``(N - 1) / N`` with one positive. A random
                policy earns 0 at every pool size, where the published reward pays it 0.95 at N = 20.
``graded``      ``1 - (rel[i] - min rel) / (max rel - min rel)``: one minus the regret of not excluding the worst candidate, as
                a share of the pool's range. For graded judgements (TREC); the grades are read as gains, as in nDCG.
``cost_aware``  ``1 - min(1, (max u - max of u without i) / scale)``: one minus the score that the exclusion loses, in units of
                the score u = effect_weight * effect - cost_weight * cost of routing (GraphRouter, arXiv 2410.03834). Excluding
                any candidate but the best loses nothing; excluding the best loses its lead over the second. Over an
                episode the losses add up to the regret of the remaining LLM: max u of the task - u of that LLM. So, unlike
                above, a near tie costs next to nothing. u is ``ground_truth["relevance"]`` (or 1 and 0 for the target), unless
                ``effect_weight`` and ``cost_weight`` are given: then it is computed from ``ground_truth["effect"]`` and
                ``["cost"]``, one number a candidate. ``scale`` is the loss at which the value is 0: by default 1, the range of u
                where effect and cost lie in [0, 1] and the weights add up to 1.

Three kinds pay what an exclusion adds to a measure of the final ranking, so that over an episode they add up to it. Whoever is
excluded from a pool of k has rank k, so every survivor's rank improves to k - 1 at least. With a discount ``D(rank)``, gains ``g``
and the pool's relevances for g, excluding candidate i is worth ::

    (D(k - 1) - D(k)) * sum of g over the other candidates

``rr``          D(rank) = 1 / rank and, for the sum, 1 while a positive (relevance above 0) is in and 0 else: ``1 / (k (k - 1))`` for
                an exclusion that one survives. The sum over an episode is the first positive's reciprocal rank, less 1 / N
``dcg``         D(rank) = 1 / log2(rank + 1): the sum is DCG with linear gains, less D(N) times the sum of all gains
``gain``        D(rank) = 1 / rank with graded gains: the sum of g / rank, which ``exclusion_order`` maximises, less its part at N

An exclusion that leaves candidates of equal gain only decides the episode, and earns what is still to come as well; such pools
then pay 0. They ask for relevances of 0 or more, and are for estimators that look ahead (``exclusion_gae``), or compare whole
sessions (verl's ``grpo`` with ``iranker.credit.session_reward=sum``).

A response that names no candidate earns ``malformed`` (-0.5), below all of these; :mod:`reward_fns.shaping` has the small terms
for form and length. ``lost_positive`` is 1 where the excluded candidate is of the best grade, also where another as good is
left and ``cost_aware`` loses nothing. With every score comes ``expected``, the mean score of a uniformly random valid exclusion
(tidy, short) under the same kind. The plain kinds nearly saturate, so a learner has to subtract it, as
:mod:`iranker_verl.training.credit` does. ``corrected`` has subtracted it already, for recipes with an estimator of their own,
and its ``expected`` is 0.

Example: four candidates with scores u = .9, .8, .3, .1. Excluding the first has the value 0 as ``published`` and 0 as
``graded``, but 1 - (.9 - .8) = .9 as ``cost_aware``; excluding the second has 1, 1 - .7 / .8 = .125, and 1.

>>> truth = {"candidates": ["Heat", "Alien", "Up", "Big"], "target": 0, "relevance": [0.9, 0.8, 0.3, 0.1]}
>>> [round(compute_score("", "[A]", truth, kind=kind)["score"], 3) for kind in ("published", "graded", "cost_aware")]
[0.0, 0.0, 0.9]
>>> [round(compute_score("", "[B]", truth, kind=kind)["score"], 3) for kind in ("published", "graded", "cost_aware")]
[1.0, 0.125, 1.0]
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable, Sequence
from functools import lru_cache
from numbers import Real
from typing import Any, NamedTuple

# verl loads a file by its path alone; its siblings are then imported from its folder, which has to be called reward_fns
if __package__ != "reward_fns":
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
try:
    from reward_fns.answers import exclusion_from
    from reward_fns.names import Pool
    from reward_fns.shaping import STATUS_PARTS, in_batches, shaping_of
finally:
    if __package__ != "reward_fns":
        del sys.path[0]

KINDS = ("published", "corrected", "graded", "cost_aware", "rr", "dcg", "gain")
_DISCOUNTS: dict[str, Callable[[int], float]] = {
    "rr": lambda rank: 1 / rank,
    "dcg": lambda rank: 1 / math.log2(rank + 1),
    "gain": lambda rank: 1 / rank,
}
OWN_SETTINGS = ("effect_weight", "cost_weight", "scale")
# Differences and sums of what is smaller stay finite.
_HUGE = 1e100


def compute_score(
    data_source: str,
    solution_str: str,
    ground_truth: dict[str, Any],
    extra_info: dict[str, Any] | None = None,
    *,
    kind: str = "published",
    effect_weight: float | None = None,
    cost_weight: float | None = None,
    scale: float | None = None,
    **settings: Any,
) -> dict[str, float]:
    """Return the reward of one exclusion, ``score``, and its parts, all logged by verl; the signature is verl's.

    ``settings`` are those of :class:`reward_fns.shaping.Shaping`. ``ground_truth`` is ``{"candidates": [text, …], "target": index}``, with ``"relevance": [number, …]`` where graded; the
    i-th candidate has the i-th label. Raise ValueError for one of another shape, and for settings out of range.
    """
    shape = shaping_of(settings, OWN_SETTINGS)
    if not (effect_weight is cost_weight is scale is None):
        if kind != "cost_aware":
            raise ValueError(f"{', '.join(OWN_SETTINGS)} have no meaning for kind={kind}")
        if not (effect_weight is cost_weight is None):
            ground_truth = _with_scores(ground_truth, effect_weight, cost_weight)
    step = _step_of(ground_truth, kind, 1.0 if scale is None else scale)
    answer = exclusion_from(solution_str, step.names)
    index = answer.index
    overlong = shape.overlong(len(solution_str)) if index is not None else 0.0
    score = shape.malformed if index is None else shape.reward(step.values[index], answer.tidy, overlong)
    subtracted = step.expected if kind == "corrected" else 0.0
    return {
        "score": score - subtracted,
        "expected": step.expected - subtracted,
        "regret": 1.0 if index is None else max(step.values) - step.values[index],
        "format": 1.0 if answer.tidy else 0.0,
        "overlong": overlong,
        "malformed": 1.0 if index is None else 0.0,
        **STATUS_PARTS[answer.status],
        "lost_positive": 1.0 if index in step.best else 0.0,
        "pool_size": float(len(step.values)),
    }


compute_score_batch = in_batches(compute_score)


def relevance_of(ground_truth: dict[str, Any]) -> tuple[list[str], list[float]]:
    """Return ``(candidates, relevance)`` of a verl ``ground_truth``. Raise ValueError that names the wrong field."""
    candidates = _texts(ground_truth)
    graded = ground_truth.get("relevance")
    if graded is not None and not (_is_list(graded) and len(graded) == 0):
        return candidates, _numbers(ground_truth, "relevance", len(candidates))
    target: Any = ground_truth.get("target")
    try:
        index = -1 if isinstance(target, str) or target != int(target) else int(target)
    except (TypeError, ValueError, OverflowError):
        index = -1
    if not 0 <= index < len(candidates):
        raise ValueError(f"ground_truth target is {target!r:.80}, not an index into its {len(candidates)} candidates")
    relevance = [0.0] * len(candidates)
    relevance[index] = 1.0
    return candidates, relevance


def graded_values(relevance: Sequence[float]) -> list[float]:
    """Return the value of excluding each candidate under ``graded``: one minus its regret, in [0, 1].

    >>> graded_values([1.0, 0.5, 0.0])
    [0.0, 0.5, 1.0]
    """
    low, high = min(relevance), max(relevance)
    return [1.0 - (value - low) / (high - low) if high > low else 1.0 for value in relevance]


def _published_values(values: Sequence[float]) -> list[float]:
    best, low = max(values), min(values)
    return [1.0 if value < best or best == low else 0.0 for value in values]


def _cost_aware_values(values: Sequence[float], scale: float) -> list[float]:
    if not (isinstance(scale, Real) and 0 < scale < math.inf):
        raise ValueError(f"scale is a loss of score, a number above 0, got {scale!r}")
    best, second = sorted([*values, min(values)], reverse=True)[:2]
    return [1.0 - min(1.0, (best - second) / scale) if value == best else 1.0 for value in values]


def _metric_values(relevance: Sequence[float], kind: str) -> list[float]:
    """Return what each exclusion adds to the measure ``kind`` of the ranking; see the module's docstring."""
    if min(relevance) < 0:
        raise ValueError(f"kind={kind} takes relevances of 0 or more, got {min(relevance):g}")
    gains = [float(value > 0) for value in relevance] if kind == "rr" else list(relevance)
    if max(gains) == min(gains):  # paid for by the exclusion that led here
        return [0.0] * len(gains)
    discount, left = _DISCOUNTS[kind], len(gains) - 1
    values = []
    for index in range(len(gains)):
        rest = [*gains[:index], *gains[index + 1 :]]
        total = max(rest) if kind == "rr" else math.fsum(rest)
        value = total * (discount(left) - discount(left + 1))
        if max(rest) == min(rest):  # decided: the ranks of the others are left, down to 1
            ranks = discount(1) if kind == "rr" else math.fsum(discount(rank) for rank in range(1, left + 1)) / left
            value += total * (ranks - discount(left))
        values.append(value)
    return values


class _Step(NamedTuple):
    """What a pool determines for any response: candidates' names, the value of excluding each, its mean, the best."""

    names: Pool
    values: tuple[float, ...]
    expected: float
    best: frozenset[int | None]


def _step_of(ground_truth: dict[str, Any], kind: str, scale: float) -> _Step:
    try:
        texts, graded = ground_truth["candidates"], ground_truth.get("relevance")
        if _is_list(texts) and (graded is None or _is_list(graded)):
            graded = None if graded is None else tuple(graded)
            return _step(tuple(texts), graded, ground_truth.get("target"), kind, scale)
    except (TypeError, KeyError, IndexError):  # no dict, or values that cannot be hashed
        pass
    texts, relevance = relevance_of(ground_truth)  # mostly raises
    return _step(tuple(texts), tuple(relevance), None, kind, scale)


@lru_cache(maxsize=4096)  # rollouts answer the same prompt many times
def _step(
    texts: tuple[str, ...], graded: tuple[float, ...] | None, target: int | None, kind: str, scale: float
) -> _Step:
    if kind not in KINDS:
        raise ValueError(f"unknown exclusion reward {kind!r}; choose one of {', '.join(KINDS)}")
    candidates, relevance = relevance_of({"candidates": texts, "relevance": graded, "target": target})
    if kind in _DISCOUNTS:
        values = _metric_values(relevance, kind)
    elif kind == "cost_aware":
        values = _cost_aware_values(relevance, scale)
    else:
        values = graded_values(relevance) if kind == "graded" else _published_values(relevance)
    highest, lowest = max(relevance), min(relevance)
    best = frozenset([i for i, value in enumerate(relevance) if value == highest] if highest > lowest else ())
    return _Step(Pool(candidates), tuple(values), math.fsum(values) / len(values), best)


def _with_scores(
    ground_truth: dict[str, Any], effect_weight: float | None, cost_weight: float | None
) -> dict[str, Any]:
    """Return ``ground_truth`` whose relevance is the weighted score of its effects and costs."""
    if effect_weight is None or cost_weight is None:
        raise ValueError("effect_weight and cost_weight are given together or not at all")
    weights = effect_weight, cost_weight
    if not (all(isinstance(w, Real) and 0 <= w < _HUGE for w in weights) and any(weights)):
        raise ValueError(f"effect_weight and cost_weight are numbers of 0 or more, and not both 0, got {weights}")
    count = len(_texts(ground_truth))
    effect, cost = (_numbers(ground_truth, field, count) for field in ("effect", "cost"))
    scores = [effect_weight * e - cost_weight * c for e, c in zip(effect, cost, strict=True)]
    return {**ground_truth, "relevance": scores}


def _is_list(values: Any) -> bool:
    """Return whether ``values`` is a sequence other than a text, or an array of one dimension."""
    if isinstance(values, (list, tuple)):  # first: an isinstance of an abstract class is slow
        return True
    return getattr(values, "ndim", 0) == 1 or (isinstance(values, Sequence) and not isinstance(values, (str, bytes)))


def _texts(ground_truth: dict[str, Any]) -> list[str]:
    """Return the candidates of a ground truth. Raise ValueError that names the first which is no text."""
    try:
        given: Any = ground_truth["candidates"]
    except (TypeError, KeyError, IndexError) as error:
        raise ValueError('ground_truth must be {"candidates": [text, ...], "target": index}') from error
    if not _is_list(given):
        raise ValueError(f"ground_truth candidates has to be a list of texts, got {given!r:.80}")
    if wrong := [f"number {i} is {text!r:.80}" for i, text in enumerate(given) if not isinstance(text, str)]:
        raise ValueError(f"ground_truth candidates has to be a list of texts, {wrong[0]}")
    return list(given)


def _numbers(ground_truth: dict[str, Any], field: str, count: int) -> list[float]:
    """Return ``count`` finite numbers of a field of the ground truth. Raise ValueError that names the field."""
    given: Any = ground_truth.get(field)
    try:
        if not _is_list(given) or any(isinstance(number, str) for number in given):  # float() accepts texts, too
            raise TypeError
        numbers = list(map(float, given))
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"ground_truth {field} has to be a list of numbers, got {given!r:.80}") from error
    if len(numbers) != count:
        raise ValueError(f"ground_truth has {count} candidates but {len(numbers)} {field} values")
    if not all(-_HUGE < number < _HUGE for number in numbers):  # false for NaN, too
        raise ValueError(f"ground_truth {field} has to be finite, and below {_HUGE:g}, got {numbers!r:.80}")
    return numbers
