"""Baselines know what they are fitted on, and nothing of the order shown."""

from collections import Counter
from dataclasses import replace

import pytest

from iranker_verl.errors import UserError
from iranker_verl.evaluation.baselines import BASELINES, STANDARD, Context, make_baselines
from iranker_verl.evaluation.evaluate import evaluate_baselines
from iranker_verl.evaluation.results import collect
from iranker_verl.evaluation.systems import ModelSystem, Role
from iranker_verl.inference.endpoint import Endpoint
from iranker_verl.ranking import Candidate, RankingTask
from iranker_verl.ranking.templates import load
from tests.fake_openai import FakeServer, answer

RECOMMENDING = [name for name in STANDARD if name != "constant"]


def task(texts, *, id="t", scenario="recommendation", dataset="rec-movie", context="", positive=0):
    candidates = tuple(Candidate(f"id-{t}" if t else "", t) for t in texts)
    return RankingTask.with_positive(id, scenario, dataset, context, candidates, candidates[positive].id)


def baseline(name, seed=0):
    return make_baselines([name], Context(seed))[0]


def rank(model, task):
    return model.rank([task])[0]


def test_each_is_found_by_its_name():
    assert [r.name for r in make_baselines(BASELINES)] == list(BASELINES)
    with pytest.raises(UserError, match="unknown baseline 'bm52'; choose from random, "):
        make_baselines(["bm52"])


@pytest.mark.parametrize("baseline", make_baselines(RECOMMENDING), ids=lambda r: r.name)
def test_rankings_are_orders_and_seeded(baseline):
    tasks = [task(["red car", "blue car", "old boat"], id=str(i), context="blue") for i in range(5)]
    baseline.fit(tasks)
    again = make_baselines([baseline.name])[0]
    again.fit(tasks)
    for t in tasks:
        assert sorted(rank(baseline, t)) == sorted(c.id for c in t.candidates)
        assert rank(baseline, t) == rank(again, t)


def test_random_puts_every_place_first():
    first = Counter(rank(baseline("random", 0), task(["a", "b", "c"], id=str(i)))[0] for i in range(300))
    assert len(first) == 3 and min(first.values()) > 60
    assert rank(baseline("random", 1), task(list("abcdefgh"))) != rank(baseline("random", 2), task(list("abcdefgh")))


@pytest.mark.parametrize("baseline", make_baselines(["popularity", "bm25"]), ids=lambda r: r.name)
def test_ties_do_not_keep_the_order_shown(baseline):
    baseline.fit([])
    first = Counter(rank(baseline, task(["w", "x", "y"], id=str(i), context="other words"))[0] for i in range(300))
    assert len(first) == 3 and min(first.values()) > 60


def test_popularity_counts_positives_and_mentions():
    model = baseline("popularity")
    model.fit(
        [
            task(["Heat", "Alien"], positive=0),
            task(["Heat", "Alien"], positive=0, context="Up, Alien, Alienation"),
            task(["Up", "Alien"], positive=0, context="Up"),
        ]
    )
    # Up: chosen once, mentioned twice; Heat: chosen twice; Alien: mentioned once (Alienation is another word).
    assert rank(model, task(["Alien", "Heat", "Up", "Unseen"])) == ["id-Up", "id-Heat", "id-Alien", "id-Unseen"]


def test_popularity_counts_histories_by_id_where_tasks_have_ids():
    model = baseline("popularity")
    seen = replace(task(["Heat", "Alien"], context="whatever it is called"), history=("id-Up", "id-Up", "id-Alien"))
    model.fit([seen])
    assert rank(model, task(["Unseen", "Alien", "Up"]))[::2] == ["id-Up", "id-Unseen"]


def test_popularity_keeps_datasets_apart_and_knows_its_scenario():
    model = baseline("popularity")
    model.fit([task(["a", "b"], dataset="rec-music", positive=1)] * 3 + [task(["a", "b"], positive=0)])
    assert rank(model, task(["b", "a"]))[0] == "id-a"
    assert rank(model, task(["a", "b"], scenario="passage", dataset="passage-5")) is None


def test_bm25_finds_the_words_of_the_context():
    model = baseline("bm25")
    model.fit([task(["the cat sat", "the dog ran"])])
    assert rank(
        model, task(["the dog ran", "the Heron stood", "the cat sat"], context="Where do herons, a heron, live?")
    )[0] == ("id-the Heron stood")


def test_bm25_learns_rarity_from_training_texts():
    common = [task([f"film number {i}", f"film of {i}"], id=str(i)) for i in range(50)]
    model = baseline("bm25")
    model.fit(common)
    assert rank(model, task(["film story", "heron story"], context="film heron"))[0] == "id-heron story"


def test_bm25_with_texts_that_hold_no_word():
    model = baseline("bm25")
    model.fit([])
    assert sorted(rank(model, task(["!!", "??"], context="!"))) == ["id-!!", "id-??"]
    assert rank(model, task(["!!", "word"], context="word"))[0] == "id-word"


@pytest.mark.parametrize("model", make_baselines(RECOMMENDING), ids=lambda r: r.name)
def test_the_order_shown_decides_nothing(model):
    model.fit([])
    shown, turned = task(["w", "x", "y", "z"]), task(["z", "y", "x", "w"], positive=3)
    assert rank(model, shown) == rank(model, turned)


class Asks:
    """A baseline that asks a server's model."""

    name = "asks"

    def __init__(self, url):
        self.url = url

    def system(self):
        model = Endpoint(self.url, "fake", retries=0)
        return ModelSystem("asks", model, load("direct-label"), Role.BASELINE, scenario="passage")


def test_a_baseline_that_is_a_model_is_judged_by_its_answers(tmp_path):
    tasks = [
        task(["a", "b"], id=f"t{i}", positive=1, scenario=s) for i, s in enumerate(["passage", "passage", "routing"])
    ]
    server = FakeServer(lambda request, number: (200, answer("[B] > [A]" if number == 1 else "[B]")))
    with server.serving():
        for _ in range(2):  # the second time what was done before is read again
            asks = Asks(server.url)
            [result] = evaluate_baselines([], tasks, tmp_path, baselines=[asks], log=lambda _: None)
            numbers = collect([result])["macro"]["asks"]
            assert (numbers["malformed_rate"], numbers["calls_per_task"], numbers["n"]) == (0.5, 1, 2)
            assert (numbers["rr"], numbers["rr_strict"]) == (
                1.0,
                0.75,
            )  # the second answer names half of the candidates
    assert len(server.requests) == 2


# ---------------------------------------------------------------- the constant ranker


def routed(best, *, id="t", llms="abc", dataset="router-cost", scores=None):
    candidates = tuple(Candidate(llm, f"{llm} is an LLM") for llm in llms)
    relevance = tuple(float(llm == best) for llm in llms) if scores is None else scores
    return RankingTask(id, "routing", dataset, f"Query: {id}\nPreference: x", candidates, relevance)


def test_the_constant_ranker_orders_llms_by_their_share_of_wins():
    model = baseline("constant")
    # of the queries that each was a candidate of: a won 1 of 4, b 1 of 2, c 2 of 3
    shown = [("c", "abc"), ("a", "ab"), ("c", "ac"), ("b", "bca")]
    model.fit([routed(best, id=str(i), llms=llms) for i, (best, llms) in enumerate(shown)])
    assert rank(model, routed("a", id="new")) == ["c", "b", "a"]
    # d has no training queries and gets the mean of the others, (1/4 + 1/3 + 1/2)/3; b won 1 of 3
    assert rank(model, routed("a", id="new", llms="dabc")) == ["c", "d", "b", "a"]
    assert rank(model, routed("a", id="new", dataset="router-balance")) is None


def test_the_constant_ranker_orders_llms_by_their_mean_score_where_relevance_is_graded():
    model = baseline("constant")
    # centred: a 0.3, b 0, c -0.3; a -0.3, b 0.5, c -0.2: means 0, 0.25, -0.25
    model.fit([routed(None, id="1", scores=(0.9, 0.6, 0.3)), routed(None, id="2", scores=(0.0, 0.8, 0.1))])
    assert rank(model, routed(None, id="new", scores=(1.0, 0.0, 0.0))) == ["b", "a", "c"]


def test_the_constant_ranker_orders_passages_by_their_position_in_the_source():
    def passages(*ids):
        candidates = tuple(Candidate(id, f"text {id}") for id in ids)
        return RankingTask.with_positive("t", "passage", "passage-5", "q", candidates, ids[0])

    model = baseline("constant")
    model.fit([])
    assert rank(model, passages("2", "0", "1")) == ["0", "1", "2"]
    for ids in (("3", "0", "1"), ("d1", "d0"), ("00", "1"), ("8412684", "7067032")):  # no positions
        assert rank(model, passages(*ids)) is None
    assert rank(model, task(["a", "b"])) is None  # popularity is the constant ranker of recommendation
