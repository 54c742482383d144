"""Label balance of routing: how often is each LLM the best? One that nearly always is can be chosen without a look."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_prep.checks.columns import by_name, lengths
from data_prep.schema import SPLITS


class Routers:
    """Counts the best LLMs of routing rows, dataset by dataset."""

    def __init__(self) -> None:
        self._best: dict[str, dict[str, Counter[str]]] = defaultdict(lambda: defaultdict(Counter))
        self._text: dict[str, str] = {}

    def add(self, split: str, columns: dict[str, pa.Array], row: np.ndarray, place: np.ndarray) -> None:
        """Count the routing tasks of a batch of rows."""
        routing = pc.equal(columns["scenario"], "routing").to_numpy(zero_copy_only=False)
        if not routing.any():
            return
        sizes = lengths(columns["candidate_ids"])
        starts = np.cumsum(sizes) - sizes
        flat_ids, flat_texts = columns["candidate_ids"].flatten(), columns["candidates"].flatten()
        for name, rows in by_name(columns["dataset"]):
            here = np.isin(row, rows) & routing[row]
            chosen = pa.array((starts[row] + place)[here])
            ids = flat_ids.take(chosen).to_pylist()
            shown = np.flatnonzero(np.isin(np.repeat(np.arange(len(sizes)), sizes), rows[:1]) & routing[rows[0]])
            for id in flat_ids.take(pa.array(shown)).to_pylist():
                self._best[name][id][split] += 0  # one that is never the best is shown too
            if len(flat_texts) == len(flat_ids):
                self._text |= dict(zip(ids, flat_texts.take(chosen).to_pylist(), strict=True))
            for id, count in Counter(ids).items():
                self._best[name][id][split] += count

    def result(self) -> dict[str, list[dict[str, Any]]]:
        """Return, for each dataset, its LLMs and how often each is the best, the most frequent first."""
        return {
            name: [
                {"llm": id, "text": self._text.get(id, ""), **{s: counts[s] for s in SPLITS}}
                for id, counts in sorted(found.items(), key=lambda item: (-item[1].total(), item[0]))
            ]
            for name, found in sorted(self._best.items())
            if found
        }
