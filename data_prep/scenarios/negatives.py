"""Negatives of recommendation tasks: items that the user never touched, for many users at once.

Every draw is a hash of the user's key and the number of the draw, so what one user gets depends on no other user.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pyarrow as pa

from data_prep.hashing import below, draws, mix, unit
from data_prep.options import Options

# (users, their keys, their histories, what was seen) -> items of shape (users, candidates - 1)
Draw = Callable[[np.ndarray, np.ndarray, np.ndarray, "Seen"], np.ndarray]
ROUNDS = 4
BM25_DEPTH = 200  # hits looked at for hard negatives; what is missing then is drawn uniformly


class Seen:
    """Which user has touched which item. ``starts``, ``ends`` and ``items`` are those of a ``Sequences``."""

    def __init__(self, starts: np.ndarray, ends: np.ndarray, items: np.ndarray, catalogue: int) -> None:
        length = ends - starts
        user = np.repeat(np.arange(len(starts)), length)
        within = np.arange(len(user)) - np.repeat(np.cumsum(length) - length, length)
        self.pairs = np.sort(user * catalogue + items[np.repeat(starts, length) + within])
        self.catalogue = catalogue

    def __call__(self, users: np.ndarray, items: np.ndarray) -> np.ndarray:
        """Return, for each of ``items`` of shape (users, draws), whether the user has touched it; bool of that shape."""
        wanted = users[:, None] * self.catalogue + items
        place = np.minimum(np.searchsorted(self.pairs, wanted), max(len(self.pairs) - 1, 0))
        return self.pairs[place] == wanted if len(self.pairs) else np.zeros(items.shape, bool)


def sampler(options: Options, texts: pa.Array, popularity: np.ndarray) -> Draw:
    """Return the drawing that ``options.negatives`` names."""
    wanted = options.candidates - 1
    if options.negatives == "popularity":
        ladder = np.cumsum(popularity) / max(popularity.sum(), 1)

        def item(values: np.ndarray) -> np.ndarray:
            return np.minimum(np.searchsorted(ladder, unit(values), side="right"), len(ladder) - 1)
    else:

        def item(values: np.ndarray) -> np.ndarray:
            return below(values, len(texts))

    def draw(users: np.ndarray, key: np.ndarray, history: np.ndarray, seen: Seen) -> np.ndarray:
        return rejection(users, key, wanted, seen, item)

    if options.negatives != "bm25":
        return draw
    search = _bm25(texts, options.history)

    def hard(users: np.ndarray, key: np.ndarray, history: np.ndarray, seen: Seen) -> np.ndarray:
        first = search(history)
        return _first_new(users, np.concatenate([first, draw(users, key, history, seen)], axis=1), wanted, seen)

    return hard


def rejection(
    users: np.ndarray, key: np.ndarray, wanted: int, seen: Seen, item: Callable[[np.ndarray], np.ndarray]
) -> np.ndarray:
    """Return the first ``wanted`` different new items of each user's stream of draws: a draw without replacement.

    Whoever has not enough of them after a few rounds (nearly everything seen) gets the new items in random order.
    """
    result = np.full((len(users), wanted), -1, np.int64)
    todo = np.arange(len(users))
    width = wanted + 8
    for _ in range(ROUNDS):
        found = _first_new(users[todo], item(draws(key[todo], 0, width)), wanted, seen)
        done = found[:, -1] >= 0
        result[todo[done]] = found[done]
        todo = todo[~done]
        if not len(todo):
            return result
        width *= 4
    every = np.arange(seen.catalogue)
    for i in todo:
        new = every[~seen(users[i : i + 1], every[None, :])[0]]
        with np.errstate(over="ignore"):
            order = np.argsort(mix(key[i] + mix(new.astype(np.uint64))), kind="stable")
        result[i] = new[order[:wanted]]
    return result


def _first_new(users: np.ndarray, items: np.ndarray, wanted: int, seen: Seen) -> np.ndarray:
    """Return the first ``wanted`` items of each row that are new to the user and to the row; -1 where there are not so many."""
    order = np.argsort(items, axis=1, kind="stable")
    ordered = np.take_along_axis(items, order, axis=1)
    again = np.zeros(items.shape, bool)
    np.put_along_axis(again, order[:, 1:], ordered[:, 1:] == ordered[:, :-1], axis=1)
    good = ~again & ~seen(users, items) & (items >= 0)
    place = np.cumsum(good, axis=1)
    result = np.full((len(items), wanted), -1, np.int64)
    row, column = np.nonzero(good & (place <= wanted))
    result[row, place[row, column] - 1] = items[row, column]
    return result


def _bm25(texts: pa.Array, history: int) -> Callable[[np.ndarray], np.ndarray]:
    """Return the items closest to a history's texts, best first: int64 of shape (histories, depth)."""
    import bm25s

    corpus = texts.to_pylist()
    index = bm25s.BM25()
    index.index(bm25s.tokenize(corpus, show_progress=False), show_progress=False)
    depth = min(len(corpus), BM25_DEPTH + history)

    def search(histories: np.ndarray) -> np.ndarray:
        asked = [" ".join(corpus[i] for i in row) for row in histories]
        tokens = bm25s.tokenize(asked, show_progress=False, return_ids=False)
        found, _ = index.retrieve(tokens, k=depth, show_progress=False, n_threads=0)
        return np.asarray(found, dtype=np.int64)

    return search
