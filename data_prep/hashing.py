"""Random numbers from hashes: every random choice depends on the seed and on the name of what is chosen, and on nothing else.

So one input and one seed give one result, byte for byte, however the work is divided and in whatever order it is done.
All functions take and return numpy arrays of ``uint64`` keys.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pandas.util import hash_array

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def keys(names: Sequence[str] | np.ndarray, seed: int, purpose: str = "") -> np.ndarray:
    """Return a 64-bit key for each name, shape ``(len(names),)``; ``purpose`` keeps draws of one seed apart.

    A key is the SipHash-2-4 (Aumasson and Bernstein 2012) of the UTF-8 text with ``seed`` as its key, mixed once more.
    """
    named = np.array([f"{purpose}\x1f{name}" for name in names] if purpose else list(names), dtype=object)
    return hash_array(named, hash_key=f"{seed % 10**16:016d}", categorize=False)


def examples(contexts: pa.Array, positives: pa.Array) -> pa.Array:
    """Return a name for what each recommendation task shows, its history and its positive: 16 hex digits of their hash."""
    texts = pc.binary_join_element_wise(pc.fill_null(contexts, ""), pc.fill_null(positives, ""), "\n")
    hashed = hash_array(texts.to_numpy(zero_copy_only=False), categorize=False)
    return pa.array([f"{value:016x}" for value in hashed], pa.string())


def mix(values: np.ndarray) -> np.ndarray:
    """Return SplitMix64 (Steele et al. 2014) of each value: a bijection of uint64 that looks random."""
    with np.errstate(over="ignore"):
        values = values + _GOLDEN
        values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def draws(key: np.ndarray, start: int, stop: int) -> np.ndarray:
    """Return draws ``start`` to ``stop`` of each key's stream, uint64 of shape ``(len(key), stop - start)``."""
    counter = np.arange(start, stop, dtype=np.uint64)
    with np.errstate(over="ignore"):
        return mix(key[:, None] + mix(counter)[None, :] * _GOLDEN)


def below(values: np.ndarray, bound: int) -> np.ndarray:
    """Return each draw as an int64 in ``[0, bound)``, from its upper 53 bits."""
    return np.minimum((unit(values) * bound).astype(np.int64), bound - 1)


def unit(values: np.ndarray) -> np.ndarray:
    """Return each draw as a float64 in ``[0, 1)``."""
    return (values >> np.uint64(11)).astype(np.float64) * 2.0**-53


def orders(key: np.ndarray, size: int) -> np.ndarray:
    """Return a random permutation of ``range(size)`` for each key, int64 of shape ``(len(key), size)``."""
    return np.argsort(draws(key, 0, size), axis=1, kind="stable")
