"""SipHash-2-4: its authors' own values, and pandas' hashes, which prepared data has been made with from the start."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_prep.hashing import keys
from data_prep.siphash import siphash

KEY = bytes(range(16))
# vectors_sip64 of https://github.com/veorq/SipHash: of no byte, of byte 0, of bytes 0 to 7, and of bytes 0 to 14
PUBLISHED = {0: "310e0edd47db6f72", 1: "fd67dc93c539f874", 8: "6224939a79f5f593", 15: "e545be4961ca29a1"}


@pytest.mark.parametrize("length", PUBLISHED)
def test_as_published(length):
    (found,) = siphash(["".join(map(chr, range(length)))], KEY)
    assert int(found).to_bytes(8, "little").hex() == PUBLISHED[length]


def by_pandas(names, seed):
    objects = np.empty(len(names), dtype=object)
    objects[:] = names
    return pd.util.hash_array(objects, hash_key=f"{seed % 10**16:016d}", categorize=False)


@given(st.lists(st.text() | st.text("abé\x00", min_size=250, max_size=300), max_size=20), st.integers())
def test_as_pandas_has_it_whatever_the_lengths_beside_it(names, seed):
    assert keys(names, seed).tolist() == by_pandas(names, seed).tolist()
    assert keys(names, seed, "order").tolist() == by_pandas([f"order\x1f{name}" for name in names], seed).tolist()
