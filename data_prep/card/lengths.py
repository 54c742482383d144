"""How long prompts are: in tokens, as many as can be counted in a minute, or in characters, all of them."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_prep.card.histogram import Histogram
from data_prep.checks.columns import flat
from data_prep.schema import SPLITS
from iranker_verl.errors import UserError

COUNTED = 20_000  # prompts whose tokens are counted, evenly over the files where there are more
LONGEST = 200  # and beside them, so that the maximum is hardly ever missed, the longest in characters
BINS = 40

CountTokens = Callable[[list[dict[str, str]]], int]


class Lengths:
    """Lengths of the prompts of ``rows`` rows; in tokens where ``count_tokens`` gives those of chat messages."""

    def __init__(self, rows: int, count_tokens: CountTokens | None = None, limit: int | None = None) -> None:
        self._count, self._limit = count_tokens, limit
        self._every = max(1, -(-rows // COUNTED)) if count_tokens else 1
        self._seen = 0
        self._of = {split: Histogram() for split in SPLITS}
        self._longest = (-1, "", -1)  # length, split, row
        self._uncounted: list[
            tuple[int, int, str, int, pa.Scalar]
        ] = []  # a heap: characters, order, split, row, prompt

    def add(self, split: str, start: int, prompts: pa.ListArray) -> None:
        """Take in the prompts of more rows."""
        row, message = flat(prompts)
        content = pc.struct_field(message, "content")
        if content.null_count:
            blank = start + int(row[np.argmax(content.is_null().to_numpy(zero_copy_only=False))])
            raise UserError(f"{split}.parquet row {blank}: a message has no content; see what `iranker validate` says")
        size = characters(content)
        lengths = np.bincount(row, weights=size, minlength=len(prompts)).astype(np.int64)
        where = np.arange(-self._seen % self._every, len(prompts), self._every)
        if self._count is not None:
            if self._every > 1:
                self._keep(split, start, prompts, lengths)
            lengths[where] = [self._count(prompt) for prompt in prompts.take(pa.array(where)).to_pylist()]
        self._seen += len(prompts)
        if len(where):
            self._of[split].add(lengths[where])
            place = where[lengths[where].argmax()]
            self._note(int(lengths[place]), split, start + int(place))

    def _note(self, length: int, split: str, row: int) -> None:
        if length > self._longest[0]:
            self._longest = (length, split, row)

    def _keep(self, split: str, start: int, prompts: pa.ListArray, lengths: np.ndarray) -> None:
        for place in np.argsort(-lengths, kind="stable")[:LONGEST].tolist():
            order = -(self._seen + place)  # of equals the first
            heapq.heappush(self._uncounted, (int(lengths[place]), order, split, start + place, prompts[place]))
            if len(self._uncounted) > LONGEST:
                heapq.heappop(self._uncounted)

    def result(self) -> dict[str, Any]:
        """Return all of it, as JSON. ``over`` counts those above the limit among the ``counted``."""
        for _, _, split, row, prompt in self._uncounted:
            self._note(self._count(prompt.as_py()) if self._count else 0, split, row)
        length, split, row = self._longest
        edges = _edges(length)
        result: dict[str, Any] = {
            "unit": "tokens" if self._count else "characters",
            "rows": self._seen,
            "counted": sum(h.total for h in self._of.values()),
            "longest": {"length": length, "file": f"{split}.parquet", "row": row} if self._seen else None,
            "edges": edges,
            "splits": {name: h.summary() | {"bins": h.binned(edges)} for name, h in self._of.items()},
            "limit": self._limit,
        }
        if self._limit is not None:
            result["over"] = sum(h.above(self._limit) for h in self._of.values())
        return result


def _edges(most: int) -> list[int]:
    """Return the edges of about as many bins as are drawn, all of one round width, from 0 to above ``most``."""
    least = max(most / BINS, 1)
    power = 10 ** int(np.log10(least))
    width = next(w * power for w in (1, 2, 5, 10) if w * power >= least)
    return list(range(0, max(most, 0) + 2 * width, width))


def characters(texts: pa.Array) -> np.ndarray:
    """Return how long each text is; a null is as an empty one."""
    return pc.fill_null(pc.utf8_length(texts), 0).to_numpy(zero_copy_only=False)
