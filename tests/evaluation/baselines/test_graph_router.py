"""GraphRouter: what flows in its graph, and that it learns which LLM a topic needs."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from router_toys import LLMS, hits, save_encoder, task, topical, turned

from iranker_verl.evaluation.baselines import Context, Unavailable
from iranker_verl.evaluation.baselines.graph_net import Graph, GraphNet, Layer
from iranker_verl.evaluation.baselines.graph_router import GraphRouter, Settings

FAST = Settings(features=16, tasks=4, width=32, rounds=150, rate=3e-3)


def fitted(train, seed=0, settings=FAST, **models):
    model = GraphRouter(Context(seed, models, log=lambda line: None), settings)
    model.fit(train)
    return model


def scores(model, queries, newcomers=None):
    return model.learned["router-balance"][1](queries, newcomers or {})


@pytest.mark.parametrize("graded", [False, True])
def test_it_learns_what_topics_decide(graded):
    train, test = topical(160, graded=graded), topical(40, seed=1, graded=graded)
    model = fitted(train)
    found = model.rank(test)
    assert hits(found, test) > 0.9
    assert hits([["poet"]] * 40, test) == 0.5  # the majority's LLM
    assert found == model.rank([turned(t) for t in test])
    assert found == [model.rank([t])[0] for t in test]  # what else is ranked decides nothing


def test_a_seed_decides_and_nothing_around_it():
    train, queries = topical(40), [t.context for t in topical(20, seed=1)]
    short = replace(FAST, rounds=10)
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first = scores(fitted(train, 1, short), queries)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(6)
    again = fitted([turned(t) for t in reversed(train)], 1, short)
    np.testing.assert_array_equal(scores(again, queries), first)
    assert not np.allclose(scores(fitted(train, 2, short), queries), first)


def test_an_llm_that_training_did_not_show_is_scored_by_its_description():
    model = fitted(topical(80))
    queries = ["sonnet rhyme", "soup oven"]
    known = scores(model, queries)
    found = scores(model, queries, {"like the poet": "poet, $1: knows of poets", "other": "zebra", "same": "zebra"})
    np.testing.assert_allclose(found[:, : len(LLMS)], known)  # newcomers change nothing for the others
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found[:, 5], found[:, 6])
    assert not np.allclose(found[:, 4], found[:, 5])
    new = task("sonnet rhyme", "poet", llms=("newcomer", *LLMS))
    assert sorted(model.rank([new])[0]) == sorted(("newcomer", *LLMS))
    assert model.rank([new]) == model.rank([turned(new)])


def graph(queries=3, llms=2, tasks=2, width=4):
    make = torch.Generator().manual_seed(0)

    def draw(*shape):
        return torch.randn(*shape, generator=make)

    edge = torch.tensor([[1.0, 1.0], [1.0, 0.0], [0.0, 0.0]])[:queries, :llms]
    task_of = torch.tensor([0, 1, 0])[:queries]
    return Graph(draw(queries, width), task_of, draw(tasks, width), draw(llms, width), draw(queries, llms) * edge, edge)


def test_a_layer_is_what_its_formula_says():
    torch.manual_seed(0)
    layer, given = Layer(4), graph()
    new, new_task = torch.randn(1, 4), torch.tensor([1])
    query, task_, llm, new_after = layer(given, given.queries, given.tasks, given.llms, new, new_task)

    def relu(x):
        return x.clamp(min=0)

    q, t, m, e = given.queries, given.tasks, given.llms, given.outcome
    to_query = [layer.llm_to_query(m[i]) + e[0, i] * layer.llm_to_query_weighed(m[i]) for i in range(2)]
    first = layer.own_query(q[0]) + layer.task_to_query(t[0])
    # the weighed message has its bias inside: e * (W h + b)
    torch.testing.assert_close(query[0], relu(first + (to_query[0] + to_query[1]) / 2))
    torch.testing.assert_close(query[2], relu(layer.own_query(q[2]) + layer.task_to_query(t[0])))  # no edge
    to_llm = [layer.query_to_llm(q[i]) + e[i, 0] * layer.query_to_llm_weighed(q[i]) for i in range(2)]
    torch.testing.assert_close(llm[0], relu(layer.own_llm(m[0]) + (to_llm[0] + to_llm[1]) / 2))
    of_task = (layer.query_to_task(q[0]) + layer.query_to_task(q[2])) / 2
    torch.testing.assert_close(task_[0], relu(layer.own_task(t[0]) + of_task))
    torch.testing.assert_close(new_after[0], relu(layer.own_query(new[0]) + layer.task_to_query(t[1])))


def test_a_part_of_a_graph_and_an_empty_one():
    torch.manual_seed(0)
    net, whole = GraphNet(4, 4, width=8, layers=2, dropout=0.5).eval(), graph()
    part = whole.of(torch.tensor([2, 0]))
    torch.testing.assert_close(part.outcome, whole.outcome[[2, 0]])
    assert part.task_of.tolist() == [0, 0] and part.tasks is whole.tasks
    new, of = torch.randn(5, 4), torch.zeros(5, dtype=torch.long)
    found = net(whole, new, of)
    torch.testing.assert_close(found, torch.cat([net(whole, new[i : i + 1], of[:1]) for i in range(5)]))
    assert net(whole.of(torch.tensor([], dtype=torch.long)), new, of).isfinite().all()


def test_hardly_any_training():
    for train in ([task("a", "poet")], [task("a", "poet"), task("a", "coder", id="2")]):
        found = fitted(train, settings=replace(FAST, rounds=3)).rank([task("b", "poet"), task("", "poet")])
        assert [sorted(r) for r in found] == [sorted(LLMS)] * 2


def test_datasets_are_apart():
    train = [*topical(24), *(task(f"sonnet {i}", "chef", dataset="router-cost") for i in range(8))]
    model = fitted(train)
    found = model.rank([task("sonnet", "poet"), task("sonnet", "poet", dataset="router-cost")])
    assert [r[0] for r in found] == ["poet", "chef"]
    assert model.rank([task("sonnet", "poet", dataset="router-performance")]) == [None]


def test_an_encoder_that_the_user_names(tmp_path):
    folder = save_encoder(tmp_path / "encoder")
    train = topical(40)
    model = fitted(train, settings=replace(FAST, rounds=20), **{"graph-router": str(folder)})
    found = scores(model, ["sonnet rhyme"])
    assert not np.allclose(found, scores(fitted(train, settings=replace(FAST, rounds=20)), ["sonnet rhyme"]))
    with pytest.raises(Unavailable, match="graph-router"):
        fitted(train, **{"graph-router": str(tmp_path / "gone")})
