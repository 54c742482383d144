"""Sorting by comparisons: golden runs, exactness with a judge that knows, an end whatever a model answers, few calls."""

import asyncio
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep.options import Options
from data_prep.prepare import prepare
from iranker_verl.errors import UserError
from iranker_verl.inference.engine import Generation
from iranker_verl.inference.episode import EpisodeOptions, run_episodes
from iranker_verl.ranking import AllPairs, Candidate, Pairwise, RankingTask, Setwise
from iranker_verl.ranking.sorting import CHILDREN, most_sets
from iranker_verl.ranking.templates import load
from reward_fns.answers import label

MACHINES = [Setwise, Pairwise, AllPairs]
machines = pytest.mark.parametrize("machine", MACHINES, ids=lambda m: m.__name__)


def make(texts="wxyz"):
    candidates = tuple(Candidate(f"id{i}", text) for i, text in enumerate(texts))
    return RankingTask.with_positive("t1", "passage", "passage-5", "context", candidates, "id0")


def most_calls(machine, n):
    return {
        Setwise: most_sets(n, CHILDREN),
        Pairwise: min(4 * most_sets(n, 2), n * (n - 1)),
        AllPairs: n * (n - 1),
    }[machine]


def play_out(state, answer):
    while not state.done:
        state.step(answer(state))
    return state.ranking()


def knows(worth):
    """The answer of a judge for whom ``worth[id]`` is all."""
    return lambda state: f"[{label(max(range(len(state.pool)), key=lambda i: worth[state.pool[i].id]))}]"


# ---------------------------------------------------------------- golden runs


def test_a_golden_setwise_run():
    # Five candidates a to e; c is best, then e, a, d, b. The heap: a over b, c and d; b over e.
    state = Setwise(make("abcde"))
    asked = []
    for answer in ("[B]", "[B]", "[D]", "[A]", "[B]"):
        asked.append("".join(c.text for c in state.pool))
        state.step(answer)
    # e rises over b; then c over a, d and e, and is first. b, from the heap's end, takes its place, over e, a and d: e is
    # second. d takes its place, over b and a: a is third. d takes its place, over b: d is fourth.
    assert asked == ["be", "acde", "abde", "abd", "bd"]
    assert state.done and state.pool == ()
    assert state.ranking() == ["id2", "id4", "id0", "id3", "id1"]
    assert [s.chosen for s in state.steps] == ["id4", "id2", "id4", "id0", "id3"]
    assert state.steps[0].pool == ("id1", "id4") and not any(s.malformed for s in state.steps)
    with pytest.raises(ValueError, match="t1"):
        state.step("[A]")
    assert len(state.steps) == 5


def test_a_golden_pairwise_run():
    state = Pairwise(make("abc"))
    asked = []

    def answer(state):
        asked.append("".join(c.text for c in state.pool))
        return knows({"id0": 1, "id1": 0, "id2": 2})(state)

    # b against c, both orders: c. Then c against the root a: c. a against b is left.
    assert play_out(state, answer) == ["id2", "id0", "id1"]
    assert asked == ["bc", "cb", "ac", "ca", "ab", "ba"]


def test_before_the_end_what_is_not_ranked_comes_last():
    state = Setwise(make("abcde"))
    assert state.ranking() == ["id0", "id1", "id2", "id3", "id4"]
    state.step("[B]")
    state.step("[B]")
    assert state.ranking() == ["id2", "id0", "id1", "id3", "id4"]


def test_all_pairs_counts_half_a_win_for_a_tie():
    # b beats a; a and c tie by a preference for the first place; b and c tie by a malformed answer: b 1.5, c 1, a .5
    answers = {"ab": "[B]", "ba": "[A]", "ac": "[A]", "ca": "[A]", "bc": "[A]", "cb": "neither"}
    state = AllPairs(make("abc"))
    assert play_out(state, lambda s: answers["".join(c.text for c in s.pool)]) == ["id1", "id2", "id0"]
    assert [s.malformed for s in state.steps] == [False] * 5 + [True]


# ---------------------------------------------------------------- bias and malformed answers


@machines
@pytest.mark.parametrize("answer", ["", "I cannot decide", "[Z]", "[A] and [B]", "<think>[B]"])
def test_answers_that_name_nobody_leave_the_order_shown_and_are_counted(machine, answer):
    state = machine(make("dacbe"))
    assert play_out(state, lambda s: answer) == [f"id{i}" for i in range(5)]
    assert all(s.malformed and s.chosen is None for s in state.steps)


@pytest.mark.parametrize("machine", [Pairwise, AllPairs])
@pytest.mark.parametrize("place", "AB")
def test_who_always_names_one_place_of_a_pair_says_nothing(machine, place):
    state = machine(make("dacbe"))
    assert play_out(state, lambda s: f"[{place}]") == [f"id{i}" for i in range(5)]
    assert not any(s.malformed for s in state.steps)


@pytest.mark.parametrize("machine", [Pairwise, AllPairs])
def test_every_pair_is_asked_in_both_orders_and_once(machine):
    state = machine(make("abcdefg"))
    play_out(state, knows({f"id{i}": (i * 3) % 7 for i in range(7)}))
    pools = [s.pool for s in state.steps]
    assert len(set(pools)) == len(pools)
    assert all(second == first[::-1] for first, second in zip(pools[::2], pools[1::2], strict=True))


def test_a_half_malformed_pair_is_a_tie():
    answers = iter(["[B]", "no idea"])
    state = Pairwise(make("ab"))
    assert play_out(state, lambda s: next(answers)) == ["id0", "id1"]


def test_a_set_is_shown_in_the_order_of_the_task():
    state = Setwise(make([str(i) for i in range(30)]))
    dice = random.Random(1)
    play_out(state, lambda s: f"[{label(dice.randrange(len(s.pool)))}]")
    for step in state.steps:
        places = [int(i.removeprefix("id")) for i in step.pool]
        assert places == sorted(places) and 2 <= len(places) <= CHILDREN + 1


# ---------------------------------------------------------------- properties


@machines
@given(order=st.integers(2, 24).flatmap(lambda n: st.permutations(range(n))))
@settings(max_examples=40, deadline=None)
def test_a_judge_that_knows_sorts_exactly_within_the_bound(machine, order):
    worth = {f"id{i}": -place for i, place in enumerate(order)}
    state = machine(make([f"text {i}" for i in range(len(order))]))
    assert play_out(state, knows(worth)) == sorted(worth, key=lambda i: -worth[i])
    assert 1 <= len(state.steps) <= most_calls(machine, len(order))


@machines
@given(
    texts=st.lists(st.sampled_from(["alpha", "beta", "[B]", "B", "<answer>"]), min_size=2, max_size=12), data=st.data()
)
@settings(max_examples=40, deadline=None)
def test_any_answers_end_and_rank_every_candidate_once(machine, texts, data):
    # Equal texts, and texts that read like labels, stay candidates of their own.
    state = machine(make(texts))
    answers = st.sampled_from(
        ["[A]", "[B]", "[C]", "[D]", "A", "alpha", "beta", "", "<answer>[B]</answer>", "\ud800", ">"]
    )
    while not state.done:
        before = state.pool
        assert 2 <= len(before) <= machine.most_candidates and len(state.steps) < most_calls(machine, len(texts))
        step = state.step(data.draw(answers))
        assert step.pool == tuple(c.id for c in before)
        assert step.malformed == (step.chosen is None)
        assert step.chosen is None or step.chosen in step.pool
        assert sorted(state.ranking()) == sorted(c.id for c in state.task.candidates)


@machines
def test_equal_texts_do_not_collapse(machine):
    worth = {f"id{i}": (i * 5) % 8 for i in range(8)}
    state = machine(make(["same"] * 8))
    assert play_out(state, knows(worth)) == sorted(worth, key=lambda i: -worth[i])


@pytest.mark.parametrize(("n", "sets", "pairs"), [(2, 1, 1), (3, 2, 2), (4, 3, 5), (20, 49, 68), (100, 387, 571)])
def test_the_bound_by_hand(n, sets, pairs):
    # n = 4, three children: 1 to build the heap, 1 + 1 for heaps of 3 and 2; two children: 2 + 1 to build, and 1 + 1.
    assert (most_sets(n, 3), most_sets(n, 2)) == (sets, pairs)


# ---------------------------------------------------------------- where they are of no use


@pytest.mark.parametrize("name", ["setwise-label", "pairwise-think-label", "allpairs-label"])
@pytest.mark.parametrize("rows", ["episodes", "states", "direct"])
def test_preparation_refuses_them(tmp_path, name, rows):
    with pytest.raises(UserError, match=f"template {name} is for .* rows, not for {rows}"):
        prepare("raw", tmp_path / "out", load(name), Options(rows=rows), None, print)


# ---------------------------------------------------------------- through play


@pytest.mark.parametrize("name", ["setwise-label", "pairwise-label", "allpairs-label", "setwise-think-label"])
def test_play_runs_them_as_it_runs_an_elimination(name):
    class Judge:
        """The later in the alphabet, the better."""

        async def ask(self, messages, max_new_tokens, temperature=0.0):
            prompt = messages[-1]["content"]
            lines = [line for line in prompt.splitlines() if line.startswith("[")]
            best = max(lines, key=lambda line: line.split("] ")[1])
            return Generation(f"<think>hm</think><answer>{best[:3]}</answer>", (1, 2), len(prompt))

    tasks = [make("cadbfe"), make("zy")]
    one, two = asyncio.run(run_episodes(tasks, load(name), Judge(), EpisodeOptions(8)))
    assert "".join(tasks[0].candidates[int(i[2:])].text for i in one.ranking) == "fedcba"
    assert two.ranking == ("id0", "id1") and two.calls == (1 if name.startswith("setwise") else 2)
    assert one.malformed == 0 and one.calls == len(one.steps) > 5
