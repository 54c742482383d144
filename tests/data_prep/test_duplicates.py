"""Near-duplicates: exactly the pairs that comparing everything with everything finds."""

from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep import duplicates
from data_prep.duplicates import clusters, pairs, words

texts = st.lists(st.lists(st.sampled_from("abcdefghijklmnop"), max_size=12).map(" ".join), max_size=25)


def similarity(one, other):
    a, b = set(words(one)), set(words(other))
    return len(a & b) / len(a | b)


@given(texts, st.sampled_from([0.2, 0.5, 2 / 3, 0.75, 0.8, 0.9, 1.0]), st.sampled_from([1, 40, 1 << 24]))
@settings(max_examples=300, deadline=None)
def test_against_every_pair(found, threshold, cells):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(duplicates, "_CELLS", cells)  # however the work is cut up
        made = list(pairs(found, threshold))
    assert len(made) == len(set(made)) and all(i < j for i, j in made)
    first = {}
    for i, text in enumerate(found):
        first.setdefault(words(text), i)
    wanted = {(first[words(t)], i) for i, t in enumerate(found) if first[words(t)] != i}  # equal ones: a chain
    different = sorted(first.values())
    wanted |= {(i, j) for i, j in combinations(different, 2) if similarity(found[i], found[j]) >= threshold}
    assert set(made) == wanted


@given(texts)
@settings(max_examples=100, deadline=None)
def test_clusters_are_connected_pairs(found):
    names = clusters(found, 0.6)
    for i, j in combinations(range(len(found)), 2):
        if similarity(found[i], found[j]) >= 0.6:
            assert names[i] == names[j]
    assert all(name in found for name in names)


def test_texts_without_words():
    assert list(pairs(["?", "!", "?", ""], 0.8)) == [(0, 2)]
