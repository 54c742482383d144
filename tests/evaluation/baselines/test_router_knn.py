"""RouterKNN, and what all baselines of routing share: whose outcomes they read, and when they keep silent."""

from dataclasses import replace

import numpy as np
import pytest
from router_toys import LLMS, hits, save_encoder, task, topical, turned

from iranker_verl.evaluation.baselines import Context, Unavailable, make_baselines
from iranker_verl.evaluation.baselines.router_knn import RouterKnn
from iranker_verl.evaluation.baselines.router_outcomes import outcomes_of, query_text, with_newcomers
from iranker_verl.ranking import RankingTask


def fitted(train, neighbours=1, **context):
    model = RouterKnn(Context(**context), neighbours)
    model.fit(train)
    return model


def rank(model, one):
    return model.rank([one])[0]


@pytest.mark.parametrize(
    ("context", "query"),
    [
        ("Query: what?\nA) x\nPreference: quality only", "what?\nA) x"),
        ("Query: a\nPreference: b\nPreference: quality 0.2, cost 0.8", "a\nPreference: b"),
        ("Query: no preference is said", "Query: no preference is said"),
        ("Another form\nPreference: x", "Another form\nPreference: x"),
        ("", ""),
    ],
)
def test_the_query_of_a_context(context, query):
    assert query_text(context) == query


def test_outcomes():
    shown = [
        task("b", "poet", id="2"),
        task("a", "chef", id="1", llms=("chef", "coder")),
        replace(task("c", "poet"), scenario="passage"),
        task("d", "idle", dataset="router-cost"),
    ]
    found = outcomes_of(shown)
    assert list(found) == ["router-balance", "router-cost"]
    known = found["router-balance"]
    assert (known.queries, known.llms, known.graded) == (("a", "b"), LLMS, False)
    assert known.texts[1] == "coder, $1: knows of coders"
    nan = np.nan
    np.testing.assert_array_equal(known.relevance, [[1, 0, nan, nan], [0, 0, 0, 1]])


def test_graded_outcomes_are_centred_and_the_states_of_a_task_are_one_query():
    scores = {"chef": 0.5, "coder": 0.0, "idle": -0.7, "poet": -0.2}  # mean -0.1
    whole = task("q", scores=scores, id="1")
    states = [task("q", scores=scores, id="1", llms=llms) for llms in (("poet", "chef"), ("coder", "chef", "idle"))]
    for tasks in ([whole], states):
        known = outcomes_of(tasks)["router-balance"]
        assert known.graded
        np.testing.assert_allclose(known.relevance, [[0.6, 0.1, -0.6, -0.1]])


def test_newcomers_have_the_mean_score():
    assert with_newcomers(np.array([[1.0, 3.0], [0.0, 1.0]]), {"x": "", "y": ""}).tolist() == [
        [1, 3, 2, 2],
        [0, 1, 0.5, 0.5],
    ]


def test_the_nearest_query_decides_and_then_the_average():
    train = [
        task("red fox", "idle"),
        task("blue car", "coder"),
        task("blue car now", "coder"),
        task("old boat", "chef"),
    ]
    # idle (1 + 1/4) / 2, coder (0 + 2/4) / 2, chef (0 + 1/4) / 2, poet 0
    assert rank(fitted(train), task("a fox", "poet")) == ["idle", "coder", "chef", "poet"]
    # the two that speak of a car
    assert rank(fitted(train, 2), task("car", "poet"))[0] == "coder"


def test_a_mean_of_graded_outcomes():
    train = [
        task("green tea", scores=dict(zip(LLMS, (0.9, 0.1, 0.5, 0.0), strict=True))),
        task("green leaf", scores=dict(zip(LLMS, (0.0, 0.1, 0.6, 0.2), strict=True))),
        task("stone", scores=dict(zip(LLMS, (0.0, 0.3, 0.1, 0.2), strict=True))),
    ]
    # the two: idle .55, chef .45, poet .1, coder .1, less .3 on the average; all: chef .3, idle .4, poet .13, coder .17
    assert rank(fitted(train, 2), task("green", "chef")) == ["idle", "chef", "coder", "poet"]


@pytest.mark.parametrize("graded", [False, True])
def test_it_learns_what_topics_decide(graded):
    train, test = topical(120, graded=graded), topical(40, seed=1, graded=graded)
    found = fitted(train, 5).rank(test)
    assert hits(found, test) > 0.9
    assert found == fitted(train, 5).rank(test)
    assert found == fitted([turned(t) for t in reversed(train)], 5).rank([turned(t) for t in test])


def test_an_llm_that_training_did_not_show_is_neither_first_nor_last():
    model = fitted(topical(80), 5)
    new = task("sonnet rhyme", "poet", llms=("newcomer", *LLMS))
    ranking = rank(model, new)
    assert ranking[0] == "poet"
    assert ranking[1] == "newcomer"  # 1/4: all but the poet have less
    assert sorted(rank(model, task("ode", "x", llms=("x", "y")))) == ["x", "y"]


def test_the_preference_and_the_llms_texts_are_not_read():
    train = [task("red fox", "idle", preference="zebra"), task("blue car", "coder", preference="apple")]
    assert rank(fitted(train), task("a fox", "poet", preference="apple apple apple"))[0] == "idle"


def test_each_dataset_has_its_own_outcomes():
    train = [task("a", "poet"), task("a", "coder", dataset="router-cost")]
    model = fitted(train)
    assert rank(model, task("a", "idle"))[0] == "poet"
    assert rank(model, task("a", "idle", dataset="router-cost"))[0] == "coder"


def test_what_it_does_not_apply_to():
    model = fitted(topical(8))
    other = RankingTask.with_positive("t", "passage", "passage-5", "q", task("a", "poet").candidates, "poet")
    assert model.rank([other, task("a", "poet", dataset="router-cost")]) == [None, None]
    assert len(model.rank([other, task("a", "poet"), other])[1]) == 4
    assert fitted([other]).rank([task("a", "poet")]) == [None]
    assert fitted([]).rank([]) == []


def test_queries_without_a_word():
    model = fitted([task("!!", "poet"), task("??", "coder"), task("  ", "chef")])
    assert rank(model, task("??", "idle"))[0] == "coder"
    assert sorted(rank(model, task("unknown", "idle"))) == sorted(LLMS)


def test_an_encoder_that_the_user_names(tmp_path):
    folder = save_encoder(tmp_path / "encoder")
    train, test = topical(80), topical(20, seed=1)
    (model,) = make_baselines(["router-knn"], Context(models={"router-knn": str(folder)}))
    model.fit(train)
    found = model.rank(train)
    assert found != fitted(train, 40).rank(train)
    assert all(sorted(r) == sorted(LLMS) for r in model.rank(test))
    exact = fitted(train, 1, models={"router-knn": str(folder)})
    assert hits(exact.rank(train), train) == 1.0  # each query is its own nearest


def test_a_missing_encoder_is_unavailable(tmp_path):
    with pytest.raises(Unavailable, match="router-knn"):
        fitted(topical(8), models={"router-knn": str(tmp_path / "gone")})
