"""Whole groups on one side, near-duplicate queries as one, and the same whatever the order."""

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep.duplicates import clusters, pairs, words
from data_prep.options import Options
from data_prep.split import sides

WORDS = st.lists(
    st.sampled_from(["what", "is", "the", "best", "film", "ever", "made", "in", "1990", "?"]), min_size=1, max_size=6
)
QUERIES = st.lists(WORDS.map(" ".join), max_size=12, unique=True)


def alike(a, b):
    one, two = set(words(a)), set(words(b))
    return len(one & two) / len(one | two)


def test_words():
    assert words("What IS, what?") == ("is", "what")
    assert words("?!") == ("?!",) and words("東京 tower") == ("tower", "東京")


@given(texts=QUERIES, threshold=st.sampled_from([0.4, 0.5, 0.75, 0.8, 1.0]))
@settings(max_examples=200, deadline=None)
def test_clusters_are_the_connected_parts_of_all_pairs(texts, threshold):
    """Against every pair compared one by one, and the parts found by spreading."""
    n = len(texts)
    near = [[alike(a, b) >= threshold - 1e-12 for b in texts] for a in texts]
    part = list(range(n))
    for _ in range(n):
        for i in range(n):
            part[i] = min(part[j] for j in range(n) if near[i][j])
    assert clusters(texts, threshold) == [texts[p] for p in part]
    assert all(i < j and near[i][j] for i, j in pairs(texts, threshold))


@given(texts=QUERIES, seed=st.integers(0, 5), fraction=st.sampled_from([0.1, 0.3, 0.5]))
@settings(max_examples=100, deadline=None)
def test_near_duplicates_stay_together(texts, seed, fraction):
    options = Options(seed=seed, test_fraction=fraction)
    side = sides(texts, options, "passage", queries=True)
    assert set(side) == set(texts)
    for a in texts:
        for b in texts:
            if alike(a, b) >= 0.8:
                assert side[a] == side[b]
    if len(set(clusters(texts, 0.8))) > 1:
        assert set(side.values()) == {"train", "test"}
    shuffled = random.Random(seed).sample(texts, len(texts))
    assert sides(shuffled, options, "passage", queries=True) == side


def test_how_many_go_to_test():
    users = [f"u{i}" for i in range(687)]
    side = sides(users, Options(), "rec-movie", queries=False)
    assert sum(s == "test" for s in side.values()) == 137  # round(687 * .2)
    assert side != sides(users, Options(seed=2), "rec-movie", queries=False)
    assert side != sides(users, Options(), "rec-music", queries=False)
    assert set(sides(users, Options(split="test"), "rec-movie", queries=False).values()) == {"test"}
    # users whose names are alike are not near-duplicates
    assert set(sides(["user a", "user b"], Options(near_duplicate=0.3), "x", queries=False).values()) == {
        "train",
        "test",
    }


def test_a_large_cluster_does_not_swallow_the_split():
    texts = [f"same words here {'!' * i}" for i in range(50)] + [f"other{i} question{i}" for i in range(50)]
    side = sides(texts, Options(test_fraction=0.2), "passage", queries=True)
    assert sum(s == "test" for s in side.values()) == 20
