"""Okapi BM25 (``bm25s``) of the candidates' texts, with the context as the query.

A pool of a few candidates says little of how rare a word is, so up to 500 other candidates of the dataset's training
tasks stand beside it for the document frequencies.
"""

from __future__ import annotations

import random
import re
from collections import defaultdict
from collections.abc import Sequence

from iranker_verl.evaluation.baselines.base import Context, Ranking, by_score
from iranker_verl.ranking import RankingTask

BACKGROUND = 500


class Bm25:
    name = "bm25"

    def __init__(self, context: Context) -> None:
        self._seed = context.seed
        self._background: dict[str, list[list[str]]] = {}

    def fit(self, train: Sequence[RankingTask]) -> None:
        texts: dict[str, dict[str, None]] = defaultdict(dict)  # a set that keeps its order
        for task in train:
            texts[task.dataset].update(dict.fromkeys(c.text for c in task.candidates))
        self._background = {}
        for dataset, known in texts.items():
            sample = random.Random(f"{self._seed}/{dataset}").sample(list(known), min(BACKGROUND, len(known)))
            self._background[dataset] = [_words(text) for text in sample]

    def rank(self, tasks: Sequence[RankingTask]) -> list[Ranking | None]:
        return [self._rank(task) for task in tasks]

    def _rank(self, task: RankingTask) -> Ranking:
        import bm25s

        pool = [_words(c.text) for c in task.candidates]
        if not any(pool):
            return by_score(task, [0.0] * len(pool), self._seed)
        index = bm25s.BM25(method="lucene")
        index.index([*pool, *self._background.get(task.dataset, [])], show_progress=False)
        known = [word for word in _words(task.context) if word in index.vocab_dict]
        scores = index.get_scores(known)[: len(pool)] if known else [0.0] * len(pool)
        return by_score(task, [float(s) for s in scores], self._seed)


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.casefold())
