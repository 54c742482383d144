"""RouterKNN (Hu et al., RouterBench, arXiv 2403.12031): an LLM's score is its outcome on the most similar training queries.

A score is the mean relevance over the ``NEIGHBOURS`` queries with the largest cosine similarity, and over one more that is
the average of all training queries, which orders LLMs that tie on the neighbours. With one positive a relevance is a vote. Queries are compared by TF-IDF, or by the sentence encoder that ``context.models["router-knn"]`` names. An LLM
without training queries gets the mean score of the others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from iranker_verl.evaluation.baselines.router_outcomes import Outcomes, Router, Scorer, with_newcomers
from iranker_verl.evaluation.baselines.text_features import Vectors, load_encoder, tfidf
from iranker_verl.ranking import RankingTask

NEIGHBOURS = 40  # chosen on a part of the training queries of GraphRouter's data


class RouterKnn(Router):
    """k nearest training queries. Routing."""

    name = "router-knn"
    settings: int = NEIGHBOURS
    _encoder: Vectors | None = None

    def fit(self, train: Sequence[RankingTask]) -> None:
        """Load the encoder, if one is named, and index each dataset's queries."""
        self._encoder = load_encoder(self.context, self.name)
        super().fit(train)

    def learn(self, dataset: str, known: Outcomes) -> Scorer:
        """Return what scores queries by the training queries that are most similar."""
        vectors = self._encoder or tfidf(known.queries, self.name)
        from sklearn.neighbors import NearestNeighbors

        count = min(self.settings, len(known.queries))
        index = NearestNeighbors(n_neighbors=count, metric="cosine", algorithm="brute").fit(vectors(known.queries))
        shown = ~np.isnan(known.relevance)
        relevance = np.where(shown, known.relevance, 0.0)
        average = relevance.sum(axis=0) / shown.sum(axis=0)

        def scores(queries: Sequence[str], newcomers: Mapping[str, str]) -> np.ndarray:
            near = index.kneighbors(vectors(queries), return_distance=False)
            means = (relevance[near].sum(axis=1) + average) / (shown[near].sum(axis=1) + 1)
            return with_newcomers(means, newcomers)

        return scores
