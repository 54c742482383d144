"""Positions of the best candidates: all have to be equally frequent, or a model learns the position."""

from __future__ import annotations

import numpy as np

Places = dict[int, np.ndarray]  # {number of candidates: how often a best one stood at each place, int64}

EXPECTED = 5  # rows a place; with fewer, chi-square is no measure


def add(places: Places, sizes: np.ndarray, place: np.ndarray) -> None:
    """Add to ``places`` the best candidates at index ``place`` (from 0) among ``sizes`` candidates; arrays of one shape."""
    for size in np.unique(sizes).tolist():
        counts = np.bincount(place[sizes == size], minlength=size)
        places[size] = places[size] + counts if size in places else counts


def p_values(places: Places) -> dict[int, float]:
    """Return the p-value of Pearson's chi-square test against a uniform distribution, by number of candidates.

    Sizes with fewer than :data:`EXPECTED` rows a position are left out.
    """
    from scipy.special import chdtrc  # scipy.stats has the test itself, and takes five times as long to import

    return {
        size: float(chdtrc(size - 1, ((counts - counts.mean()) ** 2).sum() / counts.mean()))
        for size, counts in sorted(places.items())
        if size > 1 and counts.sum() >= EXPECTED * size
    }
