"""BPR learns from drawn pairs and folds unseen users in where the objective is least (what it shares with SASRec: test_histories)."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from id_worlds import task, tastes
from scipy.optimize import minimize

from iranker_verl.evaluation.baselines import Context
from iranker_verl.evaluation.baselines.bpr import Bpr, Factors, FoldIn, Settings, _with_others

SMALL = Settings(width=8, rounds=20)


def fitted(tasks, seed=0, settings=SMALL):
    baseline = Bpr(Context(seed, log=lambda _: None), settings)
    baseline.fit(tasks)
    return baseline


def test_popular_items_come_first_where_there_is_no_taste():
    # every user chose the hit; no history tells anything else
    train = [task(str(i), [f"only{i}"], "hit", ["n"]) for i in range(60)]
    model = fitted(train)
    (ranking,) = model.rank([task("new", ["never seen"], "only3", ["only7", "hit", "unseen"])])
    assert ranking[0] == "hit" and ranking[-1] == "unseen"


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


def test_fewer_epochs_than_lie_between_two_looks_are_learned_all_the_same():
    world = tastes(30)
    short = replace(SMALL, rounds=4, every=5)
    factors = [fitted(world, settings=s).learned["rec-movie"][1].factors for s in (short, replace(short, every=4))]
    assert torch.equal(factors[0].items, factors[1].items) and factors[0].biases.abs().min() > 0
