"""Near-duplicate queries, found exactly: all pairs whose word sets have a Jaccard similarity of at least a threshold."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np

_WORD = re.compile(r"\w+")
_CELLS = 1 << 24  # how many words are compared at a time


def split_words(text: str) -> list[str]:
    """Return the words of a text in order, case folded."""
    return _WORD.findall(text.casefold())


def words(text: str) -> tuple[str, ...]:
    """Return the set of a text's words, case aside, sorted; a text without any is its own only word."""
    return tuple(sorted(set(split_words(text)))) or (text,)


def pairs(texts: Sequence[str], threshold: float) -> Iterator[tuple[int, int]]:
    """Yield index pairs ``(i, j)``, ``i < j``, of texts that are alike; of texts with equal word sets only a chain of pairs."""
    first: dict[tuple[str, ...], int] = {}
    for i, text in enumerate(texts):
        key = words(text)
        if key in first:
            yield first[key], i
        else:
            first[key] = i
    if threshold < 1:
        yield from _alike(list(first), np.fromiter(first.values(), np.int64, len(first)), threshold)


def clusters(texts: Sequence[str], threshold: float) -> list[str]:
    """Return, for every text, the first text (in order) of its cluster: texts connected by pairs that are alike."""
    parent = list(range(len(texts)))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    for i, j in pairs(texts, threshold):
        a, b = sorted((root(i), root(j)))
        parent[b] = a
    return [texts[root(i)] for i in range(len(texts))]


def _alike(sets: list[tuple[str, ...]], names: np.ndarray, threshold: float) -> Iterator[tuple[int, int]]:
    """Yield pairs of ``names`` whose sets are alike; no two sets are equal.

    Sets of ``m`` and ``n`` words are alike where they share ``c = ceil((m + n) t / (1 + t))`` words or more. Then, with
    the words of every set in one order, one of the first ``m - c + 1`` words of the one is among the first ``n - c + 1``
    of the other (prefix filtering: Bayardo et al. 2007, Xiao et al. 2008). With rare words first, few others are.
    """
    members, matrices = _by_size(sets)
    sizes = sorted(matrices)
    for place, m in enumerate(sizes):
        for n in sizes[place:]:
            common = math.ceil((m + n) * threshold / (1 + threshold) - 1e-9)
            if n * threshold > m + 1e-9 or common > m:
                break
            left, right = matrices[m], matrices[n]
            for i, j in _sharing(left[:, : m - common + 1], right[:, : n - common + 1], _CELLS // (m * n) + 1):
                if m == n:
                    i, j = i[i < j], j[i < j]
                shared = (left[i][:, :, None] == right[j][:, None, :]).sum(axis=(1, 2))
                found = shared / (m + n - shared) >= threshold
                for a, b in zip(
                    names[members[m][i[found]]].tolist(), names[members[n][j[found]]].tolist(), strict=True
                ):
                    yield min(a, b), max(a, b)


def _by_size(sets: list[tuple[str, ...]]) -> tuple[dict[int, np.ndarray], dict[int, np.ndarray]]:
    """Return the sets of each size: which they are, and a matrix of their words as numbers, the rarest word first."""
    sizes = np.fromiter(map(len, sets), np.int64, len(sets))
    number: dict[str, int] = {}
    word = np.fromiter((number.setdefault(w, len(number)) for s in sets for w in s), np.int64, sizes.sum())
    counts = np.bincount(word)
    rank = np.empty(len(counts), np.int32)
    rank[np.lexsort((np.arange(len(counts)), counts))] = np.arange(len(counts), dtype=np.int32)
    starts = np.cumsum(sizes) - sizes
    members = {int(size): np.flatnonzero(sizes == size) for size in np.unique(sizes)}
    return members, {
        size: np.sort(rank[word[starts[which][:, None] + np.arange(size)]], axis=1) for size, which in members.items()
    }


def _sharing(left: np.ndarray, right: np.ndarray, count: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield pairs of rows of two matrices that share a value, each once, about ``count`` at a time."""
    order = np.argsort(right, axis=None, kind="stable")
    values = right.ravel()[order]
    start, stop = (np.searchsorted(values, left.ravel(), side) for side in ("left", "right"))
    hits = np.add.reduceat(stop - start, np.arange(0, left.size, left.shape[1]))
    ends = np.cumsum(hits)
    cuts = np.searchsorted(ends, np.arange(count, ends[-1], count)) + 1  # rows stay whole, so that a pair comes once
    edges = np.unique([0, *cuts.tolist(), len(left)]).tolist()
    for low, high in pairwise(edges):
        part = slice(low * left.shape[1], high * left.shape[1])
        many = stop[part] - start[part]
        at = np.repeat(start[part] - (np.cumsum(many) - many), many) + np.arange(many.sum())
        row = np.repeat(np.arange(low, high), left.shape[1])
        pair = np.unique(np.repeat(row, many) * len(right) + order[at] // right.shape[1])
        yield pair // len(right), pair % len(right)
