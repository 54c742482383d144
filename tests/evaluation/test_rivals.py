"""Rivals know what they are fitted on, and nothing of the order shown."""

from collections import Counter

import pytest

from iranker_verl.evaluation.rivals import Bm25, Popularity, Random, standard_rivals
from iranker_verl.ranking import Candidate, RankingTask


def task(texts, *, id="t", scenario="recommendation", dataset="rec-movie", context="", positive=0):
    candidates = tuple(Candidate(f"id-{t}" if t else "", t) for t in texts)
    return RankingTask.with_positive(id, scenario, dataset, context, candidates, candidates[positive].id)


@pytest.mark.parametrize("rival", standard_rivals(), ids=lambda r: r.name)
def test_rankings_are_orders_and_seeded(rival):
    tasks = [task(["red car", "blue car", "old boat"], id=str(i), context="blue") for i in range(5)]
    rival.fit(tasks)
    again = {r.name: r for r in standard_rivals()}[rival.name]
    again.fit(tasks)
    for t in tasks:
        assert sorted(rival.rank(t)) == sorted(c.id for c in t.candidates)
        assert rival.rank(t) == again.rank(t)


def test_random_puts_every_place_first():
    first = Counter(Random(0).rank(task(["a", "b", "c"], id=str(i)))[0] for i in range(300))
    assert len(first) == 3 and min(first.values()) > 60
    assert Random(1).rank(task(list("abcdefgh"))) != Random(2).rank(task(list("abcdefgh")))


@pytest.mark.parametrize("rival", [Popularity(), Bm25()], ids=lambda r: r.name)
def test_ties_do_not_keep_the_order_shown(rival):
    rival.fit([])
    first = Counter(rival.rank(task(["w", "x", "y"], id=str(i), context="other words"))[0] for i in range(300))
    assert len(first) == 3 and min(first.values()) > 60


def test_popularity_counts_positives_and_mentions():
    rival = Popularity()
    rival.fit(
        [
            task(["Heat", "Alien"], positive=0),
            task(["Heat", "Alien"], positive=0, context="Up, Alien, Alienation"),
            task(["Up", "Alien"], positive=0, context="Up"),
        ]
    )
    # Up: chosen once, mentioned twice; Heat: chosen twice; Alien: mentioned once (Alienation is another word).
    assert rival.rank(task(["Alien", "Heat", "Up", "Unseen"])) == ["id-Up", "id-Heat", "id-Alien", "id-Unseen"]


def test_popularity_keeps_datasets_apart_and_knows_its_scenario():
    rival = Popularity()
    rival.fit([task(["a", "b"], dataset="rec-music", positive=1)] * 3 + [task(["a", "b"], positive=0)])
    assert rival.rank(task(["b", "a"]))[0] == "id-a"
    assert rival.rank(task(["a", "b"], scenario="passage", dataset="passage-5")) is None


def test_bm25_finds_the_words_of_the_context():
    rival = Bm25()
    rival.fit([task(["the cat sat", "the dog ran"])])
    assert rival.rank(
        task(["the dog ran", "the Heron stood", "the cat sat"], context="Where do herons, a heron, live?")
    )[0] == ("id-the Heron stood")


def test_bm25_learns_rarity_from_training_texts():
    common = [task([f"film number {i}", f"film of {i}"], id=str(i)) for i in range(50)]
    rival = Bm25()
    rival.fit(common)
    assert rival.rank(task(["film story", "heron story"], context="film heron"))[0] == "id-heron story"


def test_bm25_with_texts_that_hold_no_word():
    rival = Bm25()
    rival.fit([])
    assert sorted(rival.rank(task(["!!", "??"], context="!"))) == ["id-!!", "id-??"]
    assert rival.rank(task(["!!", "word"], context="word"))[0] == "id-word"
