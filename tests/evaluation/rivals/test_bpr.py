"""BPR finds tastes, folds unseen users in where the objective is least, and knows nothing but ids."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from id_worlds import mrr, task, tastes
from scipy.optimize import minimize

from iranker_verl.evaluation.rivals import Context, make
from iranker_verl.evaluation.rivals.bpr import Bpr, Factors, FoldIn, Settings, _with_others

SMALL = Settings(width=8, epochs=20)


def fitted(tasks, seed=0, settings=SMALL):
    rival = Bpr(Context(seed, say=lambda _: None), settings)
    rival.fit(tasks)
    return rival


@pytest.fixture(scope="module")
def world():
    return tastes(120), tastes(40, seed=1)


@pytest.fixture(scope="module")
def rival(world):
    return fitted(world[0])


def test_two_tastes_are_found_for_users_never_seen(world):
    train, test = world
    popularity = make(["popularity"])[0]
    popularity.fit(train)
    assert mrr(fitted(train, settings=Settings(epochs=20)), test) > 0.95
    assert mrr(popularity, test) < 0.6  # the positive is one of eight, and no group is the more popular


def test_popular_items_come_first_where_there_is_no_taste():
    # every user chose the hit; no history tells anything else
    train = [task(str(i), [f"only{i}"], "hit", ["n"]) for i in range(60)]
    model = fitted(train)
    (ranking,) = model.rank([task("new", ["never seen"], "only3", ["only7", "hit", "unseen"])])
    assert ranking[0] == "hit" and ranking[-1] == "unseen"


def test_a_seed_gives_the_same_again_and_torchs_own_state_stays(world, rival):
    before = torch.get_rng_state()
    again, other = fitted(world[0]), fitted(world[0], seed=1)
    assert torch.equal(torch.get_rng_state(), before)
    factors = [m._models["rec-movie"][1].factors.items for m in (rival, again, other)]
    assert torch.equal(factors[0], factors[1]) and not torch.equal(factors[0], factors[2])
    assert rival.rank(world[1]) == again.rank(world[1])


def test_the_order_of_candidates_and_of_tasks_decides_nothing(world, rival):
    train, test = world
    turned = [replace(t, candidates=t.candidates[::-1], relevance=t.relevance[::-1]) for t in test]
    assert rival.rank(turned) == rival.rank(test)
    assert rival.rank(test[::-1]) == rival.rank(test)[::-1]
    assert fitted(train[::-1]).rank(test) == rival.rank(test)
    blind = [replace(t, relevance=t.relevance[::-1]) for t in test]
    assert rival.rank(blind) == rival.rank(test)


def test_items_never_seen_come_last_in_no_order_of_theirs(rival):
    last = Counter()
    for i in range(200):
        ranking = rival.rank([task(str(i), ["a1", "a2"], "a3", ["new1", "b1", "new2"])])[0]
        assert set(ranking[2:]) == {"new1", "new2"}
        last[ranking[-1]] += 1
    assert min(last.values()) > 60


def test_what_it_does_not_apply_to(rival):
    tasks = [
        task("1", [], "a1", ["b1"]),
        task("2", ["a1"], "a2", ["b1"], scenario="passage", dataset="passage-5"),
        task("3", ["a1"], "a2", ["b1"], dataset="rec-music"),  # a dataset without training
        task("4", ["a1"], "a2", ["b1"]),
    ]
    ranked = rival.rank(tasks)
    assert ranked[:3] == [None] * 3 and sorted(ranked[3]) == ["a2", "b1"]
    nothing = fitted([tasks[0], tasks[1]])
    assert nothing.rank(tasks) == [None] * 4


def test_datasets_are_learned_apart(world):
    train, test = world
    # in the other dataset the same ids mean the opposite
    turned = [
        task(t.id, t.history, t.candidates[(t.target + 1) % 8].id, [t.candidates[t.target].id], dataset="rec-game")
        for t in train
    ]
    both = fitted([*train, *turned])
    assert both.rank(test) == fitted(train).rank(test)


@pytest.mark.parametrize("seed", range(5))
def test_folding_in_finds_the_minimum_of_the_objective(seed):
    rng = np.random.default_rng(seed)
    count, width, penalty = 9, 3, (0.001, 0.1)[seed % 2]
    items, biases = 3 * rng.normal(size=(count, width)), rng.normal(size=count)
    history = [int(i) for i in rng.choice(count, size=3, replace=False)]

    def objective(w):
        x = items @ w + biases
        pairs = [np.log1p(np.exp(x[j] - x[i])) for i in history for j in range(count) if j not in history]
        return np.mean(pairs) + penalty / 2 * w @ w

    expected = minimize(objective, np.zeros(width), method="BFGS", options={"gtol": 1e-9})
    factors = Factors(torch.tensor(items), torch.tensor(biases))
    found = FoldIn(factors, Settings(penalty=penalty), seed=0)([*history, history[0]]).numpy()
    assert objective(found) <= expected.fun + 1e-9
    np.testing.assert_allclose(found, expected.x, atol=1e-3)


def test_folding_in_with_a_sample_of_the_catalogue_and_with_nothing():
    generator = torch.Generator().manual_seed(0)
    factors = Factors(torch.randn(400, 4, generator=generator), torch.zeros(400))
    whole, part = (FoldIn(factors, Settings(others=n), seed=0)([1, 2, 3]) for n in (400, 200))
    assert not torch.equal(whole, part) and torch.cosine_similarity(whole, part, dim=0) > 0.95
    assert torch.equal(FoldIn(factors, SMALL, seed=0)([]), torch.zeros(4))
    assert torch.equal(FoldIn(factors, SMALL, seed=0)(range(400)), torch.zeros(4))  # nothing to compare with


def test_the_other_item_of_a_pair_is_any_that_the_user_did_not_choose():
    pairs = torch.tensor([[0, 0], [0, 2], [1, 1], [2, 0], [2, 1], [2, 2], [2, 3]])  # user 2 chose all four items
    chosen = pairs[:, 0] * 4 + pairs[:, 1]
    generator = torch.Generator().manual_seed(0)
    drawn = Counter(
        tuple(row) for _ in range(300) for row in _with_others(pairs[[1, 2, 5]], chosen, 4, generator).tolist()
    )
    assert set(drawn) == {(0, 2, 1), (0, 2, 3), (1, 1, 0), (1, 1, 2), (1, 1, 3)}
    assert min(drawn.values()) > 60


def test_fewer_epochs_than_lie_between_two_looks_are_learned_all_the_same(world):
    short = replace(SMALL, epochs=4, every=5)
    factors = [fitted(world[0], settings=s)._models["rec-movie"][1].factors for s in (short, replace(short, every=4))]
    assert torch.equal(factors[0].items, factors[1].items) and factors[0].biases.abs().min() > 0


def test_one_user_is_enough_to_run():
    model = fitted([task("1", ["a"], "b", ["c"])])
    assert model._models["rec-movie"][1].factors.items.shape == (2, 8)
    assert sorted(model.rank([task("2", ["a"], "b", ["c"])])[0]) == ["b", "c"]
