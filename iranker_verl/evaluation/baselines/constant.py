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

from iranker_verl.evaluation.baselines.router_outcomes import Outcomes, Router, Scorer, with_newcomers
from iranker_verl.ranking import RankingTask


class Constant(Router):
    """Rank without reading the query. Routing, and passages whose ids are positions."""

    name = "constant"

    def learn(self, dataset: str, known: Outcomes) -> Scorer:
        """Return what scores every query by the LLMs' mean relevance."""
        average = np.nanmean(known.relevance, axis=0, keepdims=True)

        def scores(queries: Sequence[str], newcomers: Mapping[str, str]) -> np.ndarray:
            return with_newcomers(average.repeat(len(queries), axis=0), newcomers)

        return scores

    def applies(self, task: RankingTask) -> bool:
        """Return whether the task is of a routing dataset with training tasks, or of passages whose ids are positions."""
        positions = {str(i) for i in range(len(task.candidates))}
        return super().applies(task) or (task.scenario == "passage" and {c.id for c in task.candidates} == positions)

    def scores(self, tasks: Sequence[RankingTask]) -> list[list[float]]:
        """Return the means of LLMs, and of passages the position, the first one highest."""
        routed = iter(super().scores([task for task in tasks if task.scenario == "routing"]))
        return [
            [-float(c.id) for c in task.candidates] if task.scenario == "passage" else next(routed) for task in tasks
        ]
