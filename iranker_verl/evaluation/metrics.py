"""Measure rankings with ``ir_measures``: RR, nDCG@5, nDCG@10 and Success@1.

A candidate is relevant where its relevance is above 0. Gains are relevances, linear as in trec_eval; as ``ir_measures``
takes whole numbers only, a task's relevances are divided by its largest, times 1000, and rounded, but stay at least 1
where they were above 0 (values below 0 count as 0). nDCG does not change when all gains of a task are scaled alike, so
this costs at most the rounding: 0.5 and 1.0 become 500 and 1000, one positive becomes 1000 among 0.
"""

from __future__ import annotations

from collections.abc import Sequence

import ir_measures
from ir_measures import RR, Success, nDCG

from iranker_verl.errors import UserError
from iranker_verl.ranking import RankingTask
from iranker_verl.ranking.task import RELEVANCE_LIMIT as LIMIT

MEASURES = {"rr": RR, "ndcg@5": nDCG @ 5, "ndcg@10": nDCG @ 10, "hit@1": Success @ 1}
GAIN_SCALE = 1000

Values = dict[str, float]


def gains(relevance: Sequence[float]) -> list[int]:
    """Return relevances as the whole numbers that ``ir_measures`` takes.

    Raise ValueError where none is above 0, or one is :data:`LIMIT` or more away from 0.
    """
    best = max(relevance)
    if best <= 0:
        raise ValueError("no relevance is above 0: there is nothing to find")
    if beyond := [r for r in relevance if abs(r) >= LIMIT]:
        raise ValueError(f"its relevance {beyond[0]:g} is not within ±{LIMIT:g}; scale the relevances down")
    return [max(1, round(GAIN_SCALE * r / best)) if r > 0 else 0 for r in relevance]


def task_gains(task: RankingTask) -> list[int]:
    """Return :func:`gains` of a task's relevances. Raise UserError, by task, where they cannot be measured."""
    try:
        return gains(task.relevance)
    except ValueError as error:
        raise UserError(f"task {task.id!r} of {task.dataset!r}: {error}") from error


def measure(tasks: Sequence[RankingTask], rankings: Sequence[Sequence[str]]) -> list[Values]:
    """Return every measure of every task, in the order of ``tasks``; ``rankings[i]`` holds task ``i``'s ids, best first.

    Queries and documents are named by their index, so that neither an id that two datasets share nor one with spaces can be
    confused. Raise UserError for a task that :func:`gains` refuses, ValueError for a ranking of other ids than the task's.
    """
    qrels: dict[str, dict[str, int]] = {}
    run: dict[str, dict[str, float]] = {}
    for number, (task, ranking) in enumerate(zip(tasks, rankings, strict=True)):
        index = {c.id: str(i) for i, c in enumerate(task.candidates)}
        if len(ranking) != len(index) or set(ranking) != set(index):
            raise ValueError(f"task {task.id!r} of {task.dataset!r}: its ranking is not an order of its candidates")
        qrels[str(number)] = {index[c.id]: g for c, g in zip(task.candidates, task_gains(task), strict=True)}
        run[str(number)] = {index[id]: float(len(ranking) - rank) for rank, id in enumerate(ranking)}
    values: list[Values] = [{} for _ in tasks]
    names = {str(m): name for name, m in MEASURES.items()}
    for metric in ir_measures.iter_calc(MEASURES.values(), qrels, run):
        values[int(metric.query_id)][names[str(metric.measure)]] = float(metric.value)
    return values


def rank_of_best(task: RankingTask, ranking: Sequence[str]) -> int:
    """Return the rank, from 1, of the first candidate in ``ranking`` whose relevance is the task's highest."""
    best = max(task.relevance)
    good = {c.id for c, r in zip(task.candidates, task.relevance, strict=True) if r == best}
    return next(rank for rank, id in enumerate(ranking, 1) if id in good)
