"""Dice that are hashes: uniform, independent of each other, and the same on every machine."""

from collections import Counter
from itertools import permutations

import numpy as np
import pytest

from data_prep.hashing import below, draws, keys, mix, orders, unit

PINNED_KEYS = ["0x409ffa8c0ce52d83", "0x22381001b4b18956"]
PINNED_MIX = ["0xe220a8397b1dcdaf", "0x910a2dec89025cc1"]


def test_pinned():
    """Prepared data depends on these numbers: a change of them is a change of every data set."""
    assert [hex(k) for k in keys(["a", "b"], 1)] == PINNED_KEYS
    assert [hex(k) for k in mix(np.arange(2, dtype=np.uint64))] == PINNED_MIX


def test_splitmix64_as_published():
    """The first outputs of Vigna's splitmix64.c with seed 0: state 0 + golden, and so on."""
    golden = 0x9E3779B97F4A7C15
    states = np.array([(golden * i) % 2**64 for i in range(3)], dtype=np.uint64)
    assert [int(x) for x in mix(states)] == [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]


def test_keys_depend_on_name_seed_and_purpose():
    names = [f"user{i}" for i in range(1000)]
    every = [keys(names, 1), keys(names, 2), keys(names, 1, "split"), keys(names, 1, "order")]
    assert len(set(np.concatenate(every).tolist())) == 4000
    assert (keys(names, 1) == keys(np.array(names, dtype=object), 1)).all()
    assert keys([], 1).shape == (0,)


def test_draws_are_uniform_and_go_on_where_they_were():
    key = keys([str(i) for i in range(2000)], 3)
    whole = draws(key, 0, 30)
    assert (np.concatenate([draws(key, 0, 7), draws(key, 7, 30)], axis=1) == whole).all()
    values = unit(whole)
    assert values.min() >= 0 and values.max() < 1
    assert values.mean() == pytest.approx(0.5, abs=6 / (12 * values.size) ** 0.5)
    counts = np.bincount(below(whole, 7).ravel(), minlength=7)
    assert counts.size == 7 and (abs(counts - 60000 / 7) < 6 * (60000 / 7) ** 0.5).all()
    # neighbours in a stream, and neighbouring keys, know nothing of each other
    for a, b in ((values[:, :-1], values[:, 1:]), (values[:-1], values[1:])):
        assert abs(np.corrcoef(a.ravel(), b.ravel())[0, 1]) < 6 / a.size**0.5


def test_orders_are_uniform():
    found = Counter(map(tuple, orders(keys([str(i) for i in range(2400)], 5), 4).tolist()))
    assert set(found) == set(permutations(range(4)))
    assert all(abs(n - 100) < 60 for n in found.values())
