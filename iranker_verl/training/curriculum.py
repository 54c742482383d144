"""A reverse curriculum: training episodes begin near the end of an elimination, and step by step at its beginning.

What one sampled exclusion teaches about the positive shrinks with the pool. For a policy that draws one of N candidates by
dice, with the corrected reward as advantage (``1 / N`` for sparing the one positive, ``-(N - 1) / N`` for excluding it),
the derivative with respect to the positive's logit has mean ``-(N - 1) / N^2``, and ::

    mean^2 / second moment = N (N - 1) / ((N - 1)^3 + 1)        1 at N = 2, .67 at 3, .43 at 4, .12 at 10

so two candidates say in every answer what ten say in one of eight, and their prompt is a fifth as long. A policy that begins at full
pools stands still at chance for tens of steps before it finds what to look at; one that begins at pairs has it
within a few, and what it has learned carries over as pools grow (docs/credit.md has the measurement). The same idea for
goals in place of pools: Florensa et al., Reverse Curriculum Generation for Reinforcement Learning, arXiv 1707.05300.

All rollouts of a task in one RL step begin with the same candidates, so that they can be compared. Single elimination
states and whole rankings (DRanker) shrink likewise. Tests and validation always show all candidates.
"""

from __future__ import annotations

from random import Random

from iranker_verl.ranking import RankingTask


def first_pool(step: int, candidates: int, first: int, steps: int) -> int:
    """How many of a task's ``candidates`` an episode of RL step ``step`` (from 1) begins with: from ``first`` at step 1,
    linearly, to all of them at step ``steps + 1``.

    >>> [first_pool(step, 10, first=2, steps=16) for step in (1, 2, 3, 9, 16, 17, 99)]
    [2, 2, 3, 6, 9, 10, 10]
    """
    return min(candidates, first + max(0, candidates - first) * (step - 1) // steps)


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
