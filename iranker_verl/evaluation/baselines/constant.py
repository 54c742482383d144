"""The constant ranker: the same order for every query. A system that does not beat it has learned nothing of the query.

* Routing: the LLMs by their mean relevance over the training queries that they were tried on: with one positive a query,
  the share of queries that the LLM won; with graded relevance, its score less the query's mean. An LLM without training
  queries gets the mean of the others.
* Passages: by position in the source, where ids are these positions (``0`` to ``N - 1``, as MS MARCO's are); otherwise
  None, because prepared data keeps no other trace of the source order.
* Recommendation: None. :mod:`.popularity` is the constant ranker there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from iranker_verl.evaluation.baselines.base import Ranking
from iranker_verl.evaluation.baselines.router_outcomes import Outcomes, Router, Scorer, with_newcomers
from iranker_verl.ranking import RankingTask


class Constant(Router):
    """Rank without reading the query. Routing, and passages whose ids are positions."""

    name = "constant"

    def _learn(self, dataset: str, known: Outcomes) -> Scorer:
        average = np.nanmean(known.relevance, axis=0, keepdims=True)

        def scores(queries: Sequence[str], newcomers: Mapping[str, str]) -> np.ndarray:
            return with_newcomers(average.repeat(len(queries), axis=0), newcomers)

        return scores

    def rank(self, tasks: Sequence[RankingTask]) -> list[Ranking | None]:
        """Rank the tasks of routing datasets with training tasks, and passages by their positions."""
        routed = super().rank(tasks)
        return [_by_position(t) if t.scenario == "passage" else r for t, r in zip(tasks, routed, strict=True)]


def _by_position(task: RankingTask) -> Ranking | None:
    positions = [str(i) for i in range(len(task.candidates))]
    return positions if {c.id for c in task.candidates} == {*positions} else None
