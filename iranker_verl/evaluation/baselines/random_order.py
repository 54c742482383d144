"""A seeded shuffle, uniformly at random: the lower bound of every comparison."""

from __future__ import annotations

from collections.abc import Sequence

from iranker_verl.evaluation.baselines.base import Context, Ranking, seeded_order
from iranker_verl.ranking import RankingTask


class RandomOrder:
    """Uniformly random rankings. All scenarios."""

    name = "random"

    def __init__(self, context: Context) -> None:
        self._seed = context.seed

    def fit(self, train: Sequence[RankingTask]) -> None:
        """Do nothing."""

    def rank(self, tasks: Sequence[RankingTask]) -> list[Ranking | None]:
        """Shuffle every task's candidates."""
        return [[task.candidates[i].id for i in seeded_order(task, self._seed)] for task in tasks]
