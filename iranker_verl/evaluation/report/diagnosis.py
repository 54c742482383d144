"""Where a system fails: from its records (:mod:`..records`), whatever wrote or read them.

    diagnose({system: records})      # {system: diagnosis}, `diagnosis` of results.json

A diagnosis (all means are over the records, whatever their dataset; a task shown in several orders has several):

``n``
    rankings.
``survival`` {pool size: {``n``, ``alive``, ``random``}}
    ``alive[t]`` is the share of tasks whose best candidate is still in after ``t`` exclusions, t = 0 … N-1. A ranking
    stands for the elimination that excludes its last candidate first. ``random[t]`` is what excluding at random gives,
    (N-t)/N for one best candidate; for b equally good ones 1 - C(N-b, N-t) / C(N, N-t), meaned over the tasks.
``regret``, ``regret_random``, ``regret_by_dataset``
    relevance lost by taking the first candidate of the ranking: max(relevance) - relevance(first). With one positive of
    relevance 1 it is 1 - Hit@1. ``regret_random`` is max(relevance) - mean(relevance).
``by_pool_size``, ``by_position``, ``by_popularity``
    [{the bin's name, ``n``, ``rr``, ``hit@1``, ``random_rr``}]: tasks by how many candidates there are, by the position (from
    1) at which the best candidate was shown, by the third of the pool that its popularity puts it in (the rank that the
    system ``popularity`` gave it, among the same systems; recommendation only). ``random_rr`` is the expected reciprocal rank
    of a random order of the same tasks, so that a bin of small pools is not taken for an easy one.
``statuses`` {status: answers}, ``cost``
    for systems that asked a language model: how its answers parsed, and ``calls``, ``prompt_tokens``, ``new_tokens`` a
    task and ``seconds_p50``, ``seconds_p95`` of a task.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from math import comb
from statistics import fmean
from typing import Any

import numpy as np

from iranker_verl.evaluation.metrics import Values
from iranker_verl.evaluation.records import Record
from iranker_verl.inference.episode import Episode

POSITIONS = 20  # later places are one bin
THIRDS = ("most popular", "middle", "least popular")  # thirds of a pool
Ranks = Mapping[tuple[str, str], int]  # (dataset, task id) -> rank of the best candidate


def diagnose(systems: Mapping[str, Sequence[Record]]) -> dict[str, dict[str, Any]]:
    """Return the diagnosis of every system that has records."""
    popularity: Ranks = {(r.task.dataset, r.task.id): r.rank_of_best for r in systems.get("popularity", ())}
    return {system: diagnosis(records, popularity) for system, records in systems.items() if records}


def diagnosis(records: Iterable[Record], popularity: Ranks | None = None) -> dict[str, Any]:
    """Return one system's diagnosis; ``popularity`` is the rank that popularity gives to the best candidate of a task."""
    survival: dict[int, _Survival] = defaultdict(_Survival)
    regrets: dict[str, list[float]] = defaultdict(list)
    random_regrets: list[float] = []
    sizes: dict[int, _Bin] = defaultdict(_Bin)
    positions: dict[int, _Bin] = defaultdict(_Bin)
    thirds: dict[int, _Bin] = defaultdict(_Bin)
    statuses: Counter[str] = Counter()
    episodes: list[Episode] = []
    for record in records:
        task, relevance, size = record.task, record.task.relevance, len(record.task.relevance)
        best = max(relevance)
        of = {c.id: r for c, r in zip(task.candidates, relevance, strict=True)}
        survival[size].add(size, relevance.count(best), record.rank_of_best)
        regrets[task.dataset].append(best - of[record.ranking[0]])
        random_regrets.append(best - fmean(relevance))
        bins = [sizes[size], positions[min(relevance.index(best) + 1, POSITIONS)]]
        if popularity and (rank := popularity.get((task.dataset, task.id))):
            bins.append(thirds[3 * (rank - 1) // size])
        for one in bins:
            one.add(record.values, expected_rr(size, sum(r > 0 for r in relevance)))
        if record.episode is not None:
            statuses.update(step.status for step in record.episode.steps)
            episodes.append(record.episode)
    everything = [value for values in regrets.values() for value in values]
    found: dict[str, Any] = {"n": len(everything)}
    if not everything:
        return found
    found |= {
        "survival": {str(size): survival[size].content() for size in sorted(survival)},
        "regret": fmean(everything),
        "regret_random": fmean(random_regrets),
        "regret_by_dataset": {dataset: fmean(values) for dataset, values in regrets.items()},
        "by_pool_size": [{"candidates": size, **sizes[size].content()} for size in sorted(sizes)],
        "by_position": [{"position": position, **positions[position].content()} for position in sorted(positions)],
    }
    if thirds:
        found["by_popularity"] = [{"popularity": THIRDS[i], **thirds[i].content()} for i in sorted(thirds)]
    if episodes:
        p50, p95 = np.percentile([e.seconds for e in episodes], [50, 95])
        found["statuses"] = dict(statuses.most_common())
        found["cost"] = {
            **{name: fmean(getattr(e, name) for e in episodes) for name in ("calls", "prompt_tokens", "new_tokens")},
            "seconds_p50": float(p50),
            "seconds_p95": float(p95),
        }
    return found


@cache
def random_survival(size: int, best: int) -> tuple[float, ...]:
    """Return the chance that one of ``best`` equally good candidates of ``size`` is in after t random exclusions, t = 0 … size-1.

    All are out where the size - t that stay are among the size - best others: 1 - C(size-best, size-t) / C(size, size-t).
    """
    return tuple(1 - comb(size - best, size - t) / comb(size, size - t) for t in range(size))


@cache
def expected_rr(size: int, relevant: int) -> float:
    """Return the mean reciprocal rank of a random order of ``size`` candidates of which ``relevant`` are relevant.

    The first relevant one is at rank k with probability C(size-k, relevant-1) / C(size, relevant). For one it is H(N)/N.
    """
    return sum(comb(size - k, relevant - 1) / k for k in range(1, size + 1)) / comb(size, relevant)


class _Survival:
    def __init__(self) -> None:
        self._ranks: Counter[int] = Counter()
        self._random: Counter[tuple[float, ...]] = Counter()

    def add(self, size: int, best: int, rank: int) -> None:
        self._ranks[rank] += 1
        self._random[random_survival(size, best)] += 1

    def content(self) -> dict[str, Any]:
        n = self._ranks.total()
        size = len(next(iter(self._random)))
        # after t exclusions the ranks 1 … size - t are in
        alive = [sum(count for rank, count in self._ranks.items() if rank <= size - t) / n for t in range(size)]
        random = [sum(curve[t] * count for curve, count in self._random.items()) / n for t in range(size)]
        return {"n": n, "alive": alive, "random": random}


class _Bin:
    def __init__(self) -> None:
        self._n, self._rr, self._hits, self._random = 0, 0.0, 0.0, 0.0

    def add(self, values: Values, random_rr: float) -> None:
        self._n += 1
        self._rr += values["rr"]
        self._hits += values["hit@1"]
        self._random += random_rr

    def content(self) -> dict[str, Any]:
        n = self._n
        return {"n": n, "rr": self._rr / n, "hit@1": self._hits / n, "random_rr": self._random / n}
