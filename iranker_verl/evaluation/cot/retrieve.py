"""Retrieval of the reasoning traces whose contexts are similar to a task's, within its scenario: by BM25 or embeddings.

Both are deterministic. Equal similarities are ordered as in the store.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from iranker_verl.errors import UserError
from iranker_verl.evaluation.baselines.bm25 import Bm25Index
from iranker_verl.evaluation.cot.store import Store
from iranker_verl.ranking import RankingTask

if TYPE_CHECKING:
    import numpy as np

Encode = Callable[[Sequence[str]], "np.ndarray"]  # texts to an array of shape (texts, dimensions)


class Retriever(ABC):
    """What finds the traces of a store that are most similar to a task; ``name`` identifies it in a few-shot template's hash."""

    name: str
    least = float("-inf")  # a similarity has to be above

    def __init__(self, store: Store) -> None:
        self.store = store
        self._indices: dict[str, list[int]] = defaultdict(list)  # of traces, by scenario
        for index, trace in enumerate(store.traces):
            self._indices[trace.scenario].append(index)

    def contexts(self) -> dict[str, list[str]]:
        """Return the traces' contexts by scenario."""
        return {scenario: [self.store.traces[i].context for i in own] for scenario, own in self._indices.items()}

    @abstractmethod
    def similarities(self, scenario: str, context: str) -> Sequence[float]:
        """Return how similar the contexts of the scenario's traces are to this one."""

    def nearest(self, task: RankingTask, k: int) -> list[int]:
        """Return indices of the store's traces, the most similar first: ``k``, or fewer where no more are similar."""
        if not (indices := self._indices.get(task.scenario)):
            return []
        found = zip(indices, self.similarities(task.scenario, task.context), strict=True)
        rounded = [
            (index, round(similarity, 5)) for index, similarity in found
        ]  # the last bits depend on the processor
        rounded.sort(key=lambda pair: -pair[1])
        return [index for index, similarity in rounded if similarity > self.least][:k]


class Bm25Retriever(Retriever):
    """Okapi BM25 of the contexts. A trace whose context shares no word with the task's is not similar."""

    name = "bm25"
    least = 0.0

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self._indexes = {scenario: Bm25Index(contexts) for scenario, contexts in self.contexts().items()}

    def similarities(self, scenario: str, context: str) -> Sequence[float]:
        """Return the scores of BM25."""
        return self._indexes[scenario].scores(context)


class EmbeddingRetriever(Retriever):
    """The cosine of the contexts' embeddings. ``model`` names what ``encode`` is."""

    def __init__(self, store: Store, encode: Encode, model: str) -> None:
        super().__init__(store)
        self.name = f"embeddings:{model}"
        self._encode = encode
        self._vectors = {scenario: self._unit(contexts) for scenario, contexts in self.contexts().items()}

    def similarities(self, scenario: str, context: str) -> Sequence[float]:
        """Return the cosines."""
        cosines: list[float] = (self._vectors[scenario] @ self._unit([context])[0]).tolist()
        return cosines

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
