"""Sequences of item ids are what training tasks tell, and nothing else; and what holds for both that learn from them."""

from collections import Counter
from dataclasses import replace

import pytest
import torch
from id_worlds import mrr, task, tastes

from iranker_verl.evaluation.baselines import Context, bpr, make_baselines, sasrec
from iranker_verl.evaluation.baselines.histories import Histories, histories

WORLD, UNSEEN = tastes(120), tastes(40, seed=1)
KINDS = {
    "bpr": (bpr.Bpr, bpr.Settings(width=8, rounds=20)),
    "sasrec": (sasrec.SasRec, sasrec.Settings(width=16, blocks=1, rounds=3)),
}


def fitted(kind, tasks, seed=0, **settings):
    baseline = KINDS[kind][0](Context(seed, log=lambda _: None), replace(KINDS[kind][1], **settings))
    baseline.fit(tasks)
    return baseline


def of_items(baseline):
    """What a baseline has learned of the items: one row each."""
    model = baseline.learned["rec-movie"][1]
    return model.embedding.weight[:-1] if baseline.name == "sasrec" else model.factors.items


@pytest.fixture(scope="module", params=KINDS)
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def baseline(kind):
    return fitted(kind, WORLD)


def test_a_sequence_is_the_history_and_the_positive_of_each_dataset():
    tasks = [
        task("2", ["b", "a", "b"], "c", ["x"]),
        task("1", ["c"], "d", ["y"]),
        task("3", ["a"], "b", ["z"], dataset="rec-game"),
        task("4", [], "q", ["r"]),  # no ids: nothing to learn from
        task("5", ["p"], "q", ["r"], scenario="passage", dataset="passage-5"),
    ]
    found = histories(tasks)
    assert found == histories(tasks[::-1])
    assert set(found) == {"rec-movie", "rec-game"}
    movies = found["rec-movie"]
    assert dict(movies.items) == {"a": 0, "b": 1, "c": 2, "d": 3}  # no item that was only refused
    assert movies.users == ((2, 3), (1, 0, 1, 2))
    assert movies.known(["d", "x", "a"]) == [3, 0]
    everything = fitted("sasrec", tasks, rounds=1)
    assert [everything.applies(t) for t in tasks] == [True, True, True, False, False]


def test_some_users_are_held_out_and_some_are_not():
    data = histories([task(str(i), [f"h{i}"], "p", ["n"]) for i in range(10)])["rec-movie"]
    learned, held = data.split(0.2, seed=3)
    assert len(held) == 2 and sorted(learned + held) == sorted(data.users)
    assert data.split(0.2, seed=3) == (learned, held)
    assert any(data.split(0.2, seed)[1] != held for seed in range(5))
    assert [len(part) for part in data.split(0.001, seed=3)] == [9, 1]
    one = histories([task("1", ["a"], "b", ["c"])])["rec-movie"]
    assert one.split(0.5, seed=0) == ([(0, 1)], [])


def test_items_never_seen_score_lowest_and_alike():
    t = task("1", ["a"], "b", ["new", "a", "newer"])
    baseline = bpr.Bpr(Context(log=lambda _: None))
    baseline.learned["rec-movie"] = (Histories({"a": 0, "b": 1}, ()), None)
    baseline.of_items = lambda model, history: [-5.0, 2.0] if history == [0] else None
    [scores] = baseline.scores([t])
    by_id = dict(zip([c.id for c in t.candidates], scores, strict=True))
    assert by_id == {"a": -5.0, "b": 2.0, "new": float("-inf"), "newer": float("-inf")}


def test_two_tastes_are_found_for_users_never_seen(kind):
    popularity = make_baselines(["popularity"])[0]
    popularity.fit(WORLD)
    assert mrr(fitted(kind, WORLD, width=64, rounds=20), UNSEEN) > 0.95
    assert mrr(popularity, UNSEEN) < 0.6  # the positive is one of eight, and no group is the more popular


def test_a_seed_gives_the_same_again_and_torchs_own_state_stays(kind, baseline):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    again, other = fitted(kind, WORLD), fitted(kind, WORLD, seed=1)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(of_items(baseline), of_items(again)) and not torch.equal(of_items(baseline), of_items(other))
    assert baseline.rank(UNSEEN) == again.rank(UNSEEN) == baseline.rank(UNSEEN)


def test_the_order_of_candidates_and_of_tasks_decides_nothing(kind, baseline):
    turned = [replace(t, candidates=t.candidates[::-1], relevance=t.relevance[::-1]) for t in UNSEEN]
    assert baseline.rank(turned) == baseline.rank(UNSEEN)
    assert baseline.rank(UNSEEN[::-1]) == baseline.rank(UNSEEN)[::-1]
    assert fitted(kind, WORLD[::-1]).rank(UNSEEN) == baseline.rank(UNSEEN)
    blind = [replace(t, relevance=t.relevance[::-1]) for t in UNSEEN]
    assert baseline.rank(blind) == baseline.rank(UNSEEN)


def test_candidates_never_seen_come_last_in_no_order_of_theirs(baseline):
    last = Counter()
    for i in range(200):
        ranking = baseline.rank([task(str(i), ["a1", "a2"], "a3", ["new1", "b1", "new2"])])[0]
        assert set(ranking[2:]) == {"new1", "new2"}
        last[ranking[-1]] += 1
    assert min(last.values()) > 60


def test_no_ranking_where_ids_say_nothing(kind, baseline):
    tasks = [
        task("1", [], "a1", ["b1"]),
        task("2", ["a1"], "a2", ["b1"], scenario="passage", dataset="passage-5"),
        task("3", ["a1"], "a2", ["b1"], dataset="rec-music"),  # a dataset without training
        task("4", ["a1"], "a2", ["b1"]),
    ]
    ranked = baseline.rank(tasks)
    assert ranked[:3] == [None] * 3 and sorted(ranked[3]) == ["a2", "b1"]
    assert fitted(kind, tasks[:2]).rank(tasks) == [None] * 4


def test_datasets_are_learned_apart(kind, baseline):
    # in the other dataset the same ids mean the opposite
    turned = [
        task(t.id, t.history, t.candidates[(t.target + 1) % 8].id, [t.candidates[t.target].id], dataset="rec-game")
        for t in WORLD
    ]
    assert fitted(kind, [*WORLD, *turned]).rank(UNSEEN) == baseline.rank(UNSEEN)


def test_one_user_is_enough_to_run(kind):
    model = fitted(kind, [task("1", ["a"], "b", ["c"])])
    assert len(of_items(model)) == 2
    assert sorted(model.rank([task("2", ["a"], "b", ["c"])])[0]) == ["b", "c"]
