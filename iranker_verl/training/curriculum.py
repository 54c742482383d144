"""A reverse curriculum: training episodes begin near the end of an elimination, and step by step at its beginning.

What one sampled exclusion teaches about the positive shrinks with the pool. For a policy that draws one of N candidates by
dice, with the corrected reward as advantage (``1 / N`` for sparing the one positive, ``-(N - 1) / N`` for excluding it),
the derivative with respect to the positive's logit has mean ``-(N - 1) / N^2``, and ::

    mean^2 / second moment = N (N - 1) / ((N - 1)^3 + 1)        1 at N = 2, .67 at 3, .43 at 4, .12 at 10

so two candidates say in every answer what ten say in one of eight, and their prompt is a fifth as long. A policy that begins at full
pools stands still at chance for tens of steps before it finds what to look at; one that begins at pairs has it
within a few, and what it has learned carries over as pools grow (docs/credit.md has the measurement). The same idea for
goals in place of pools: Florensa et al., Reverse Curriculum Generation for Reinforcement Learning, arXiv 1707.05300.

How far a dataset has come decides how large its pools are. Its **skill** at a pool of N candidates is ::

    skill = (RR - H_N / N) / (1 - H_N / N)        0 by dice, 1 where the positive comes first

of its training episodes in the last RL step (``H_N / N``, H the harmonic number, is the mean reciprocal rank of a random
order). At ``rise`` or above, the dataset's next episodes begin with one candidate more, below ``fall`` with one fewer: an up-down
staircase (Levitt, Transformed up-down methods in psychoacoustics, 1971), so that what is hard is practised where it can be learned.
And what has come less far is practised more: of a batch, ``1 - focus`` is shared out by the datasets' numbers of tasks, and
``focus`` by those numbers times what is left to learn, ``1 - skill * (N - 1) / (all candidates - 1)``. Where a dataset's tasks
have different numbers of candidates, N and all candidates are means there, and pools grow to the largest.

All rollouts of a task in one RL step begin with the same candidates, so that they can be compared. Whole rankings (DRanker)
shrink likewise. Tests and validation always show all candidates. A dataset that cannot be learned keeps its large share for good;
where there is one, ``focus`` should be low.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping
from itertools import accumulate, count
from random import Random
from statistics import fmean

from iranker_verl.ranking import RankingTask

# The column of a training batch that says with how many candidates an episode begins.
FIRST_POOL = "first_pool"


def skill(rr: float, candidates: float) -> float:
    """How far a mean reciprocal rank over pools of so many ``candidates`` (2 or more) is from chance, 0, to perfect, 1.

    >>> skill(0.75, 2), skill(1.0, 2), round(skill(0.5, 4), 4)
    (0.0, 1.0, -0.0435)
    """
    size = round(candidates)
    chance = sum(1 / rank for rank in range(1, size + 1)) / size
    return (rr - chance) / (1 - chance)


class Curriculum:
    """Which tasks a batch has, and with how many candidates each dataset's episodes begin, by what they have earned so far.

    ``rows`` are the places of each dataset's training tasks, with the number of candidates of each. What it says depends on its
    arguments and the lines observed alone, so that a run that is resumed goes on as it would have.
    """

    def __init__(
        self,
        rows: Mapping[str, Mapping[int, int]],
        *,
        first_pool: int,
        rise: float,
        fall: float,
        focus: float,
        seed: int,
    ) -> None:
        self.rows = rows
        self.full = {dataset: fmean(candidates.values()) for dataset, candidates in rows.items()}
        self.largest = {dataset: max(candidates.values()) for dataset, candidates in rows.items()}
        self.first_pool, self.rise, self.fall, self.focus, self.seed = first_pool, rise, fall, focus, seed
        self.size = dict.fromkeys(rows, first_pool)
        self.left = dict.fromkeys(rows, 1.0)
        self._next = {dataset: self._passes(dataset) for dataset in rows}
        self._random = Random(f"{seed}:batches")

    def observe(self, metrics: Mapping[str, float]) -> None:
        """Learn from a step's ``episode/rr/<dataset>`` and ``episode/candidates/<dataset>``
        (:mod:`iranker_verl.training.metrics_log`); a dataset without episodes stays as it is."""
        for dataset in self.rows:
            rr = metrics.get(f"episode/rr/{dataset}")
            if rr is None:
                continue
            began = metrics[f"episode/candidates/{dataset}"]
            now = skill(rr, began)
            self.left[dataset] = 1 - max(0.0, now) * (began - 1) / (max(began, self.full[dataset]) - 1)
            if now >= self.rise and self.size[dataset] < self.largest[dataset]:
                self.size[dataset] += 1
            elif now < self.fall and self.size[dataset] > self.first_pool:
                self.size[dataset] -= 1

    def shares(self) -> dict[str, float]:
        """Each dataset's share of the next batch; they sum to 1."""
        tasks = {dataset: float(len(rows)) for dataset, rows in self.rows.items()}
        wanted = {dataset: tasks[dataset] * self.left[dataset] for dataset in tasks}
        if not sum(wanted.values()):  # all is learned
            wanted = tasks
        all_tasks, all_wanted = sum(tasks.values()), sum(wanted.values())
        return {
            dataset: (1 - self.focus) * tasks[dataset] / all_tasks + self.focus * wanted[dataset] / all_wanted
            for dataset in tasks
        }

    def draw(self, size: int) -> list[int]:
        """The places of the next ``size`` tasks. Each dataset has its share of them, rounded up or down (systematic sampling),
        and its tasks have their turn in an order of their own, all of them before any a second time."""
        shares, first = self.shares(), self._random.random()
        datasets, ends = list(shares), list(accumulate(shares.values()))[:-1]  # the last one ends at 1
        drawn = (datasets[bisect_right(ends, (first + mark) / size)] for mark in range(size))
        return [next(self._next[dataset]) for dataset in drawn]

    def _passes(self, dataset: str) -> Iterator[int]:
        for number in count():
            order = list(self.rows[dataset])
            Random(f"{self.seed}:{dataset}:{number}").shuffle(order)
            yield from order


def shortened(task: RankingTask, size: int, seed: str) -> RankingTask:
    """The task with ``size`` of its candidates, in its order: a best one, a worse one, and others drawn by ``seed``.

    ``size`` is 2 or more; a task with no more candidates than that is returned as it is.
    """
    if size >= len(task.candidates):
        return task
    random = Random(f"{seed}:{task.id}")
    best = max(task.relevance)
    worse = random.choice([i for i, relevance in enumerate(task.relevance) if relevance < best])
    kept = {task.target, worse}
    others = [i for i in range(len(task.candidates)) if i not in kept]
    kept.update(random.sample(others, size - len(kept)))
    return task.at(sorted(kept))
