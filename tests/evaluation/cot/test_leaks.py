"""The guard: no thought of a test query goes through, and no other is stopped."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iranker_verl.errors import UserError
from iranker_verl.evaluation.cot.leaks import guard, offences, without
from tests.evaluation.cot.samples import store, task, thought

QUERY = "how long can a common swift stay up in the air without landing"


def test_the_proof():
    made = store(thought("how long is the Nile", group="nile"), thought(QUERY, dataset="rec-movie"))
    proof = guard(
        made, [task(QUERY, id="q1"), task("x", id="q2")], groups={("passage-5", "q1"): "swift"}, threshold=0.7
    )
    assert proof.to_json() == {
        "store_hash": made.hash,
        "thoughts": 2,
        "test_tasks": 2,
        "groups": 1,
        "threshold": 0.7,
    }
    assert guard(store(), [task(QUERY)]).thoughts == 0
    assert guard(made, []).test_tasks == 0


@pytest.mark.parametrize(
    ("context", "words"),
    [
        (QUERY, "the same context as"),
        ("How long can a  COMMON swift stay\nup in the air, without landing?", "the same context as"),
        (QUERY.replace("common", "young"), "a context 0.86 like that of"),  # 12 of 14 words
        ("landing without air the in up stay swift common a can long how", "a context 1.00 like that of"),
        (QUERY + " or sleeping", "a context 0.87 like that of"),  # 13 of 15 words
    ],
)
def test_a_test_query_is_caught(context, words):
    made = store(thought("how long is the Nile"), thought(context, task_id="t7"))
    with pytest.raises(UserError) as error:
        guard(made, [task("another", id="q0"), task(QUERY, "passage-9", id="q1")])
    text = str(error.value)
    assert f"1 of 2 thoughts are of test queries: the thought of task 't7': {words} test task 'q1'" in text
    assert "--test" in text and "\n" not in text
    assert [o.place for o in offences(made, [task(QUERY)])] == [1]


def test_ids_and_groups_are_caught_whatever_the_context():
    tests = [task("a", "rec-movie", "u1"), task("b", "router-cost", "r1"), task("c", "passage-5", "p1")]
    groups = {("rec-movie", "u1"): "user 1", ("router-cost", "r1"): "what is 2 + 2", ("passage-5", "p1"): "7"}
    caught = [
        thought("x", dataset="rec-movie", task_id="u1"),
        thought("x", dataset="rec-movie", group="user 1"),
        thought("x", dataset="router-balance", group="what is 2 + 2"),  # a query, whatever the preference
        thought("x", dataset="router-balance", group="What is 2+2?"),  # nearly
        thought("x", dataset="passage-9", group="7"),
    ]
    free = [
        thought("x", dataset="rec-music", task_id="u1"),
        thought("x", dataset="rec-music", group="user 1"),  # another data set's user
        thought("x", dataset="rec-movie", group="7"),
        thought("x", dataset="router-cost", group="7"),
        thought("x", dataset="rec-movie"),
    ]
    found = offences(store(*free, *caught), tests, groups=groups)
    assert [o.place for o in found] == [5, 6, 7, 8, 9]
    assert [o.test_id for o in found] == ["u1", "u1", "r1", "r1", "p1"]
    assert [o.place for o in offences(store(*free, *caught), tests)] == [5]  # the id needs no groups
    assert guard(store(*free), tests, groups=groups).groups == 3


def test_a_preference_makes_no_two_queries_alike():
    def context(query):
        return f"Query: {query}\nPreference: quality 0.2, cost 0.8"

    mine, other = "name a red fruit that floats", "name a red fish that sings"  # 4 of 8 words; with the rest 11 of 15
    tests, groups = [task(context(other), "router-cost", "r1")], {("router-cost", "r1"): other}
    known = store(thought(context(mine), dataset="router-cost", group=mine))
    unknown = store(thought(context(mine), dataset="router-cost"))
    assert offences(known, tests, groups=groups, threshold=0.7) == []
    assert len(offences(known, tests, groups=groups, threshold=0.5)) == 1
    assert len(offences(unknown, tests, groups=groups, threshold=0.7)) == 1  # contexts are all that can be compared
    assert len(offences(known, tests, threshold=0.7)) == 1


def test_what_offends_can_be_left_out_and_is_counted():
    made = store(thought("how long is the Nile"), thought(QUERY))
    left = without(made, [task(QUERY)])
    assert left.thoughts == made.thoughts[:1]
    assert left.manifest["counts"] == {"kept": 1, "of test queries": 1} and made.manifest["counts"] == {"kept": 9}
    assert guard(left, [task(QUERY)]).store_hash == left.hash


@pytest.mark.parametrize("threshold", [0, -1, 1.01, float("nan")])
def test_a_threshold_that_is_none(threshold):
    with pytest.raises(UserError, match="above 0 and at most 1"):
        guard(store(), [], threshold=threshold)


texts = st.lists(st.sampled_from("abcdefgh"), max_size=7).map(" ".join)


@given(st.lists(texts, max_size=6), st.lists(texts, max_size=6), st.sampled_from([0.1, 0.34, 0.5, 2 / 3, 0.8, 1.0]))
@settings(max_examples=150, deadline=None)
def test_no_pair_is_missed_and_none_is_made_up(ours, tests, threshold):
    def alike(one, other):
        a, b = set(one.split()), set(other.split())
        return one == other or (bool(a | b) and len(a & b) / len(a | b) >= threshold - 1e-9)

    wanted = [i for i, one in enumerate(ours) if any(alike(one, other) for other in tests)]
    made = store(*(thought(text, task_id=f"t{i}") for i, text in enumerate(ours)))
    found = offences(made, [task(text, id=f"q{j}") for j, text in enumerate(tests)], threshold=threshold)
    assert [o.place for o in found] == wanted
