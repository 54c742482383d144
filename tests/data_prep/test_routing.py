"""The making of routing tasks: weights, ties, scales, what is shown, splits, and every reason to drop or refuse."""

import json
import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep.options import Options
from data_prep.readers.lines import optional_number
from data_prep.readers.text import query_key, readable
from data_prep.rows import rows
from data_prep.scenarios.descriptions import Described, descriptions, nearest
from data_prep.scenarios.routing import (
    ROUTERS,
    Query,
    Results,
    leads,
    outcomes,
    routing_drafts,
)
from data_prep.tasks import nothing_dropped
from data_prep.tasks import tables as task_tables
from iranker_verl.errors import UserError
from iranker_verl.evaluation.metrics import measure
from iranker_verl.ranking import RankingTask
from iranker_verl.ranking.templates import load
from reward_fns.exclusion import compute_score

NAN = math.nan
# effect, cost, cost_raw. Performance: big (1 > .6 > .5). Cost: .2e - .8c = big -.44, mid .04, tiny .092. Balance: mid
# (.5 * .6 - .5 * .1 = .25) before tiny (.246) and big (.1).
LLMS = {"big": (1.0, 0.8, 0.004), "mid": (0.6, 0.1, 0.002), "tiny": (0.5, 0.008, 0.001)}


def results(*queries, llms=LLMS):
    """Each query a text or a Query, or one of them with the numbers of its LLMs."""
    made = Results()
    for query in queries:
        query, numbers = query if isinstance(query, tuple) else (query, llms)
        query = query if isinstance(query, Query) else Query(query, "t", "t")
        for llm, own in numbers.items():
            made.add(query, llm, *own)
    return made


def run(made, options=None, described=None, datasets=ROUTERS, source="file"):
    dropped = nothing_dropped()
    found = list(routing_drafts(made, described or {}, options or Options(), datasets, dropped, source))
    return found, {name: dict(+counts) for name, counts in dropped.items() if +counts}


def best(found, dataset):
    """{query: its positive}"""
    mine = [draft.task for draft in found if draft.task.dataset == dataset]
    return {t.context.removeprefix("Query: ").rsplit("\n", 1)[0]: t.candidates[t.target].id for t in mine}


def shown(found):
    texts = {tuple(sorted((c.id, c.text) for c in draft.task.candidates)) for draft in found}
    assert len(texts) == 1
    return dict(texts.pop())


def test_the_weights_decide():
    found, dropped = run(results("what?\nA) x, y\nB) z"))
    assert not dropped
    for draft, dataset, positive, preference in zip(
        found,
        ("router-performance", "router-cost", "router-balance"),
        ("big", "tiny", "mid"),
        ("quality only", "quality 0.2, cost 0.8", "quality 0.5, cost 0.5"),
        strict=True,
    ):
        task = draft.task
        assert (task.dataset, task.scenario) == (dataset, "routing")
        assert task.context == f"Query: what?\nA) x, y\nB) z\nPreference: {preference}"
        assert task.candidates[task.target].id == positive
        assert sorted(task.relevance) == [0, 0, 1]
        assert task.id.startswith(f"{dataset}:t:")
        assert draft.group == "what? a) x, y b) z"


def test_the_options_weights_override_the_presets_and_are_said():
    # .1e - .9c: big -.62, mid -.03, tiny .0428
    found, _ = run(results("a"), Options(effect_weight=0.1, cost_weight=0.9), datasets=("router-performance",))
    assert best(found, "router-performance") == {"a": "tiny"}
    assert found[0].task.context.endswith("Preference: quality 0.1, cost 0.9")
    found, _ = run(results("a"), Options(effect_weight=2.0, cost_weight=0.0), datasets=("router-cost",))
    assert best(found, "router-cost") == {"a": "big"}
    assert found[0].task.context.endswith("Preference: quality only")
    for wrong in ((0.0, 0.0), (-1.0, 2.0), (NAN, 1.0), (1.0, math.inf)):
        with pytest.raises(UserError, match=r"give weights from 0, not both 0|has to be a number, 0 or more"):
            run(results("a"), Options(effect_weight=wrong[0], cost_weight=wrong[1]))


def test_a_tie_goes_to_the_cheaper_one_and_a_full_tie_is_dropped():
    cheaper = {"big": (1, 0.5, 0.004), "mid": (1, 0.5, 0.002), "tiny": (0, 0.5, 0.001)}
    tied = {"big": (1, 0.5, 0.002), "mid": (1, 0.5, 0.002), "tiny": (0, 0.0, 0.001)}
    found, dropped = run(results(("cheaper", cheaper), ("tied", tied), "clear"))
    assert best(found, "router-performance") == {"cheaper": "mid", "clear": "big"}
    assert best(found, "router-balance") == {"cheaper": "mid", "clear": "mid"}
    assert best(found, "router-cost")["tied"] == "tiny"  # .2 - .4 < 0: alone the best there
    assert dropped == {"router-performance": {"queries: tied": 1}, "router-balance": {"queries: tied": 1}}


def relevance(draft):
    task = draft.task
    return dict(zip([c.id for c in task.candidates], task.relevance, strict=True))


SCORES = Options(routing_relevance="score")


# big and mid are equal, mid costs less; the files name big before mid, and z first of all.
EQUALS = {"z": (0.1, 0.1, 0.001), "big": (1.0, 0.8, 0.004), "mid": (1.0, 0.1, 0.002)}


@pytest.mark.parametrize(("ties", "positives"), [("graded", {"big", "mid"}), ("cheapest", {"mid"}), ("first", {"big"})])
@pytest.mark.parametrize("relevance", ["best", "score"])
def test_of_equals_all_the_cheapest_or_the_first_are_best(ties, positives, relevance):
    options = Options(routing_ties=ties, routing_relevance=relevance)
    found, dropped = run(results("q", llms=EQUALS), options, datasets=("router-performance",))
    (task,) = [draft.task for draft in found]
    assert not dropped and {c.id for c, r in zip(task.candidates, task.relevance, strict=True) if r > 0} == positives


@pytest.mark.parametrize(("ties", "kept"), [("graded", 0), ("first", 1)])
def test_a_query_on_which_all_llms_are_equal_has_nothing_to_rank_where_ties_are_graded(ties, kept):
    alike = dict.fromkeys("ab", (1.0, 0.5, 0.001))
    found, dropped = run(results("q", llms=alike), Options(routing_ties=ties), datasets=("router-performance",))
    assert len(found) == kept and dropped == ({} if kept else {"router-performance": {"queries: tied": 1}})


def test_the_relevance_may_be_every_llms_score():
    found, _ = run(results("a"), SCORES)
    # performance 1, .6, .5; cost -.44, .04, .0936; balance .1, .25, .246: less the second
    assert relevance(found[0]) == {"big": 0.4, "mid": 0.0, "tiny": -0.1}
    assert relevance(found[1]) == {"big": -0.48, "mid": 0.0, "tiny": 0.0536}
    assert relevance(found[2]) == {"big": -0.146, "mid": 0.004, "tiny": 0.0}


def test_ties_of_scores_have_the_positive_that_they_have_without():
    cheaper = {"big": (1, 0.5, 0.004), "mid": (1, 0.5, 0.002), "tiny": (0, 0.5, 0.001)}
    tied = {"big": (1, 0.5, 0.002), "mid": (1, 0.5, 0.002), "tiny": (0, 0.5, 0.001)}
    flat = {llm: (1, 0.5, cost) for llm, cost in (("big", 3), ("mid", 1), ("tiny", 2))}
    made = results(("cheaper", cheaper), ("tied", tied), ("flat", flat))
    found, dropped = run(made, SCORES, datasets=("router-performance",))
    published, same = run(made, datasets=("router-performance",))
    assert dropped == same
    assert (
        best(found, "router-performance") == best(published, "router-performance") == {"cheaper": "mid", "flat": "mid"}
    )
    by_text = {draft.task.context.split("\n")[0]: relevance(draft) for draft in found}
    assert by_text == {
        "Query: cheaper": {"big": 0.0, "mid": 1e-9, "tiny": -1.0},
        "Query: flat": {"big": 0.0, "mid": 1e-9, "tiny": 0.0},
    }


@pytest.mark.parametrize("kind", ["episodes", "states"])
def test_cost_aware_takes_off_what_an_exclusion_loses(kind):
    utilities = {"router-performance": (1.0, 0.6, 0.5), "router-cost": (-0.44, 0.04, 0.0936)}
    utilities["router-balance"] = (0.1, 0.25, 0.246)
    found, _ = run(results("a"), SCORES)
    for draft in found:
        (table,) = task_tables([draft])
        for row in rows(table, load("label"), Options(rows=kind), "train", 0).to_pylist():
            truth, ids = row["reward_model"]["ground_truth"], row["extra_info"]["candidate_ids"]
            u = dict(zip(("big", "mid", "tiny"), utilities[row["data_source"]], strict=True))
            for place, id in enumerate(ids):
                left = max(u[other] for other in ids if other != id)
                answer = f"<answer>{'ABC'[place]}</answer>"
                parts = compute_score(row["data_source"], answer, truth, kind="cost_aware")
                assert parts["regret"] == pytest.approx(max(u[i] for i in ids) - left, abs=1e-12)
                assert not parts["malformed"]


def test_evaluation_measures_the_same_with_scores():
    made = results("a", ("b", {"big": (0, 0.9, 3), "mid": (1, 0.5, 2), "tiny": (1, 0.5, 1)}))
    scored, published = (
        sorted((d.task for d in run(made, options)[0]), key=lambda t: t.id) for options in (SCORES, Options())
    )
    rankings = [[c.id for c in task.candidates] for task in scored]
    assert measure(scored, rankings) == measure(published, rankings)
    assert [t.target for t in scored] == [t.target for t in published]
    (table,) = task_tables([next(d for d in run(made, SCORES)[0] if d.task.id == scored[0].id)])
    (row,) = rows(table, load("label"), Options(), "test", 0).to_pylist()
    again = RankingTask.from_row(row)
    assert dict(zip([c.id for c in again.candidates], again.relevance, strict=True)) == dict(
        zip([c.id for c in scored[0].candidates], scored[0].relevance, strict=True)
    )


@given(st.lists(st.integers(-1000, 1000), min_size=2, max_size=6))
def test_leads_keep_the_differences_of_scores(thousandths):
    scores = np.array(thousandths) / 1000
    positive = int(scores.argmax())
    found = leads(scores, np.arange(len(scores)) == positive)
    assert [i for i, r in enumerate(found) if r > 0] == [positive]
    for i, j in ((i, j) for i in range(len(scores)) for j in range(len(scores))):
        assert found[i] - found[j] == pytest.approx(scores[i] - scores[j], abs=2e-9)


def test_a_relevance_that_is_not_known_is_refused():
    with pytest.raises(UserError, match="routing_relevance=scores has to be one of best, score"):
        Options(routing_relevance="scores")


def test_without_raw_costs_the_cost_breaks_ties_and_without_costs_the_prices_do():
    made = results(("a", {"big": (1, 0.5), "mid": (1, 0.4), "tiny": (0, 0)}))
    assert best(run(made)[0], "router-performance") == {"a": "mid"}
    made = results(
        ("a", {"big": (1,), "mid": (1,), "tiny": (0,)}),
        ("b", {"big": (0,), "mid": (0,), "tiny": (1,)}),
        ("c", {"big": (1,), "mid": (0,), "tiny": (1,)}),
    )
    priced = {"big": Described(input_price=3, output_price=4), "mid": Described(input_price=2, output_price=2)}
    found, dropped = run(made, described=priced)
    assert best(found, "router-performance") == {"a": "mid", "b": "tiny"}  # what tiny charges is not known
    assert dropped["router-performance"] == {"queries: tied": 1, "LLMs: not described": 1}
    for dataset in ("router-cost", "router-balance"):
        assert dropped[dataset] == {"queries: no cost is known": 3, "LLMs: not described": 1}
        assert not best(found, dataset)
    assert best(run(made)[0], "router-performance") == {"b": "tiny"}


def test_every_reason_to_drop():
    made = results(
        ("no tiny", {"big": (1, 0, 1), "mid": (0, 0, 1)}),
        ("no effect", LLMS | {"mid": (NAN, 0.1, 0.1)}),
        ("no cost", LLMS | {"mid": (0.5, NAN, 0.1)}),
        ("no raw", LLMS | {"mid": (0.5, 0.1, NAN)}),
        "x" * 11,
        "x" * 10,
        "good",
        ("good", LLMS | {"tiny": (9, 0, 0)}),  # the first row counts
    )
    made.dropped["rows: blank"] += 2
    found, dropped = run(made, Options(max_query_chars=10))
    reasons = {
        "queries: an LLM is missing": 1,
        "queries: a number is missing": 3,
        "queries: longer than 10 characters": 1,
        "rows: repeated query and LLM": 3,
        "rows: blank": 2,
    }
    assert dropped == {name: reasons for name in ROUTERS}
    assert best(found, "router-performance") == {"good": "big", "x" * 10: "big"}


def test_nothing_is_left():
    found, dropped = run(results(("a", {"big": (1, 1, 1), "mid": (NAN, 1, 1)}), ("b", {"tiny": (1, 1, 1)})))
    assert not found
    assert dropped == {name: {"queries: an LLM is missing": 2} for name in ROUTERS}


@pytest.mark.parametrize(
    ("llms", "message"),
    [
        ({}, r"file: 0 LLM\(s\); ranking needs at least 2"),
        ({"one": (1, 1, 1)}, r"file: 1 LLM\(s\)"),
        ({"GPT-4": (1, 1, 1), "gpt-4": (1, 1, 1)}, "file: an LLM is called 'GPT-4' and 'gpt-4'; use one spelling"),
    ],
)
def test_llms_that_are_refused(llms, message):
    with pytest.raises(UserError, match=message):
        run(results("a", llms=llms))


def sided(text, side, *, task="t"):
    return Query(text, task, task, side)


def test_raw_costs_are_scaled_within_each_task_by_the_training_queries():
    def costs(*raw):
        return {llm: (1, NAN, cost) for llm, cost in zip(("a", "b", "c"), raw, strict=True)}

    made = results(
        (sided("1", "train"), costs(2, 4, 6)),
        (sided("2", "train"), costs(3, 10, 4)),
        (sided("3", "test"), costs(1, 8, 20)),  # out of the training queries' 2 to 10
        (sided("4", "train", task="u"), costs(100, 300, 150)),
        (sided("5", "test", task="only in test"), costs(2, 151, 400)),  # by all training queries: 2 to 300
        (sided("6", "train", task="flat"), costs(7, 7, 7)),
    )
    data, _ = outcomes(made, Options(), "file")
    found = {query.text: row.tolist() for query, row in zip(data.queries, data.cost, strict=True)}
    assert found == {
        "1": [0, 0.25, 0.5],
        "2": [0.125, 1, 0.25],
        "3": [0, 0.75, 1],
        "4": [0, 1, 0.25],
        "5": [0, 0.5, 1],
        "6": [0, 0, 0],
    }
    assert data.effect.tolist() == [[1, 1, 1]] * 6  # in [0, 1]: as it is


def test_effects_and_costs_on_another_scale_are_scaled_too():
    made = results(
        (sided("1", "train"), {"a": (20, -1), "b": (70, 3)}), (sided("2", "test"), {"a": (45, 1), "b": (80, 3)})
    )
    data, _ = outcomes(made, Options(), "file")
    found = {query.text: (list(e), list(c)) for query, e, c in zip(data.queries, data.effect, data.cost, strict=True)}
    assert found == {"1": ([0, 1], [0, 1]), "2": ([0.5, 1], [0.5, 1])}
    made = results((sided("1", "train"), {"a": (0.25, 0.5), "b": (1 + 1e-9, -1e-9)}))
    data, _ = outcomes(made, Options(), "file")
    assert (data.effect.tolist(), data.cost.tolist()) == ([[0.25, 1]], [[0.5, 0]])


def test_the_average_cost_of_the_training_queries_is_shown():
    def of(test_costs):
        return shown(
            run(
                results(
                    (sided("1", "train"), LLMS),
                    (sided("2", "train"), {llm: (e, c, raw / 1000) for llm, (e, c, raw) in LLMS.items()}),
                    (sided("3", "test"), {llm: (e, c, test_costs) for llm, (e, c, _) in LLMS.items()}),
                    (sided("4", "train"), {"big": (1, 1, 77)}),  # dropped: an LLM is missing
                )
            )[0]
        )

    expected = {"big": "big, avg cost 0.002", "mid": "mid, avg cost 0.001", "tiny": "tiny, avg cost 0.0005"}
    assert of(5.0) == of(9000.0) == expected
    assert shown(run(results(*"ab"), Options(split="test"))[0])["big"] == "big, avg cost 0.004"  # no training query
    tiny = results(("a", {"x": (1, 1, 1.23456e-7), "y": (0, 0, 123456.0)}))
    assert shown(run(tiny)[0]) == {"x": "x, avg cost 0.000000123", "y": "y, avg cost 123000"}
    assert shown(run(results(("a", {"x": (1,), "y": (0,)})))[0]) == {"x": "x", "y": "y"}


def test_descriptions_and_prices(tmp_path):
    file = tmp_path / "llm_descriptions.json"
    file.write_text(
        json.dumps(
            {
                "big": {"description": "knows\n it all", "price": "$3/M"},
                "middle": {"feature": "fair", "input_price": 0.2, "output_price": 0.3, "model": "mid", "size": "7B"},
                "tiny": {"price": 0.1},
            }
        )
    )
    described = descriptions(file)
    texts = {"big": "big, $3/M: knows it all", "mid": "mid, $0.2 in, $0.3 out per 1M tokens: fair", "tiny": "tiny, 0.1"}
    assert shown(run(results("a"), described=described)[0]) == texts
    assert described["mid"].listed == 0.5
    short = shown(run(results("a"), Options(max_llm_chars=20), described=described)[0])
    assert short == {"big": "big, $3/M: knows …", "mid": "mid, $0.2 in, $0.3 …", "tiny": "tiny, 0.1"}
    # Without the price of one, prices are shown of none.
    found, dropped = run(results("a"), described={"big": described["big"], "mid": described["mid"]})
    assert shown(found) == {
        "big": "big, avg cost 0.004: knows it all",
        "mid": "mid, avg cost 0.002: fair",
        "tiny": "tiny, avg cost 0.001",
    }
    assert dropped["router-cost"] == {"LLMs: not described": 1}
    with pytest.raises(UserError, match=r"file: the file of descriptions has none of its LLMs, e\.g\. 'big'"):
        run(results("a"), described={"other": Described()})
    assert descriptions(None) == {}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not a readable JSON file"),
        ("[]", "not an object {name: {description, price}}"),
        ("{}", "not an object"),
        ('{"big": "good"}', "'big' is 'good', not an object"),
        ('{"a": {"input_price": "x"}}', "row 1: input_price is 'x', not a number"),
        ('{"a": {}, "b": {"output_price": -1}}', "row 2: output_price is '-1', below 0"),
    ],
)
def test_descriptions_that_are_refused(tmp_path, text, message):
    file = tmp_path / "llm_descriptions.json"
    file.write_text(text)
    with pytest.raises(UserError) as error:
        descriptions(file)
    assert message in str(error.value)
    assert str(file) in str(error.value)
    assert "\n" not in str(error.value)


def test_the_nearest_descriptions(tmp_path):
    for place in ("a/x", "a/y", "b"):
        (tmp_path / place).mkdir(parents=True)
        (tmp_path / place / "d.json").touch()
    files = sorted(tmp_path.rglob("*.json"))
    assert nearest(["d.json"], tmp_path / "a/x/data.csv", []) == tmp_path / "a/x/d.json"
    (tmp_path / "a/x/d.json").unlink()
    assert nearest(["d.json"], tmp_path / "a/x/data.csv", files[1:]) == tmp_path / "a/y/d.json"
    assert nearest(["d.json"], tmp_path / "a/x/data.csv", files[2:]) == tmp_path / "b/d.json"
    assert nearest(["d.json"], tmp_path / "a/x/data.csv", []) is None


def test_one_split_by_query_for_all_three_and_near_duplicates_together():
    words = [f"w{n}a w{n}b w{n}c w{n}d w{n}e w{n}f w{n}g w{n}h w{n}i" for n in range(40)]
    made = results(
        *words,
        *(Query(text.upper().replace(" ", "  "), "other") for text in words),
        *(f"{text} more" for text in words),  # 9 of 10 words in common
    )
    found, _ = run(made)
    side = {}
    for draft in found:
        side.setdefault(draft.group.removesuffix(" more"), set()).add(draft.side)
    assert len(found) == 3 * 120
    assert Counter(map(tuple, side.values())) == {("train",): 32, ("test",): 8}
    alone, _ = run(made, datasets=("router-cost",))
    assert {(d.task.id, d.side) for d in alone} == {(d.task.id, d.side) for d in found if "cost:" in d.task.id}
    assert {d.side for d in run(made, Options(split="test"))[0]} == {"test"}
    assert {d.side for d in run(results(sided("a", "train")), Options(split="test"))[0]} == {"test"}


def test_the_same_text_on_both_sides_is_two_tasks():
    # Which of them may stay is for the split to say; here they must not get mixed up.
    found, _ = run(results((sided("a", "train"), LLMS), (sided("a", "test"), LLMS)), datasets=("router-cost",))
    assert sorted(draft.side for draft in found) == ["test", "train"]
    assert len({draft.task.id for draft in found}) == 2


@pytest.mark.parametrize(
    ("given", "number"),
    [(1, 1), ("0.5", 0.5), (" 1e-3 ", 0.001), (True, 1), ("False", 0), (-2.5, -2.5)]
    + [(missing, None) for missing in (None, "", " ", "NaN", "nan", "null", "None", "N/A", NAN)],
)
def test_numbers(tmp_path, given, number):
    found = optional_number(given, tmp_path, 3, "cost")
    assert math.isnan(found) if number is None else found == number


@pytest.mark.parametrize("given", ["inf", math.inf, "-inf", "1,5", "$2", [1], {}, "0x1"])
def test_what_is_no_number(tmp_path, given):
    with pytest.raises(UserError, match=r"row 3: cost is .*, not a number"):
        optional_number(given, tmp_path, 3, "cost")


def test_text_that_no_file_can_hold():
    assert readable(" a\ud800b\u2028c\n") == "a?b\u2028c"
    assert len(run(results(readable("\ud800"), "b"))[0]) == 6


# Steps of a thousandth: what is closer than 1e-9 counts as equal. A number or an LLM is missing now and then.
grades = st.integers(0, 1000).map(lambda n: n / 1000) | st.sampled_from([0.0, 0.5, 1.0])
costs = st.integers(0, 9).map(float) | st.floats(0, 1e4)
outcome = st.one_of(*[st.tuples(grades, costs)] * 14, st.tuples(st.just(NAN), costs), st.none())
tables = st.dictionaries(
    st.tuples(
        st.sampled_from(["one two three", "ONE  two three", "one two three four", "five", "six seven"]),
        st.sampled_from(["task", "other"]),
    ),
    st.fixed_dictionaries({llm: outcome for llm in "abc"}),
    min_size=1,
)


def built(rows):
    made = Results()
    for text, task, llm, effect, raw in rows:
        made.add(Query(text, task, task), llm, effect, cost_raw=raw)
    return made


@given(tables, st.integers(0, 9), st.booleans(), st.data())
@settings(max_examples=60, deadline=None)
def test_the_making_of_tasks(table, seed, costs_known, data):
    by_query = {key: {llm: own for llm, own in outcomes.items() if own} for key, outcomes in table.items()}
    if not costs_known:
        by_query = {key: {llm: (own[0], NAN) for llm, own in outcomes.items()} for key, outcomes in by_query.items()}
    by_query = {key: outcomes for key, outcomes in by_query.items() if outcomes}
    rows = [(*key, llm, *own) for key, outcomes in by_query.items() for llm, own in outcomes.items()]
    llms = {row[2] for row in rows}
    if len(llms) < 2:
        return
    options = Options(seed=seed, near_duplicate=0.7)
    found, dropped = run(built(rows), options)
    assert run(built(data.draw(st.permutations(rows))), options) == (
        found,
        dropped,
    )  # the order of rows changes nothing

    for dataset, thrift in (("router-performance", 0), ("router-cost", 0.8), ("router-balance", 0.5)):
        tasks = [draft for draft in found if draft.task.dataset == dataset]
        assert len(tasks) + sum(dropped.get(dataset, {}).values()) == len(by_query)  # a task, or one reason
        assert costs_known or not thrift or not tasks
        for draft in tasks:
            assert draft.side in ("train", "test")
            assert {c.id for c in draft.task.candidates} == llms
            text = draft.task.context.removeprefix("Query: ").rsplit("\n", 1)[0]
            assert draft.group == query_key(text)
            own = by_query[text, draft.task.id.split(":")[1]]
            positive = draft.task.candidates[draft.task.target].id
            effect, raw = own[positive]
            for other, other_raw in (own[llm] for llm in llms - {positive}):
                if not thrift:
                    assert effect > other or (effect == other and raw < other_raw)
                else:  # nobody is at least as good and no dearer; the scale is tested above
                    assert other < effect or other_raw > raw
    sides = {}
    for draft in found:
        sides.setdefault(draft.group, set()).add(draft.side)
    assert all(len(side) == 1 for side in sides.values())
    near = [sides[group] for group in ("one two three", "one two three four") if group in sides]  # 3 of 4 words
    assert len(near) < 2 or near[0] == near[1]
