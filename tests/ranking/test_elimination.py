"""The elimination state machine: golden episodes, and what holds whatever a model answers."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from iranker_verl.ranking import Candidate, Elimination, RankingTask
from reward_fns.answers import label, parse_exclusion
from reward_fns.exclusion import compute_score, relevance_of


def make(texts, positive=0, relevance=None):
    candidates = tuple(Candidate(f"id{i}", text) for i, text in enumerate(texts))
    if relevance is None:
        relevance = [float(i == positive) for i in range(len(texts))]
    return RankingTask("t1", "recommendation", "rec-movie", "context", candidates, tuple(relevance))


def test_a_golden_episode():
    state = Elimination(make(["w", "x", "y", "z"], positive=2))
    assert not state.done and not state.decided
    assert state.step("[B]").excluded == "id1"
    assert [c.id for c in state.pool] == ["id0", "id2", "id3"]  # in the task's order, labelled anew
    step = state.step("<answer>[C]</answer>")
    assert (step.pool, step.excluded, step.status, step.malformed) == (("id0", "id2", "id3"), "id3", "ok", False)
    assert state.ranking() == ["id0", "id2", "id3", "id1"]  # unfinished: what is left, in the order shown
    assert state.step("w").excluded == "id0"
    assert state.done and state.decided
    assert state.ranking() == ["id2", "id0", "id3", "id1"]
    with pytest.raises(ValueError, match="t1"):
        state.step("[A]")
    assert len(state.steps) == 3


def test_a_malformed_answer_drops_the_last_shown_and_is_counted():
    state = Elimination(make(["w", "x", "y"]))
    step = state.step("hm")
    assert (step.excluded, step.status, step.malformed, step.response) == ("id2", "not_a_candidate", True, "hm")
    assert state.step("").status == "no_answer"
    assert state.done
    assert state.ranking() == ["id0", "id1", "id2"]


def test_a_golden_episode_through_a_window():
    state = Elimination(make(["v", "w", "x", "y", "z"]), window=3)
    assert [c.id for c in state.pool] == ["id2", "id3", "id4"]
    assert state.step("[B]").excluded == "id3"
    assert [c.id for c in state.pool] == ["id1", "id2", "id4"]  # the next from the front comes in
    assert state.ranking() == ["id0", "id1", "id2", "id4", "id3"]
    assert state.step("no idea").excluded == "id4"  # the last shown
    assert state.step("[C]").excluded == "id2"
    assert [c.id for c in state.pool] == ["id0", "id1"]
    assert state.step("[A]").excluded == "id0" and state.done
    assert state.ranking() == ["id1", "id0", "id2", "id4", "id3"]
    with pytest.raises(ValueError, match="2 candidates at least"):
        Elimination(make(["v", "w"]), window=1)


def test_a_golden_episode_of_several_exclusions_a_call():
    state = Elimination(make(["v", "w", "x", "y", "z"]), per_call=2)
    step = state.step("[D], [B]")
    assert (step.excluded, step.also, step.status) == ("id3", ("id1",), "ok")
    assert [c.id for c in state.pool] == ["id0", "id2", "id4"]
    step = state.step("[C] > [A] > [B]")  # the third stays, whatever is said of it
    assert (step.excluded, step.also) == ("id4", ("id0",)) and state.done
    assert state.ranking() == ["id2", "id0", "id4", "id1", "id3"]


@pytest.mark.parametrize(("per_call", "calls"), [(1, 8), (3, 3), ("half", 3), ("all", 1), (100, 1)])
def test_so_many_calls_rank_nine(per_call, calls):
    state = Elimination(make([f"text {i}" for i in range(9)]), per_call=per_call)
    while not state.done:
        state.step(", ".join(f"[{label(i)}]" for i in reversed(range(len(state.pool)))))
    assert len(state.steps) == calls and state.ranking() == [f"id{i}" for i in range(9)]


def test_who_names_too_few_is_malformed_and_the_last_shown_leave_after_those_named():
    state = Elimination(make(["v", "w", "x", "y"]), per_call=3)
    step = state.step("[A]")
    assert step.malformed and (step.excluded, step.also) == ("id0", ("id3", "id2"))
    assert Elimination(make(["v", "w", "x"]), per_call="all").step("no idea").also == ("id1",)


@pytest.mark.parametrize("per_call", [0, -1, "most"])
def test_a_number_of_exclusions_that_is_none(per_call):
    with pytest.raises(ValueError, match="1 candidate at least"):
        Elimination(make(["v", "w"]), per_call=per_call)


@given(st.lists(st.text("[]ABCDE ,>x", max_size=12), min_size=8, max_size=8), st.sampled_from([2, 3, "half", "all"]))
def test_whatever_is_answered_every_candidate_has_one_rank(responses, per_call):
    state = Elimination(make([f"text {i}" for i in range(8)]), per_call=per_call)
    for response in responses:
        if not state.done:
            state.step(response)
    assert state.done and sorted(state.ranking()) == [f"id{i}" for i in range(8)]


@given(st.permutations(range(12)), st.integers(2, 14))
def test_a_judge_that_never_errs_has_the_best_of_a_window_in_order(worth, window):
    state = Elimination(make([f"text {i}" for i in range(12)], relevance=worth), window=window)
    while not state.done:
        assert len(state.pool) == min(window, 12 - len(state.steps))
        state.step(f"[{label(min(range(len(state.pool)), key=state.ground_truth()['relevance'].__getitem__))}]")
    ranking, truth = state.ranking(), [f"id{i}" for i in sorted(range(12), key=lambda i: -worth[i])]
    assert len(state.steps) == 11 and sorted(ranking) == sorted(truth)
    assert ranking[: window - 1] == truth[: window - 1]
    assert window < 12 or ranking == truth


def test_nothing_is_mapped_to_the_nearest_candidate():
    # Fault 6 of the published code: an unreadable answer silently became the most similar candidate.
    step = Elimination(make(["The Matrix (1999)", "Heat (1995)", "Up (2009)"])).step("Matrix")
    assert step.malformed and step.excluded == "id2"


def test_equal_texts_never_collapse():
    # Fault 8: a dict keyed by text keeps one of two candidates with one title.
    state = Elimination(make(["Twin", "Other", "Twin"], positive=2))
    assert state.step("Twin").excluded == "id0"
    assert state.step("Twin").excluded == "id2"
    assert state.ranking() == ["id1", "id2", "id0"]
    state = Elimination(make(["Twin", "Other", "Twin"], positive=2))
    assert state.step("[C]").excluded == "id2"


def test_all_texts_equal_is_still_a_ranking():
    state = Elimination(make(["same"] * 5))
    while not state.done:
        state.step("same")
    assert sorted(state.ranking()) == [f"id{i}" for i in range(5)]


def test_decided_once_the_positive_is_out_or_alone():
    state = Elimination(make(["x", "y", "z"], positive=1))
    state.step("[B]")
    assert state.decided and not state.done
    state = Elimination(make(["x", "y", "z"], relevance=[1.0, 2.0, 2.0]))
    assert not state.decided
    state.step("[A]")
    assert state.decided and not state.done


def test_ground_truth_of_every_pool():
    state = Elimination(make(["x", "y", "z"], positive=1))
    assert state.ground_truth() == {"candidates": ["x", "y", "z"], "target": 1}
    state.step("[A]")
    assert state.ground_truth() == {"candidates": ["y", "z"], "target": 0}
    # the positive has gone: nothing to regret, and no target to pretend
    state = Elimination(make(["x", "y", "z"], positive=1))
    state.step("[B]")
    assert state.ground_truth()["relevance"] == [0.0, 0.0]
    assert compute_score("d", "[A]", state.ground_truth())["score"] == 1.0


def test_graded_ground_truth():
    state = Elimination(make(["x", "y", "z"], relevance=[0.2, 0.9, 0.5]))
    assert state.ground_truth() == {"candidates": ["x", "y", "z"], "target": 1, "relevance": [0.2, 0.9, 0.5]}
    state.step("[B]")
    assert state.ground_truth() == {"candidates": ["x", "z"], "target": 1, "relevance": [0.2, 0.5]}


MARKUP = ["<answer>", "</answer>", "<think>", "</think>", "[A]", "[B]", "same", "one", "A", " ", "1. "]
texts = st.one_of(st.sampled_from(["same", "one", "A", "[B]", "B.", "1. one"]), st.text(min_size=1, max_size=6))
tasks = st.integers(2, 30).flatmap(
    lambda n: st.tuples(
        st.lists(texts.filter(str.strip), min_size=n, max_size=n),
        st.lists(st.sampled_from([0.0, 0.5, 1.0]), min_size=n, max_size=n).filter(lambda r: len(set(r)) > 1),
    ).map(lambda x: make(x[0], relevance=x[1]))
)
answers = st.one_of(
    st.integers(0, 35).map(lambda i: f"[{label(i)}]"),
    texts,
    st.lists(st.one_of(st.sampled_from(MARKUP), st.text(max_size=4)), max_size=6).map("".join),
)


@given(tasks, st.data())
@settings(max_examples=60)
def test_whatever_is_answered_every_episode_ends_in_a_ranking(task, data):
    state = Elimination(task)
    n = len(task.candidates)
    for _ in range(n - 1):
        assert not state.done
        state.step(data.draw(answers))
    assert state.done and state.decided
    assert len(state.steps) == n - 1
    assert sorted(state.ranking()) == sorted(c.id for c in task.candidates)
    assert [s.excluded for s in state.steps] == state.ranking()[:0:-1]
    with pytest.raises(ValueError):
        state.step("[A]")


class EliminationMachine(RuleBasedStateMachine):
    """Against the plainest model of it: a list of places."""

    @initialize(task=tasks)
    def begin(self, task):
        self.task, self.state = task, Elimination(task)
        self.left = list(range(len(task.candidates)))
        self.out = []
        self.malformed = 0

    @precondition(lambda self: len(self.left) > 1)
    @rule(answer=answers)
    def answer(self, answer):
        shown = [self.task.candidates[i] for i in self.left]
        place = parse_exclusion(answer, [c.text for c in shown]).index
        self.malformed += place is None
        if place is None:
            place = len(shown) - 1
        truth = self.state.ground_truth()
        parts = compute_score("d", answer, truth)
        step = self.state.step(answer)
        self.out.append(self.left.pop(place))
        assert step.excluded == shown[place].id
        assert step.pool == tuple(c.id for c in shown)
        assert parts["malformed"] == float(step.malformed)
        assert parts["pool_size"] == len(shown)

    @precondition(lambda self: len(self.left) == 1)
    @rule(answer=answers)
    def over(self, answer):
        with pytest.raises(ValueError):
            self.state.step(answer)

    @invariant()
    def the_state_is_the_models(self):
        if not hasattr(self, "state"):
            return
        ids = [c.id for c in self.task.candidates]
        assert [c.id for c in self.state.pool] == [ids[i] for i in self.left]
        assert self.state.ranking() == [ids[i] for i in self.left + self.out[::-1]]
        assert self.state.done == (len(self.left) == 1)
        relevance = [self.task.relevance[i] for i in self.left]
        assert self.state.decided == (max(relevance) == min(relevance))
        assert sum(s.malformed for s in self.state.steps) == self.malformed

    @invariant()
    def the_ith_text_is_the_ith_labels(self):
        if not hasattr(self, "state"):
            return
        truth = self.state.ground_truth()
        assert truth["candidates"] == [c.text for c in self.state.pool]
        candidates, relevance = relevance_of(truth)
        if not self.state.decided:
            assert relevance[truth["target"]] == max(self.task.relevance[i] for i in self.left)
        if max(relevance) > min(relevance):
            assert relevance == [self.task.relevance[i] for i in self.left]
        assert len(candidates) == len(self.left)


EliminationMachine.TestCase.settings = settings(max_examples=30, stateful_step_count=20, deadline=None)
TestEliminationMachine = EliminationMachine.TestCase
