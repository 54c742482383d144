"""Popularity: how often users chose an item. Recommendation only.

An item counts once for each training task whose positive it is, and once for each time that it is in a training task's
history (by id). Where tasks have no history ids, it counts for each occurrence of its text in a context instead, which
holds the users' histories as text (whole words only).
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Sequence

from iranker_verl.evaluation.baselines.base import Context, ScoringBaseline
from iranker_verl.ranking import RankingTask


class Popularity(ScoringBaseline):
    """The number of times that users chose an item. Recommendation."""

    name = "popularity"
    scenario = "recommendation"

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._chosen: Counter[tuple[str, str]] = Counter()
        self._histories: dict[str, str] = {}
        self._mentions: dict[tuple[str, str], int] = {}

    def fit(self, train: Sequence[RankingTask]) -> None:
        """Count positives and histories; keep the contexts of tasks without history ids."""
        contexts: dict[str, list[str]] = defaultdict(list)
        self._chosen.clear()
        self._mentions.clear()
        for task in train:
            positives = [c.id for c, r in zip(task.candidates, task.relevance, strict=True) if r > 0]
            self._chosen.update((task.dataset, id) for id in [*positives, *task.history])
            if not task.history:
                contexts[task.dataset].append(task.context)
        self._histories = {dataset: "\n".join(texts) for dataset, texts in contexts.items()}

    def scores(self, tasks: Sequence[RankingTask]) -> list[list[int]]:
        """Return how often each candidate was chosen."""
        return [
            [self._chosen[task.dataset, c.id] + self._mentioned(task.dataset, c.text) for c in task.candidates]
            for task in tasks
        ]

    def _mentioned(self, dataset: str, text: str) -> int:
        key = (dataset, text)
        if key not in self._mentions:
            histories = self._histories.get(dataset, "")
            found = re.finditer(re.escape(text) + r"(?!\w)", histories)
            self._mentions[key] = sum(m.start() == 0 or not histories[m.start() - 1].isalnum() for m in found)
        return self._mentions[key]
