"""What the trained model has to beat: rankers without a language model.

``random``
    a seeded shuffle: what knowing nothing gives.
``popularity``
    recommendation only: how often users chose an item. It counts once for each training task whose positive it is (by
    id), and once for each time that its text stands in a training task's context (the users' histories are texts by
    then; a text is found whole, not within a longer word).
``bm25``
    Okapi BM25 (``bm25s``) of the candidates' texts, with the context as the query. A pool of a few candidates says
    little of how rare a word is, so up to 500 other candidates of the dataset's training tasks stand beside it for the
    document frequencies.

Ties are broken by a seeded shuffle and never by the order shown, which would leak it. Everything is counted within a
dataset, as ids of two datasets have nothing to do with each other.
"""

from __future__ import annotations

import random
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Protocol

from iranker_verl.ranking import RankingTask

BACKGROUND = 500


class Rival(Protocol):
    """``fit`` sees training tasks only; ``rank`` gives ids, best first, or None where the method does not apply."""

    @property
    def name(self) -> str: ...

    def fit(self, train_tasks: Sequence[RankingTask]) -> None: ...

    def rank(self, task: RankingTask) -> list[str] | None: ...


def standard_rivals(seed: int = 0) -> list[Rival]:
    """The rivals of every report: random, popularity and BM25."""
    return [Random(seed), Popularity(seed), Bm25(seed)]


def _shuffled(task: RankingTask, seed: int) -> list[int]:
    order = list(range(len(task.candidates)))
    random.Random(f"{seed}/{task.dataset}/{task.id}").shuffle(order)
    return order


def _by_score(task: RankingTask, scores: Sequence[float], seed: int) -> list[str]:
    # sorted() is stable: among equal scores the shuffle's order stays.
    order = sorted(_shuffled(task, seed), key=lambda i: -round(scores[i], 6))
    return [task.candidates[i].id for i in order]


class Random:
    name = "random"

    def __init__(self, seed: int = 0) -> None:
        self._seed = seed

    def fit(self, train_tasks: Sequence[RankingTask]) -> None:
        """Nothing to learn."""

    def rank(self, task: RankingTask) -> list[str]:
        return [task.candidates[i].id for i in _shuffled(task, self._seed)]


class Popularity:
    name = "popularity"

    def __init__(self, seed: int = 0) -> None:
        self._seed = seed
        self._chosen: Counter[tuple[str, str]] = Counter()
        self._histories: dict[str, str] = {}
        self._mentions: dict[tuple[str, str], int] = {}

    def fit(self, train_tasks: Sequence[RankingTask]) -> None:
        contexts: dict[str, list[str]] = defaultdict(list)
        self._chosen.clear()
        self._mentions.clear()
        for task in train_tasks:
            contexts[task.dataset].append(task.context)
            self._chosen.update(
                (task.dataset, c.id) for c, r in zip(task.candidates, task.relevance, strict=True) if r > 0
            )
        self._histories = {dataset: "\n".join(texts) for dataset, texts in contexts.items()}

    def rank(self, task: RankingTask) -> list[str] | None:
        if task.scenario != "recommendation":
            return None
        scores = [self._chosen[task.dataset, c.id] + self._mentioned(task.dataset, c.text) for c in task.candidates]
        return _by_score(task, scores, self._seed)

    def _mentioned(self, dataset: str, text: str) -> int:
        key = (dataset, text)
        if key not in self._mentions:
            histories = self._histories.get(dataset, "")
            found = re.finditer(re.escape(text) + r"(?!\w)", histories)
            self._mentions[key] = sum(m.start() == 0 or not histories[m.start() - 1].isalnum() for m in found)
        return self._mentions[key]


class Bm25:
    name = "bm25"

    def __init__(self, seed: int = 0) -> None:
        self._seed = seed
        self._background: dict[str, list[list[str]]] = {}

    def fit(self, train_tasks: Sequence[RankingTask]) -> None:
        texts: dict[str, dict[str, None]] = defaultdict(dict)  # a set that keeps its order
        for task in train_tasks:
            texts[task.dataset].update(dict.fromkeys(c.text for c in task.candidates))
        self._background = {}
        for dataset, known in texts.items():
            sample = random.Random(f"{self._seed}/{dataset}").sample(list(known), min(BACKGROUND, len(known)))
            self._background[dataset] = [_words(text) for text in sample]

    def rank(self, task: RankingTask) -> list[str]:
        import bm25s

        pool = [_words(c.text) for c in task.candidates]
        if not any(pool):
            return _by_score(task, [0.0] * len(pool), self._seed)
        index = bm25s.BM25(method="lucene")
        index.index([*pool, *self._background.get(task.dataset, [])], show_progress=False)
        known = [word for word in _words(task.context) if word in index.vocab_dict]
        scores = index.get_scores(known)[: len(pool)] if known else [0.0] * len(pool)
        return _by_score(task, [float(s) for s in scores], self._seed)


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.casefold())
