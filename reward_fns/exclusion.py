"""The exclusion reward: what one step of iterative elimination is worth (IRanker, arXiv 2506.21638, section 3).

For a pool of N candidates with one positive: 1 for excluding any other candidate, 0 for excluding the positive, and
``malformed`` (-0.5, below both) for an answer that names no candidate. With graded relevance the step is worth
``1 - regret``, where ``regret = (rel[excluded] - min rel) / (max rel - min rel)``; with one positive the two agree.

A random valid exclusion earns ``(N - 1) / N`` on average, so at N = 20 the plain reward is nearly saturated: a learner
must subtract it. ``expected`` says with every score what a random valid exclusion scores on average, and
:mod:`iranker_verl.training.credit` subtracts it; ``kind="corrected"`` subtracts it here already, for recipes with an
estimator of their own, and ``expected`` is then 0.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from reward_fns.answers import NO_ANSWER, NOT_A_CANDIDATE, SEVERAL, parse_exclusion

KINDS = ("published", "corrected")
MALFORMED = -0.5


def relevance_of(ground_truth: dict[str, Any]) -> tuple[list[str], list[float]]:
    """``(candidates, relevance)`` of a verl ``ground_truth``; raises ValueError that names the wrong field."""
    try:
        texts = ground_truth["candidates"]
        if isinstance(texts, str):  # its characters would pass for candidates
            raise TypeError("candidates is one text, not a list")
        candidates = [str(c) for c in texts]
    except (TypeError, KeyError, IndexError) as error:
        raise ValueError('ground_truth must be {"candidates": [text, ...], "target": index}') from error
    graded = ground_truth.get("relevance")
    try:
        relevance = [float(r) for r in graded] if graded is not None else []
    except (TypeError, ValueError) as error:
        raise ValueError(f"ground_truth relevance has to be a list of numbers, got {graded!r}") from error
    if relevance:
        if len(relevance) != len(candidates):
            raise ValueError(f"ground_truth has {len(candidates)} candidates but {len(relevance)} relevance values")
        if not all(map(math.isfinite, relevance)):
            raise ValueError(f"ground_truth relevance has to be finite, got {relevance}")
        return candidates, relevance
    target: Any = ground_truth.get("target")
    try:
        known = target is not None and 0 <= int(target) < len(candidates)
    except (TypeError, ValueError, OverflowError):
        known = False
    if not known:
        raise ValueError(f"ground_truth target is {target!r}, not an index into its {len(candidates)} candidates")
    return candidates, [float(i == int(target)) for i in range(len(candidates))]


def worths(relevance: Sequence[float]) -> list[float]:
    """What excluding each candidate is worth, ``1 - regret``, in [0, 1]; all 1 where nothing can be regretted."""
    low, high = min(relevance), max(relevance)
    return [1.0 - (r - low) / (high - low) if high > low else 1.0 for r in relevance]


def compute_score(
    data_source: str,
    solution_str: str,
    ground_truth: dict[str, Any],
    extra_info: dict[str, Any] | None = None,
    *,
    kind: str = "published",
    malformed: float = MALFORMED,
    **_: Any,
) -> dict[str, float]:
    """verl's reward signature, for one exclusion. verl logs every part of the dict; ``score`` is the reward.

    ``malformed`` is a reward, as 0 and 1 are, and has to lie below 0. ValueError for a ground truth of another shape.
    """
    if kind not in KINDS:
        raise ValueError(f"unknown exclusion reward {kind!r}; choose one of {', '.join(KINDS)}")
    if not -math.inf < malformed < 0:  # a NaN too
        raise ValueError(f"malformed must be below 0, the worst of all rewards, got {malformed}")
    candidates, relevance = relevance_of(ground_truth)
    worth = worths(relevance)
    answer = parse_exclusion(solution_str, candidates)
    score = float(malformed) if answer.index is None else worth[answer.index]
    expected = sum(worth) / len(worth)
    subtracted = expected if kind == "corrected" else 0.0
    best = max(relevance)
    return {
        "score": score - subtracted,
        "expected": expected - subtracted,
        "malformed": float(answer.index is None),
        "no_answer": float(answer.status == NO_ANSWER),
        "not_a_candidate": float(answer.status == NOT_A_CANDIDATE),
        "several_answers": float(answer.status == SEVERAL),
        "lost_positive": float(answer.index is not None and relevance[answer.index] == best and len(worth) > 1),
        "pool_size": float(len(candidates)),
    }


def compute_score_batch(
    data_sources: Sequence[str],
    solution_strs: Sequence[str],
    ground_truths: Sequence[dict[str, Any]],
    extra_infos: Sequence[dict[str, Any] | None] | None = None,
    **reward_kwargs: Any,
) -> list[dict[str, float]]:
    """:func:`compute_score` over a batch, in verl's batch reward signature."""
    extras = extra_infos if extra_infos is not None else [None] * len(solution_strs)
    return [
        compute_score(source, answer, truth, extra, **reward_kwargs)
        for source, answer, truth, extra in zip(data_sources, solution_strs, ground_truths, extras, strict=True)
    ]
