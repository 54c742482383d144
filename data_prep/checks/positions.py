"""Where do the best candidates stand? At every place equally often, or a model learns the place."""

from __future__ import annotations

import math

import numpy as np

Places = dict[int, np.ndarray]  # {number of candidates: how often a best one stood at each place, int64}

EXPECTED = 5  # rows a place; with fewer, chi-square is no measure


def add(places: Places, sizes: np.ndarray, place: np.ndarray) -> None:
    """Count best candidates at ``place`` (from 0) among ``sizes`` candidates; arrays of one shape."""
    for size in np.unique(sizes).tolist():
        counts = np.bincount(place[sizes == size], minlength=size)
        places[size] = places[size] + counts if size in places else counts


def p_values(places: Places) -> dict[int, float]:
    """Pearson's chi-square against a uniform distribution, for each number of candidates with enough rows."""
    return {
        size: chi_square_tail(size - 1, float(((counts - counts.mean()) ** 2).sum() / counts.mean()))
        for size, counts in sorted(places.items())
        if size > 1 and counts.sum() >= EXPECTED * size
    }


def chi_square_tail(freedom: int, value: float) -> float:
    """The chance that chi-square with ``freedom`` degrees of freedom is ``value`` or more.

    The finite sums of Abramowitz and Stegun (1964), 26.4.4 and 26.4.5. scipy has it too, and takes longer to import than
    all checks of a million rows.
    """
    half = value / 2
    if half == 0:
        return 1.0
    start = math.erfc(math.sqrt(half)) if freedom % 2 else 0.0
    powers = (k / 2 for k in range(freedom % 2, freedom, 2))
    return min(1.0, start + sum(math.exp(k * math.log(half) - half - math.lgamma(k + 1)) for k in powers))
