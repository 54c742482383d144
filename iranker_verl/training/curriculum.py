"""A reverse curriculum: training episodes begin near the end of an elimination, and then ever nearer to its beginning.

What one sampled exclusion teaches about the positive shrinks with the pool. For a policy that draws one of N candidates uniformly
at random, with the corrected reward as advantage (``1 / N`` for keeping the one positive, ``-(N - 1) / N`` for excluding
it), the derivative with respect to the positive's logit has mean ``-(N - 1) / N^2``, and ::

    mean^2 / second moment = N (N - 1) / ((N - 1)^3 + 1)        1 at N = 2, .67 at 3, .43 at 4, .12 at 10

so with two candidates every response tells as much as one of eight does with ten, and their prompt is a fifth as long. A policy
that begins with full pools stays near random for tens of steps before it finds a signal; one that begins with pairs has it
within a few, and what it has learned transfers as pools grow (docs/credit.md has the measurement). The same idea for goals in
place of pools: Florensa et al., Reverse Curriculum Generation for Reinforcement Learning, arXiv 1707.05300.

The **skill** of a dataset at a pool of N candidates decides the size of its pools ::

    skill = (RR - H_N / N) / (1 - H_N / N)        0 for a random order, 1 where the positive comes first

with the reciprocal rank RR of its last training episodes, of ``JUDGED`` tasks or more (``H_N / N``, H the harmonic number, is the
mean RR of a random order). At ``rise`` or above, the dataset's next episodes begin with one candidate more, below ``fall`` with one
fewer: an up-down staircase (Levitt, Transformed up-down methods in psychoacoustics, 1971). They also begin with one more for every
``patience`` tasks that the dataset has had, whatever its skill, since noisy data may never earn it.

Episodes are sampled, and what is wanted is a good greedy policy. At the optimum of ``log J`` a policy is as sure as the data
allow: where the better of two can be told with probability b, it takes it with probability b, so the skill of its samples is
``(2 b - 1)^2``, and greedily it has ``2 b - 1``. So the default ``rise`` of .25 asks for a greedy skill of .5, which b = .75 has.

A dataset with less skill also gets more tasks: of a batch, ``1 - focus`` is shared out by the datasets' numbers of tasks, and
``focus`` by those numbers times what is left to learn, ``1 - skill * (N - 1) / (all candidates - 1)``; but none gets more than
``MOST`` times its share of the tasks, so that what cannot be learned does not take the batch. Where a dataset's tasks have
different numbers of candidates, N and all candidates are means, and pools grow to the largest.

All rollouts of a task in one RL step begin with the same candidates, so that they can be compared. Whole rankings (DRanker) are
shortened likewise. Tests and validation always have all candidates.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from itertools import accumulate, count
from random import Random
from statistics import fmean
from typing import Any

import pyarrow.compute as pc

from iranker_verl.ranking import RankingTask

# Tasks whose episodes are judged together, at least.
JUDGED = 8
# The largest share of a batch that a dataset gets, in terms of its share of the tasks.
MOST = 2.0
# The column of a training batch that says with how many candidates an episode begins.
FIRST_POOL = "first_pool"
# Rows whose texts are in memory at once, where their candidates are counted.
BLOCK = 10_000


def skill(rr: float, candidates: float) -> float:
    """Return how far a mean reciprocal rank over pools of ``candidates`` (2 or more) is from random, 0, to perfect, 1.

    >>> skill(0.75, 2), skill(1.0, 2), round(skill(0.5, 4), 4)
    (0.0, 1.0, -0.0435)
    """
    size = round(candidates)
    chance = sum(1 / rank for rank in range(1, size + 1)) / size
    return (rr - chance) / (1 - chance)


def pool_sizes(dataset: Any) -> dict[str, dict[int, int]]:
    """Return, by dataset, the row indices of its training tasks and the number of candidates of each.

    ``dataset`` is the Hugging Face data set of prepared rows (:mod:`data_prep.schema`) that verl's ``RLHFDataset`` holds.
    """
    columns = dataset.select_columns(["data_source", "reward_model"]).with_format("arrow")
    sizes: dict[str, dict[int, int]] = defaultdict(dict)
    index = count()
    for table in columns.iter(BLOCK):  # all texts of a million tasks at once would be gigabytes
        candidates = pc.list_value_length(pc.struct_field(table["reward_model"], ["ground_truth", "candidates"]))
        for source, size in zip(table["data_source"].to_pylist(), candidates.to_pylist(), strict=True):
            sizes[source][next(index)] = size
    return dict(sizes)


class Curriculum:
    """Choose the tasks of a batch, and how many candidates each dataset's episodes begin with.

    ``rows`` are :func:`pool_sizes`. The choice depends on the arguments and the metrics observed alone, so a resumed run
    continues as the interrupted one would have.
    """

    def __init__(
        self,
        rows: Mapping[str, Mapping[int, int]],
        *,
        first_pool: int,
        rise: float,
        fall: float,
        patience: int | None,
        focus: float,
        seed: int,
    ) -> None:
        """Begin at ``first_pool`` candidates; the options are those of ``iranker.curriculum``."""
        self.rows = rows
        self.full = {dataset: fmean(candidates.values()) for dataset, candidates in rows.items()}
        self.largest = {dataset: max(candidates.values()) for dataset, candidates in rows.items()}
        self.first_pool, self.rise, self.fall, self.focus, self.seed = first_pool, rise, fall, focus, seed
        self.patience = patience
        self.size = dict.fromkeys(rows, first_pool)
        self.left = dict.fromkeys(rows, 1.0)
        self._tasks = dict.fromkeys(rows, 0.0)  # so far
        self._unjudged: dict[str, list[tuple[float, float, float]]] = {dataset: [] for dataset in rows}
        self._next = {dataset: self._passes(dataset) for dataset in rows}
        self._random = Random(f"{seed}:batches")

    def replay(self, lines: Iterable[Mapping[str, Any]], batch_size: int) -> None:
        """Draw and observe as the steps of ``lines``, those of ``metrics.jsonl``, did."""
        for line in lines:
            self.draw(batch_size)
            self.observe(line)

    def observe(self, metrics: Mapping[str, float]) -> None:
        """Update pool sizes and shares by a step's ``episode/rr/<dataset>``, ``/candidates/`` and ``/tasks/``.

        See :mod:`iranker_verl.training.metrics_log`. A dataset without episodes stays as it is, and so does one with fewer than
        ``JUDGED`` tasks since it was last judged.
        """
        for dataset in self.rows:
            rr = metrics.get(f"episode/rr/{dataset}")
            if rr is None:
                continue
            tasks = metrics.get(f"episode/tasks/{dataset}", JUDGED)  # of a run of before: judged at once, as it was
            self._tasks[dataset] += tasks
            unjudged = self._unjudged[dataset]
            unjudged.append((tasks, rr, metrics[f"episode/candidates/{dataset}"]))
            if (judged := sum(count for count, _, _ in unjudged)) >= JUDGED:
                rr, began = (sum(one[0] * one[i] for one in unjudged) / judged for i in (1, 2))
                self._judge(dataset, skill(rr, began), began)
                unjudged.clear()

    def _judge(self, dataset: str, now: float, began: float) -> None:
        """Update a dataset of a skill that it had in pools of ``began`` candidates, on average."""
        self.left[dataset] = 1 - max(0.0, now) * (began - 1) / (max(began, self.full[dataset]) - 1)
        size = self.size[dataset] + (1 if now >= self.rise else -1 if now < self.fall else 0)
        least = self.first_pool + (int(self._tasks[dataset] // self.patience) if self.patience else 0)
        self.size[dataset] = min(max(size, least), max(self.largest[dataset], self.first_pool))

    def shares(self) -> dict[str, float]:
        """Return each dataset's share of the next batch; they sum to 1."""
        tasks = {dataset: float(len(rows)) for dataset, rows in self.rows.items()}
        wanted = {dataset: tasks[dataset] * self.left[dataset] for dataset in tasks}
        if not sum(wanted.values()):  # all is learned
            wanted = tasks
        all_tasks, all_wanted = sum(tasks.values()), sum(wanted.values())
        fair = {dataset: tasks[dataset] / all_tasks for dataset in tasks}
        share = {d: (1 - self.focus) * fair[d] + self.focus * wanted[d] / all_wanted for d in tasks}
        capped: set[str] = set()
        while over := {d for d in tasks if d not in capped and share[d] > MOST * fair[d] + 1e-12}:
            capped |= over
            share |= {d: MOST * fair[d] for d in over}
            others = [d for d in tasks if d not in capped]
            spare = (1 - sum(share.values())) / sum(fair[d] for d in others)
            share |= {d: share[d] + spare * fair[d] for d in others}  # what is cut off, by their numbers of tasks
        return share

    def draw(self, size: int) -> list[int]:
        """Return the row indices of the next ``size`` tasks.

        Each dataset has its share of them, rounded up or down (systematic sampling). Its tasks are drawn without replacement,
        in a random order, until all are drawn.
        """
        shares, first = self.shares(), self._random.random()
        datasets, ends = list(shares), list(accumulate(shares.values()))[:-1]  # the last one ends at 1
        drawn = (datasets[bisect_right(ends, (first + number) / size)] for number in range(size))
        return [next(self._next[dataset]) for dataset in drawn]

    def _passes(self, dataset: str) -> Iterator[int]:
        for number in count():
            order = list(self.rows[dataset])
            Random(f"{self.seed}:{dataset}:{number}").shuffle(order)
            yield from order


def shortened(task: RankingTask, size: int, seed: str) -> RankingTask:
    """Return the task with ``size`` of its candidates, in its order: the best, a worse one, and others drawn by ``seed``.

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
