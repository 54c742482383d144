"""Okapi BM25 (``bm25s``) of the candidates' texts, with the context as the query.

A pool of a few candidates says little about how rare a word is, so the document frequencies also count up to 500 other
candidates of the dataset's training tasks.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Sequence

from data_prep.duplicates import split_words
from iranker_verl.evaluation.baselines.base import Context, ScoringBaseline
from iranker_verl.ranking import RankingTask

BACKGROUND = 500


class Bm25Index:
    """BM25 scores of texts for a query."""

    def __init__(self, texts: Sequence[str], background: Sequence[list[str]] = ()) -> None:
        """Index ``texts``; ``background`` holds the words of other texts that count for the document frequencies."""
        import bm25s

        self._count = len(texts)
        words = [split_words(text) for text in texts]
        self._index = bm25s.BM25(method="lucene") if any(words) else None
        if self._index is not None:
            self._index.index([*words, *background], show_progress=False)

    def scores(self, query: str) -> list[float]:
        """Return one score a text, 0 where no word of the query is known."""
        index = self._index
        if index is None or not (known := [word for word in split_words(query) if word in index.vocab_dict]):
            return [0.0] * self._count
        return [float(s) for s in index.get_scores(known)[: self._count]]


class Bm25(ScoringBaseline):
    """BM25 of the candidates' texts. All scenarios."""

    name = "bm25"

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._background: dict[str, list[list[str]]] = {}

    def fit(self, train: Sequence[RankingTask]) -> None:
        """Sample the background of each dataset."""
        texts: dict[str, dict[str, None]] = defaultdict(dict)  # a set that keeps its order
        for task in train:
            texts[task.dataset].update(dict.fromkeys(c.text for c in task.candidates))
        self._background = {}
        for dataset, known in texts.items():
            sample = random.Random(f"{self.context.seed}/{dataset}").sample(list(known), min(BACKGROUND, len(known)))
            self._background[dataset] = [split_words(text) for text in sample]

    def scores(self, tasks: Sequence[RankingTask]) -> list[list[float]]:
        """Return the candidates' scores for the context."""
        return [
            Bm25Index([c.text for c in t.candidates], self._background.get(t.dataset, [])).scores(t.context)
            for t in tasks
        ]
