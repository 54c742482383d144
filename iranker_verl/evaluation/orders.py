"""Show the same tasks in other orders of their candidates, to measure how far a ranking depends on the order shown.

Order 0 is the prepared one. Order k ≥ 1 is a permutation drawn from the seed, k and the task.

**Position bias.** For one ranking of N candidates let d be the difference, for each candidate, between the position at which it
was shown and the rank that it got. Spearman's rank correlation of the two is

    ρ = 1 − 6 Σ d² / (N (N² − 1)).

The position bias is the mean ρ over all tasks and orders. A ranking that does not depend on the order shown has an expected ρ
of 0, as the orders are drawn at random; 1 repeats the order shown, −1 turns it round. Without any bias, the mean over n
rankings of N candidates strays around 0 with a standard deviation of 1 / √(n (N − 1)).
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from iranker_verl.ranking import RankingTask


def in_order(task: RankingTask, order: int, seed: int) -> RankingTask:
    """Return the task with its candidates, and their relevances, in this order."""
    if order == 0:
        return task
    positions = list(range(len(task.candidates)))
    random.Random(f"{seed}/{order}/{task.dataset}/{task.id}").shuffle(positions)
    return task.at(positions)


def correlation(shown: Sequence[str], ranking: Sequence[str]) -> float:
    """Return Spearman's ρ between the order shown and a ranking of the same two or more ids; see above."""
    position, n = {id: i for i, id in enumerate(shown)}, len(shown)
    return 1 - 6 * sum((position[id] - rank) ** 2 for rank, id in enumerate(ranking)) / (n * (n * n - 1))
