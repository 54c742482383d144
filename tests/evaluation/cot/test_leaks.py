"""The leak proof: every trace of a test query is found, and no other."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iranker_verl.errors import UserError
from iranker_verl.evaluation.cot.leaks import find_leaks, prove_no_leaks, without_leaks
from tests.evaluation.cot.samples import store, task, trace

QUERY = "how long can a common swift stay up in the air without landing"


def test_the_proof():
    made = store(trace("how long is the Nile", group="nile"), trace(QUERY, dataset="rec-movie"))
    proof = prove_no_leaks(
        made, [task(QUERY, id="q1"), task("x", id="q2")], groups={("passage-5", "q1"): "swift"}, threshold=0.7
    )
    assert proof.to_json() == {
        "store_hash": made.hash,
        "traces": 2,
        "test_tasks": 2,
        "groups": 1,
        "threshold": 0.7,
    }
    assert prove_no_leaks(store(), [task(QUERY)]).traces == 0
    assert prove_no_leaks(made, []).test_tasks == 0


@pytest.mark.parametrize(
    ("context", "words"),
    [
        (QUERY, "a context of similarity 1.00 to that of"),
        (
            "How long can a  COMMON swift stay\nup in the air, without landing?",
            "a context of similarity 1.00 to that of",
        ),
        (QUERY.replace("common", "young"), "a context of similarity 0.86 to that of"),  # 12 of 14 words
        ("landing without air the in up stay swift common a can long how", "a context of similarity 1.00 to that of"),
        (QUERY + " or sleeping", "a context of similarity 0.87 to that of"),  # 13 of 15 words
    ],
)
def test_a_test_query_is_caught(context, words):
    made = store(trace("how long is the Nile"), trace(context, task_id="t7"))
    with pytest.raises(UserError) as error:
        prove_no_leaks(made, [task("another", id="q0"), task(QUERY, "passage-9", id="q1")])
    text = str(error.value)
    assert f"1 of 2 reasoning traces are of test queries: the trace of task 't7': {words} test task 'q1'" in text
    assert "--test" in text and "\n" not in text
    assert [leak.index for leak in find_leaks(made, [task(QUERY)])] == [1]


def test_ids_and_groups_are_caught_whatever_the_context():
    tests = [task("a", "rec-movie", "u1"), task("b", "router-cost", "r1"), task("c", "passage-5", "p1")]
    groups = {("rec-movie", "u1"): "user 1", ("router-cost", "r1"): "what is 2 + 2", ("passage-5", "p1"): "7"}
    caught = [
        trace("x", dataset="rec-movie", task_id="u1"),
        trace("x", dataset="rec-movie", group="user 1"),
        trace("x", dataset="router-balance", group="what is 2 + 2"),  # a query, whatever the preference
        trace("x", dataset="router-balance", group="What is 2+2?"),  # nearly
        trace("x", dataset="passage-9", group="7"),
    ]
    free = [
        trace("x", dataset="rec-music", task_id="u1"),
        trace("x", dataset="rec-music", group="user 1"),  # another data set's user
        trace("x", dataset="rec-movie", group="7"),
        trace("x", dataset="router-cost", group="7"),
        trace("x", dataset="rec-movie"),
    ]
    found = find_leaks(store(*free, *caught), tests, groups=groups)
    assert [leak.index for leak in found] == [5, 6, 7, 8, 9]
    assert [leak.test_id for leak in found] == ["u1", "u1", "r1", "r1", "p1"]
    assert [leak.index for leak in find_leaks(store(*free, *caught), tests)] == [5]  # the id needs no groups
    assert prove_no_leaks(store(*free), tests, groups=groups).groups == 3


def test_a_preference_makes_no_two_queries_alike():
    def context(query):
        return f"Query: {query}\nPreference: quality 0.2, cost 0.8"

    mine, other = "name a red fruit that floats", "name a red fish that sings"  # 4 of 8 words; with the rest 11 of 15
    tests, groups = [task(context(other), "router-cost", "r1")], {("router-cost", "r1"): other}
    known = store(trace(context(mine), dataset="router-cost", group=mine))
    unknown = store(trace(context(mine), dataset="router-cost"))
    assert find_leaks(known, tests, groups=groups, threshold=0.7) == []
    assert len(find_leaks(known, tests, groups=groups, threshold=0.5)) == 1
    assert len(find_leaks(unknown, tests, groups=groups, threshold=0.7)) == 1  # contexts are all that can be compared
    assert len(find_leaks(known, tests, threshold=0.7)) == 1


def test_what_offends_can_be_left_out_and_is_counted():
    made = store(trace("how long is the Nile"), trace(QUERY))
    left = without_leaks(made, [task(QUERY)])
    assert left.traces == made.traces[:1]
    assert left.manifest["counts"] == {"kept": 1, "of test queries": 1} and made.manifest["counts"] == {"kept": 9}
    assert prove_no_leaks(left, [task(QUERY)]).store_hash == left.hash


@pytest.mark.parametrize("threshold", [0, -1, 1.01, float("nan")])
def test_a_threshold_that_is_none(threshold):
    with pytest.raises(UserError, match="above 0 and at most 1"):
        prove_no_leaks(store(), [], threshold=threshold)


texts = st.lists(st.sampled_from("abcdefgh"), max_size=7).map(" ".join)


@given(st.lists(texts, max_size=6), st.lists(texts, max_size=6), st.sampled_from([0.1, 0.34, 0.5, 2 / 3, 0.8, 1.0]))
@settings(max_examples=150, deadline=None)
def test_no_pair_is_missed_and_none_is_made_up(ours, tests, threshold):
    def alike(one, other):
        a, b = set(one.split()), set(other.split())
        return one == other or (bool(a | b) and len(a & b) / len(a | b) >= threshold - 1e-9)

    wanted = [i for i, one in enumerate(ours) if any(alike(one, other) for other in tests)]
    made = store(*(trace(text, task_id=f"t{i}") for i, text in enumerate(ours)))
    found = find_leaks(made, [task(text, id=f"q{j}") for j, text in enumerate(tests)], threshold=threshold)
    assert [leak.index for leak in found] == wanted
