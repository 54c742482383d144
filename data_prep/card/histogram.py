"""Whole numbers, counted: exact quantiles of any number of them, in the memory of the largest."""

from __future__ import annotations

from typing import Any

import numpy as np


class Histogram:
    """How often each whole number from 0 occurred."""

    def __init__(self) -> None:
        self.counts = np.zeros(0, np.int64)

    def add(self, values: np.ndarray) -> None:
        """Take in more numbers, 0 or above."""
        more = np.bincount(values, minlength=len(self.counts))
        more[: len(self.counts)] += self.counts
        self.counts = more

    @property
    def total(self) -> int:
        """Return how many there are."""
        return int(self.counts.sum())

    def above(self, limit: int) -> int:
        """Return how many are larger than ``limit``."""
        return int(self.counts[limit + 1 :].sum())

    def summary(self) -> dict[str, Any]:
        """Return ``{n, mean, p5, p50, p95, max}``; empty where there is nothing."""
        if not self.total:
            return {}
        upto = np.cumsum(self.counts)
        quantiles = {f"p{q}": int(np.searchsorted(upto, max(1, np.ceil(self.total * q / 100)))) for q in (5, 50, 95)}
        mean = float(self.counts @ np.arange(len(self.counts)) / self.total)
        return {"n": self.total, "mean": round(mean, 2), **quantiles, "max": len(self.counts) - 1}

    def binned(self, edges: list[int]) -> list[int]:
        """Return how many lie in each ``[edges[i], edges[i + 1])``."""
        upto = np.concatenate([[0], np.cumsum(self.counts)])
        at = upto[np.minimum(edges, len(self.counts))]
        return np.diff(at).tolist()
