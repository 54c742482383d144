"""A seeded shuffle: what knowing nothing gives."""

from __future__ import annotations

from collections.abc import Sequence

from iranker_verl.evaluation.baselines.base import Context, Ranking, shuffled
from iranker_verl.ranking import RankingTask


class RandomOrder:
    name = "random"

    def __init__(self, context: Context) -> None:
        self._seed = context.seed

    def fit(self, train: Sequence[RankingTask]) -> None:
        """Nothing to learn."""

    def rank(self, tasks: Sequence[RankingTask]) -> list[Ranking | None]:
        return [[task.candidates[i].id for i in shuffled(task, self._seed)] for task in tasks]
