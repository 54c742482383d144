"""The direct reward: the value of a whole ranking in one response (DRanker, IRanker's one-shot baseline, arXiv 2506.21638).

``kind`` says what the quality of a ranking of N candidates is, in [0, 1]. The gain of a candidate is its relevance minus the
pool's lowest; with one positive gains are 1 and 0.

``ndcg``  ``sum over ranks k of gain[k] / log2(k + 1)``, divided by the same sum of the best order (Järvelin & Kekäläinen,
          2002). With one positive at rank k it is ``1 / log2(k + 1)``.
``rr``    ``1 / k`` for the highest rank k of a candidate of the best grade: what evaluation reports as MRR.

Candidates that a response does not name are ranked last, in the worst order, so that leaving one out is never better than
ranking it last. An item that names no candidate keeps its rank and has no gain, so that it moves nothing behind it up. Then::

    score = quality - coverage_weight * (1 - coverage) - extra_weight * extra - (form and length, reward_fns.shaping)

``coverage`` is the share of candidates named, ``extra`` the share of items that are repeated or name no candidate. A response
without any order earns ``malformed``. ``expected`` is the mean score of a uniformly random complete ranking: ``mean gain * sum of
discounts / best sum`` for nDCG, and for RR the sum over ranks k of 1 / k times the probability that the first of the m
candidates of the best grade has it: ``m / N`` at the first, then ``m / (N - k + 1)`` of what is left.

Example: four candidates, the third is the positive. ``[A] > [C] > [B] > [D]`` has it at rank 2: nDCG 1 / log2(3) = .631. ``[C]``
alone has quality 1 and coverage 1/4: 1 - .2 * 3/4 = .85. ``[A]`` alone: the positive counts as last, 1 / log2(5) = .431, less .15.

>>> truth = {"candidates": ["Heat", "Alien", "Up", "Big"], "target": 2}
>>> [round(compute_score("", answer, truth)["score"], 3) for answer in ("[A] > [C] > [B] > [D]", "[C]", "[A]")]
[0.631, 0.85, 0.281]
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

# as in exclusion.py
if __package__ != "reward_fns":
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
try:
    from reward_fns.answers import PARTIAL, parse_ranking, tidy
    from reward_fns.exclusion import relevance_of
    from reward_fns.shaping import STATUS_PARTS, in_batches, shaping_of
finally:
    if __package__ != "reward_fns":
        del sys.path[0]

KINDS = ("ndcg", "rr")
OWN_SETTINGS = ("coverage_weight", "extra_weight")


def compute_score(
    data_source: str,
    solution_str: str,
    ground_truth: dict[str, Any],
    extra_info: dict[str, Any] | None = None,
    *,
    kind: str = "ndcg",
    coverage_weight: float = 0.2,
    extra_weight: float = 0.1,
    **settings: Any,
) -> dict[str, float]:
    """Return the reward of one whole ranking, ``score``, and its parts, all logged by verl; the signature is verl's.

    ``settings`` are those of :class:`reward_fns.shaping.Shaping`. ``ground_truth`` is that of :func:`reward_fns.exclusion.compute_score`. Raise ValueError for one of another shape, and for
    settings out of range.
    """
    if kind not in KINDS:
        raise ValueError(f"unknown direct reward {kind!r}; choose one of {', '.join(KINDS)}")
    shape = shaping_of(settings, OWN_SETTINGS)
    if not (coverage_weight >= 0 and extra_weight >= 0):
        raise ValueError(
            f"coverage_weight and extra_weight must be 0 or more, got {coverage_weight} and {extra_weight}"
        )
    shape.check_room(coverage_weight + extra_weight)
    texts, relevance = relevance_of(ground_truth)
    ranking = parse_ranking(solution_str, texts)
    named, read = len(ranking.order), bool(ranking.order)
    order = complete(ranking.ranks, relevance)
    quality = {"ndcg": ndcg(order, relevance), "rr": rr(order, relevance)}
    coverage = named / len(texts)
    items = max(1, named + ranking.repeated + ranking.unknown)
    extra = (ranking.repeated + ranking.unknown) / items
    neat, overlong = read and tidy(solution_str), shape.overlong(len(solution_str)) if read else 0.0
    value = quality[kind] - coverage_weight * (1 - coverage) - extra_weight * extra
    return {
        "score": shape.reward(value, neat, overlong) if read else shape.malformed,
        "expected": _expected(kind, tuple(relevance)),
        **{name: number if read else 0.0 for name, number in quality.items()},
        "coverage": coverage,
        "duplicates": ranking.repeated / items,
        "unknown": ranking.unknown / items,
        "partial": float(ranking.status == PARTIAL),
        "format": float(neat),
        "overlong": overlong,
        "malformed": float(not read),
        **STATUS_PARTS[ranking.status],
        "pool_size": float(len(texts)),
    }


compute_score_batch = in_batches(compute_score)


def complete(order: Sequence[int | None], relevance: Sequence[float]) -> list[int | None]:
    """Return ``order`` (None: a rank without a candidate), and then the candidates that it leaves out, the worst first."""
    left = set(range(len(relevance))).difference(order)
    return [*order, *sorted(left, key=relevance.__getitem__)]


def ndcg(order: Sequence[int | None], relevance: Sequence[float]) -> float:
    """Return the nDCG of a complete order; 1 where all are equally relevant."""
    low = min(relevance)
    best = _dcg(sorted((r - low for r in relevance), reverse=True))
    return _dcg([0.0 if i is None else relevance[i] - low for i in order]) / best if best else 1.0


def rr(order: Sequence[int | None], relevance: Sequence[float]) -> float:
    """Return the reciprocal rank, in a complete order, of the first candidate of the best grade."""
    best = max(relevance)
    return 1.0 / next(rank for rank, i in enumerate(order, 1) if i is not None and relevance[i] == best)


def _dcg(gains: Sequence[float]) -> float:
    return math.fsum(gain / math.log2(rank + 1) for rank, gain in enumerate(gains, 1) if gain)


@lru_cache(maxsize=4096)
def _expected(kind: str, relevance: tuple[float, ...]) -> float:
    """Return the mean score of a uniformly random complete order."""
    count = len(relevance)
    if kind == "rr":
        good, none_before, terms = relevance.count(max(relevance)), 1.0, list[float]()
        for rank in range(1, count - good + 2):  # none_before: the probability that no rank before has one of the best
            here = good / (count - rank + 1)
            terms.append(none_before * here / rank)
            none_before *= 1.0 - here
        return math.fsum(terms)
    low = min(relevance)
    gains = sorted((r - low for r in relevance), reverse=True)
    mean = math.fsum(gains) / count
    best = _dcg(gains)
    return _dcg([mean] * count) / best if best else 1.0
