"""Retrieval of the reasoning traces whose contexts are similar to a task's, within its scenario: by BM25 or embeddings.

Both are deterministic. Equal similarities are ordered as in the store.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

from iranker_verl.errors import UserError
from iranker_verl.evaluation.baselines.bm25 import Bm25Index
from iranker_verl.evaluation.cot.store import Store
from iranker_verl.ranking import RankingTask

if TYPE_CHECKING:
    import numpy as np

Encode = Callable[[Sequence[str]], "np.ndarray"]  # texts to an array of shape (texts, dimensions)


class Retriever(Protocol):
    """What finds the traces that are most similar to a task."""

    store: Store

    @property
    def name(self) -> str:
        """What identifies the method in the hash of a few-shot template."""

    def nearest(self, task: RankingTask, k: int) -> list[int]:
        """Return indices of the store's traces, the most similar first: ``k``, or fewer where no more are similar."""


class Bm25Retriever:
    """Okapi BM25 of the contexts. A trace whose context shares no word with the task's is not similar."""

    name = "bm25"

    def __init__(self, store: Store) -> None:
        self.store = store
        self._indices = _by_scenario(store)
        self._indexes = {
            scenario: Bm25Index([store.traces[i].context for i in indices])
            for scenario, indices in self._indices.items()
        }

    def nearest(self, task: RankingTask, k: int) -> list[int]:
        """Return the indices of up to ``k`` traces with a score above 0."""
        if task.scenario not in self._indices:
            return []
        scores = self._indexes[task.scenario].scores(task.context)
        return _best(scores, self._indices[task.scenario], k, above=0.0)


class EmbeddingRetriever:
    """The cosine of the contexts' embeddings. ``model`` names what ``encode`` is."""

    def __init__(self, store: Store, encode: Encode, model: str) -> None:
        self.store = store
        self.name = f"embeddings:{model}"
        self._encode = encode
        self._indices = _by_scenario(store)
        self._vectors = {
            scenario: self._unit([store.traces[i].context for i in indices])
            for scenario, indices in self._indices.items()
        }

    def nearest(self, task: RankingTask, k: int) -> list[int]:
        """Return the indices of the ``k`` traces of the task's scenario with the highest cosine."""
        if task.scenario not in self._indices:
            return []
        cosines = self._vectors[task.scenario] @ self._unit([task.context])[0]
        return _best(cosines.tolist(), self._indices[task.scenario], k)

    def _unit(self, texts: Sequence[str]) -> np.ndarray:
        import numpy as np

        vectors = np.asarray(self._encode(texts), dtype=np.float64)
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        return vectors / np.where(lengths > 0, lengths, 1.0)


def load_encoder(model: str, device: str = "cpu") -> Encode:
    """Load a sentence-transformers model by folder or name. Raise UserError where it, or the library, cannot be loaded."""
    from iranker_verl.evaluation.baselines import Context, Unavailable
    from iranker_verl.evaluation.baselines.loading import load_sentence_encoder

    try:
        loaded = load_sentence_encoder(Context(models={"retriever": model}, device=device), "retriever")
    except Unavailable as reason:
        raise UserError(str(reason)) from reason
    return lambda texts: loaded.encode(list(texts), convert_to_numpy=True, show_progress_bar=False)


def _by_scenario(store: Store) -> dict[str, list[int]]:
    indices: dict[str, list[int]] = defaultdict(list)
    for index, trace in enumerate(store.traces):
        indices[trace.scenario].append(index)
    return dict(indices)


def _best(scores: Sequence[float], indices: Sequence[int], k: int, above: float = float("-inf")) -> list[int]:
    """Return the ``k`` of ``indices`` with the highest scores. Rounded, because the last bits depend on the processor."""
    rounded = [(round(score, 5), index) for score, index in zip(scores, indices, strict=True)]
    return [index for score, index in sorted(rounded, key=lambda pair: -pair[0]) if score > above][:k]
