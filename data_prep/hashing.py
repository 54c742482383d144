"""Dice that are hashes: every random choice follows from the seed and the name of what is chosen, and from nothing else.

So one input and one seed give one result, byte for byte, however the work is cut up and in whatever order it is done.
All functions take and give numpy arrays of ``uint64`` keys.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from data_prep.siphash import siphash

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def keys(names: Sequence[str] | np.ndarray, seed: int, purpose: str = "") -> np.ndarray:
    """A 64-bit key (SipHash, keyed by ``seed``) for each name; ``purpose`` tells draws apart. Shape ``(len(names),)``."""
    named = [f"{purpose}\x1f{name}" for name in names] if purpose else list(names)
    # as pandas.util.hash_array gives them, which would take longer to import than to do
    return _finish(siphash(named, f"{seed % 10**16:016d}".encode()))


def mix(values: np.ndarray) -> np.ndarray:
    """SplitMix64 (Steele et al. 2014): a bijection of uint64 that looks random."""
    with np.errstate(over="ignore"):
        return _finish(values + _GOLDEN)


def _finish(values: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):
        values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def draws(key: np.ndarray, start: int, stop: int) -> np.ndarray:
    """Draws ``start`` to ``stop`` of each key's stream, uint64 of shape ``(len(key), stop - start)``."""
    counter = np.arange(start, stop, dtype=np.uint64)
    with np.errstate(over="ignore"):
        return mix(key[:, None] + mix(counter)[None, :] * _GOLDEN)


def below(values: np.ndarray, bound: int) -> np.ndarray:
    """Each draw as an int64 in ``[0, bound)``, from its upper 53 bits."""
    return np.minimum((unit(values) * bound).astype(np.int64), bound - 1)


def unit(values: np.ndarray) -> np.ndarray:
    """Each draw as a float64 in ``[0, 1)``."""
    return (values >> np.uint64(11)).astype(np.float64) * 2.0**-53


def orders(key: np.ndarray, size: int) -> np.ndarray:
    """A random permutation of ``range(size)`` for each key, int64 of shape ``(len(key), size)``."""
    return np.argsort(draws(key, 0, size), axis=1, kind="stable")
