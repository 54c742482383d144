"""A seeded shuffle, uniformly at random: the lower bound of every comparison."""

from __future__ import annotations

from collections.abc import Sequence

from iranker_verl.evaluation.baselines.base import ScoringBaseline
from iranker_verl.ranking import RankingTask


class RandomOrder(ScoringBaseline):
    """Uniformly random rankings. All scenarios."""

    name = "random"

    def fit(self, train: Sequence[RankingTask]) -> None:
        """Do nothing."""

    def scores(self, tasks: Sequence[RankingTask]) -> list[list[float]]:
        """Return equal scores, whose ties are shuffled."""
        return [[0.0] * len(task.candidates) for task in tasks]
