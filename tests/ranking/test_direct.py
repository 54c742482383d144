"""Direct ranking: golden answers, the policy for what an answer lacks, and what holds whatever a model answers."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iranker_verl.ranking import Candidate, RankingTask
from iranker_verl.ranking.direct import DirectRanking
from reward_fns.answers import label, parse_ranking


def make(texts=("w", "x", "y", "z"), positive=0, relevance=None):
    candidates = tuple(Candidate(f"id{i}", text) for i, text in enumerate(texts))
    if relevance is None:
        relevance = [float(i == positive) for i in range(len(texts))]
    return RankingTask("t1", "recommendation", "rec-movie", "context", candidates, tuple(relevance))


def test_a_golden_ranking():
    task = make(positive=2)
    state = DirectRanking(task)
    assert (state.task, state.pool, state.done, state.steps) == (task, task.candidates, False, [])
    assert state.ranking() == ["id0", "id1", "id2", "id3"]  # before the answer: the order shown
    assert state.ground_truth() == {"candidates": ["w", "x", "y", "z"], "target": 2}
    response = "<think>[A] > [B]?</think><answer>[C] > [A] > [D] > [B]</answer>"
    step = state.step(response)
    assert step.pool == ("id0", "id1", "id2", "id3")
    assert step.named == ("id2", "id0", "id3", "id1")
    assert (step.status, step.malformed, step.missing, step.repeated, step.unknown) == ("ok", False, 0, 0, 0)
    assert step.response == response
    assert state.done and state.steps == [step]
    assert state.ranking() == ["id2", "id0", "id3", "id1"]
    with pytest.raises(ValueError, match="t1"):
        state.step("[A]")
    assert len(state.steps) == 1


def test_graded_ground_truth():
    truth = DirectRanking(make("xyz", relevance=[0.2, 0.9, 0.5])).ground_truth()
    assert truth == {"candidates": ["x", "y", "z"], "target": 1, "relevance": [0.2, 0.9, 0.5]}


@pytest.mark.parametrize(
    ("response", "ranking", "status", "missing", "repeated", "unknown"),
    [
        # what is not named comes last, in the order shown
        ("[C] > [A]", "CABD", "partial", 2, 0, 0),
        ("<answer>[D]</answer>", "DABC", "partial", 3, 0, 0),
        # named twice: the first place counts
        ("[C] > [A] > [C] > [B] > [D]", "CABD", "partial", 0, 1, 0),
        ("[C] > [C] > [C]", "CABD", "partial", 3, 2, 0),
        # an item that names nobody is passed over
        ("[B] > [Q] > [A] > [D] > [C]", "BADC", "partial", 0, 0, 1),
        # no order at all: the order shown
        ("", "ABCD", "no_answer", 4, 0, 0),
        ("<think>[D] > [C] > [B] > [A]", "ABCD", "no_answer", 4, 0, 0),
        ("I cannot decide.", "ABCD", "not_a_candidate", 4, 0, 0),
        ("<answer>[A] > [B]</answer><answer>[B] > [A]</answer>", "ABCD", "several", 4, 0, 0),
    ],
)
def test_the_policy_for_answers_that_are_no_whole_ranking(response, ranking, status, missing, repeated, unknown):
    state = DirectRanking(make())
    step = state.step(response)
    assert state.ranking() == [f"id{'ABCD'.index(x)}" for x in ranking]
    assert step.malformed and step.status == status
    assert (step.missing, step.repeated, step.unknown) == (missing, repeated, unknown)
    assert state.done  # a malformed answer never stalls


def test_nothing_is_mapped_to_the_nearest_candidate():
    # Fault 6 of the published code, in its direct form.
    state = DirectRanking(make(["The Matrix (1999)", "Heat (1995)", "Up (2009)"]))
    step = state.step("<answer>Up (2009)\nMatrix\nHeat (1995)</answer>")
    assert (step.named, step.unknown, step.missing) == (("id2", "id1"), 1, 1)
    assert state.ranking() == ["id2", "id1", "id0"]


def test_equal_texts_never_collapse():
    # Fault 8: a dict keyed by text keeps one of two candidates with one title.
    state = DirectRanking(make(["Twin", "Other", "Twin"], positive=2))
    assert state.step("Twin\nOther\nTwin").status == "ok"
    assert state.ranking() == ["id0", "id1", "id2"]
    state = DirectRanking(make(["Twin", "Other", "Twin"], positive=2))
    state.step("[C] > [A] > [B]")
    assert state.ranking() == ["id2", "id0", "id1"]


texts = st.one_of(
    st.sampled_from(["same", "one", "A", "[B]", "1. one", "a > b", "a, b"]), st.text(min_size=1, max_size=6)
)
tasks = st.lists(texts.filter(str.strip), min_size=2, max_size=20).map(make)
MARKUP = ["<answer>", "</answer>", "<think>", "</think>", "same", "one", "A", " > ", "\n", ", "]
answers = st.lists(
    st.one_of(st.integers(0, 22).map(lambda i: f"[{label(i)}]"), st.sampled_from(MARKUP), st.text(max_size=4)),
    max_size=9,
).map("".join)


@given(tasks, answers)
@settings(max_examples=150)
def test_whatever_is_answered_it_ends_in_a_ranking(task, answer):
    state = DirectRanking(task)
    step = state.step(answer)
    ranking, ids = state.ranking(), [c.id for c in task.candidates]
    assert sorted(ranking) == sorted(ids)
    parsed = parse_ranking(answer, [c.text for c in task.candidates])
    assert list(step.named) == ranking[: len(step.named)] == [ids[i] for i in parsed.order]
    rest = ranking[len(step.named) :]
    assert rest == sorted(rest, key=ids.index) and len(rest) == step.missing
    assert step.malformed == (not parsed.ok)
    assert state.done and state.pool == task.candidates
