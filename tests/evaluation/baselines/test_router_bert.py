"""RouterBert with a tiny random encoder: it learns what topics decide, and says why where it cannot run."""

import random

import numpy as np
import pytest
import torch
from router_toys import LLMS, hits, save_encoder, task, topical, turned

from iranker_verl.evaluation.baselines import Context, Unavailable, make_baselines
from iranker_verl.evaluation.baselines.fitting import FineTuning
from iranker_verl.evaluation.baselines.router_bert import RouterBert
from iranker_verl.evaluation.baselines.router_outcomes import loss

FAST = FineTuning(epochs=12, rate=3e-3, batch=16)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_encoder(tmp_path_factory.mktemp("models") / "encoder")


def fitted(folder, train, seed=0, settings=FAST):
    model = RouterBert(Context(seed, {"router-bert": str(folder)}, log=lambda line: None), settings)
    model.fit(train)
    return model


@pytest.mark.parametrize("graded", [False, True])
def test_it_learns_what_topics_decide(folder, graded):
    train, test = topical(120, graded=graded), topical(40, seed=1, graded=graded)
    model = fitted(folder, train)
    found = model.rank(test)
    assert hits(found, test) > 0.9  # always the majority's LLM: 0.5
    assert found == model.rank([turned(t) for t in test])
    if graded:
        return
    new = task("sonnet rhyme", "poet", llms=("newcomer", *LLMS))
    ranking = model.rank([new])[0]
    assert ranking[0] == "poet"
    assert ranking[-1] != "newcomer"
    assert model.rank([task("sonnet", "poet", dataset="router-cost")]) == [None]


def test_a_seed_decides_and_nothing_around_it(folder):
    train, test = topical(32), topical(20, seed=1)
    short = FineTuning(epochs=1, rate=1e-3)

    def scores(seed, train=train):
        model = fitted(folder, train, seed, short)
        return model.learned["router-balance"][1]([t.context for t in test], {})

    torch.manual_seed(5)
    before = torch.get_rng_state(), random.getstate()
    first = scores(1)
    assert torch.equal(torch.get_rng_state(), before[0]) and random.getstate() == before[1]
    torch.manual_seed(6)
    np.testing.assert_array_equal(scores(1, [turned(t) for t in reversed(train)]), first)
    assert not np.allclose(scores(2), first)


def test_the_loss():
    nan = float("nan")
    # softmax of 0, ln 3 is 1/4, 3/4; the third LLM is not shown
    scores = torch.tensor([[0.0, np.log(3.0), 9.0], [0.0, np.log(3.0), 9.0]])
    positive = torch.tensor([[1.0, 0.0, nan], [0.0, 1.0, nan]])
    assert loss(scores, positive, False).item() == pytest.approx((np.log(4) + np.log(4 / 3)) / 2)
    graded = torch.tensor([[0.5, -0.5, nan], [0.0, nan, nan]])
    assert loss(torch.tensor([[0.0, 0.5, 9.0], [2.0, 9.0, 9.0]]), graded, True).item() == pytest.approx(5.25 / 3)


def test_a_long_query_is_cut(folder):
    model = fitted(folder, topical(16), settings=FineTuning(epochs=1, rate=3e-5))
    assert sorted(model.rank([task("sonnet " * 500, "poet")])[0]) == sorted(LLMS)


def test_no_model_is_unavailable(tmp_path):
    (model,) = make_baselines(["router-bert"])
    with pytest.raises(Unavailable, match="router-bert: no model is named"):
        model.fit(topical(8))
    with pytest.raises(Unavailable, match=r"router-bert: .*gone is no folder"):
        fitted(tmp_path / "gone", topical(8))
    (tmp_path / "empty").mkdir()
    with pytest.raises(Unavailable, match=r"router-bert: .*empty cannot be loaded"):
        fitted(tmp_path / "empty", topical(8))
