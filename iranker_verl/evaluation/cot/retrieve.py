"""Which thoughts of a store are of contexts like a task's, within its scenario: by words (BM25) or by meaning (embeddings).

Both are deterministic. Equal similarity goes by the store's order.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from iranker_verl.errors import UserError
from iranker_verl.evaluation.cot.store import Store
from iranker_verl.ranking import RankingTask

if TYPE_CHECKING:
    import numpy as np

# Texts to an array (texts, dimensions).
Encode = Callable[[Sequence[str]], "np.ndarray"]


class Retriever(Protocol):
    """``nearest`` gives places in the store's thoughts, the most similar first: ``k``, or fewer where no more are similar.
    ``name`` says how it is done, and goes into a thought template's hash."""

    store: Store

    @property
    def name(self) -> str: ...

    def nearest(self, task: RankingTask, k: int) -> list[int]: ...


class Bm25:
    """Okapi BM25 (``bm25s``) of the contexts. A thought whose context shares no word with the task's is not similar."""

    name = "bm25"

    def __init__(self, store: Store) -> None:
        import bm25s

        self.store = store
        self._places = _by_scenario(store)
        self._indexes: dict[str, Any] = {}
        for scenario, places in self._places.items():
            texts = [_words(store.thoughts[place].context) for place in places]
            if any(texts):
                self._indexes[scenario] = bm25s.BM25(method="lucene")
                self._indexes[scenario].index(texts, show_progress=False)

    def nearest(self, task: RankingTask, k: int) -> list[int]:
        index = self._indexes.get(task.scenario)
        known = [word for word in _words(task.context) if word in index.vocab_dict] if index is not None else []
        if index is None or not known:
            return []
        scores = index.get_scores(known)
        return _best([float(s) for s in scores], self._places[task.scenario], k, least=0.0)


class Embeddings:
    """The cosine of the contexts' embeddings. ``encode`` is :func:`encoder`'s, or any other; ``model`` names it."""

    def __init__(self, store: Store, encode: Encode, model: str) -> None:
        self.store = store
        self.name = f"embeddings:{model}"
        self._encode = encode
        self._places = _by_scenario(store)
        self._vectors = {
            scenario: self._unit([store.thoughts[place].context for place in places])
            for scenario, places in self._places.items()
        }

    def nearest(self, task: RankingTask, k: int) -> list[int]:
        if task.scenario not in self._places:
            return []
        cosines = self._vectors[task.scenario] @ self._unit([task.context])[0]
        return _best(cosines.tolist(), self._places[task.scenario], k)

    def _unit(self, texts: Sequence[str]) -> np.ndarray:
        import numpy as np

        vectors = np.asarray(self._encode(texts), dtype=np.float64)
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        return vectors / np.where(lengths > 0, lengths, 1.0)


def encoder(model: str, device: str = "cpu") -> Encode:
    """A sentence-transformers model by folder or name. UserError where it, or the library, cannot be loaded."""
    from iranker_verl.evaluation.baselines import Context, Unavailable
    from iranker_verl.evaluation.baselines.loading import sentence_encoder

    try:
        loaded = sentence_encoder(Context(models={"thoughts": model}, device=device), "thoughts")
    except Unavailable as reason:
        raise UserError(str(reason)) from reason
    return lambda texts: loaded.encode(list(texts), convert_to_numpy=True, show_progress_bar=False)


def _by_scenario(store: Store) -> dict[str, list[int]]:
    places: dict[str, list[int]] = defaultdict(list)
    for place, thought in enumerate(store.thoughts):
        places[thought.scenario].append(place)
    return dict(places)


def _best(scores: Sequence[float], places: Sequence[int], k: int, least: float | None = None) -> list[int]:
    """The ``k`` of ``places`` with the highest scores, above ``least``. Rounded: the last bits are the processor's."""
    rounded = [round(score, 5) for score in scores]
    good = [i for i in range(len(places)) if least is None or rounded[i] > least]
    return [places[i] for i in sorted(good, key=lambda i: -rounded[i])[:k]]


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.casefold())
