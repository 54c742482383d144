"""Elimination episodes as verl's workers play them, with an engine that answers what a test wants."""

import math

import pytest

pytest.importorskip("verl.experimental.agent_loop.agent_loop")

from data_prep.rows import episode_rows
from iranker_verl.errors import UserError
from iranker_verl.ranking import Candidate, Elimination, RankingTask
from iranker_verl.ranking.templates import load
from iranker_verl.training.agent_loop import EliminationAgentLoop, episode_metrics
from reward_fns.exclusion import compute_score
from tests.training import fake_rollout
from tests.training.fake_rollout import EOS

LABEL = load("label")


def make(n=4, positive=2, texts=None, relevance=None):
    texts = texts or [f"text {i}" for i in range(n)]
    candidates = tuple(Candidate(f"id{i}", t) for i, t in enumerate(texts))
    relevance = relevance or [float(i == positive) for i in range(len(texts))]
    return RankingTask("t1", "recommendation", "rec-movie", "the context", candidates, tuple(relevance))


def play(
    task,
    answers,
    *,
    split="test",
    template=LABEL,
    row_template=None,
    row_kind="episode",
    step=1,
    reward=None,
    first_pool=None,
    **engine,
):
    """Outputs of an episode, and what the engine was asked; ``engine`` goes to :func:`fake_rollout.play`."""
    (row,) = episode_rows([task], row_template or template, split).to_pylist()
    row |= {"uid": "u", "session_id": 0, "global_steps": step}
    row["extra_info"]["row_kind"] = row_kind
    if first_pool is not None:
        row["first_pool"] = first_pool
    path = "pkg://reward_fns.exclusion"
    return fake_rollout.play(
        EliminationAgentLoop, row, answers, template=template, reward=reward or {}, path=path, **engine
    )


def steps(outputs):
    return [o.extra_fields["step"] for o in outputs]


def test_validation_plays_every_episode_out():
    outputs, asked = play(make(5, positive=1), ["[B]", "[A]", "[A]", "[A]"])
    assert len(outputs) == 4
    assert [o.reward_score for o in outputs] == [0.0, 1.0, 1.0, 1.0]  # nothing is lost after the positive
    assert [s["pool_size"] for s in steps(outputs)] == [5, 4, 3, 2]
    assert [s["survived"] for s in steps(outputs)] == [0.0, 0.0, 0.0, 0.0]
    assert outputs[0].extra_fields["reward_extra_info"] == {"rr": 0.2, "malformed_rate": 0.0, "calls": 4.0}
    assert len({a.id for a in asked}) == 4


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_state_is_one_step(split):
    outputs, asked = play(make(5, positive=1), ["[A]", "[A]"], split=split, row_kind="state")
    assert [o.reward_score for o in outputs] == [1.0] and len(asked) == 1
    assert steps(outputs)[0]["pool_size"] == 5 and steps(outputs)[0]["survived"] == 1.0


def test_training_ends_when_the_positive_is_out():
    outputs, _ = play(make(5, positive=1), ["[A]", "[A]", "[A]"], split="train")
    assert [o.reward_score for o in outputs] == [1.0, 0.0]
    assert [s["survived"] for s in steps(outputs)] == [1.0, 0.0]
    # five candidates: one out, then the positive, so its rank is 4
    assert {o.extra_fields["reward_extra_info"]["rr"] for o in outputs} == {0.25}


def test_an_episode_begins_with_as_many_candidates_as_the_curriculum_says():
    outputs, asked = play(make(5, positive=3), ["[A]"] * 4, split="train", first_pool=2)
    assert [s["pool_size"] for s in steps(outputs)] == [2]
    assert "text 3" in asked[0].text and outputs[0].extra_fields["shown"] == sorted(outputs[0].extra_fields["shown"])
    again, _ = play(make(5, positive=3), ["[A]"] * 4, split="train", first_pool=2)
    assert [s["pool"] for s in steps(again)] == [s["pool"] for s in steps(outputs)]  # rollouts of a task are compared
    outputs, _ = play(make(5, positive=4), ["[A]"] * 4, split="train", first_pool=9)
    assert [s["pool_size"] for s in steps(outputs)] == [5, 4, 3, 2]


def test_what_the_other_exclusions_would_have_earned():
    outputs, asked = play(make(4, positive=1), ["[A]", "nonsense", "[A]"], split="train", looks_around=True)
    assert [s["what_if"] for s in steps(outputs)] == [
        [1.0, 0.0, 1.0, 1.0, -0.5],
        [0.0, 1.0, 1.0, -0.5],
        [0.0, 1.0, -0.5],
    ]
    assert [s["score"] for s in steps(outputs)] == [1.0, -0.5, 0.0] and len(asked) == 3
    for options in (
        {"split": "train"},
        {"looks_around": True},
    ):  # another estimator; a validation, which teaches nothing
        outputs, _ = play(make(4, positive=1), ["[B]"] * 3, **options)
        assert {tuple(s["what_if"]) for s in steps(outputs)} == {()}


def test_a_perfect_training_episode():
    outputs, _ = play(make(4, positive=3), ["[A]"] * 3, split="train")
    assert [o.reward_score for o in outputs] == [1.0, 1.0, 1.0]
    assert [s["expected"] for s in steps(outputs)] == pytest.approx([3 / 4, 2 / 3, 1 / 2])
    assert outputs[-1].extra_fields["reward_extra_info"] == {"rr": 1.0, "malformed_rate": 0.0, "calls": 3.0}


def test_the_pool_is_labelled_anew_at_every_step():
    _, asked = play(make(4), ["[B]", "text 0", "[B]"])
    shown = [a.text.split("Candidates:\n")[1].split("\nExclude")[0].splitlines() for a in asked]
    assert shown == [
        ["[A] text 0", "[B] text 1", "[C] text 2", "[D] text 3"],
        ["[A] text 0", "[B] text 2", "[C] text 3"],
        ["[A] text 2", "[B] text 3"],
    ]
    assert len({a.text.split("Candidates:")[0] for a in asked}) == 1


def test_a_malformed_answer_costs_a_reward_and_the_last_shown_candidate():
    outputs, asked = play(make(4, positive=0), ["what?", "", "[A]"])
    assert [o.reward_score for o in outputs] == [-0.5, -0.5, 0.0]
    assert [s["malformed"] for s in steps(outputs)] == [1.0, 1.0, 0.0]
    assert "text 3" in asked[0].text and "text 3" not in asked[1].text
    assert "text 2" in asked[1].text and "text 2" not in asked[2].text
    assert outputs[0].extra_fields["reward_extra_info"] == {
        "rr": 0.5,
        "malformed_rate": pytest.approx(2 / 3),
        "calls": 3.0,
    }


def test_a_malformed_answer_that_drops_the_positive_ends_training_with_the_worst_reward():
    outputs, _ = play(make(3, positive=2), ["?", "[A]"], split="train")
    assert [o.reward_score for o in outputs] == [-0.5]
    assert steps(outputs)[0]["survived"] == 0.0


def test_an_aborted_answer_is_a_row_all_the_same():
    for log_probs in (True, False):
        outputs, _ = play(make(3), ["", "[A]"], log_probs=log_probs)
        assert outputs[0].response_ids == [EOS] and outputs[0].response_mask == [1]
        assert outputs[0].response_logprobs == ([0.0] if log_probs else None)
        assert steps(outputs)[0]["malformed"] == 1.0


def test_what_is_trained_on_is_what_was_sampled():
    outputs, asked = play(make(3), ["[A]  and much more", "[A]"], limit=3)
    first = outputs[0]
    assert first.response_ids == [ord(c) for c in "[A]"]  # cut to the limit, with its log-probabilities
    assert first.response_mask == [1, 1, 1] and first.response_logprobs == [-0.5] * 3
    assert "".join(map(chr, first.prompt_ids)) == asked[0].text
    assert first.reward_score == 1.0
    assert first.extra_fields["min_global_steps"] == 7
    assert asked[0].params == {"temperature": 1.0}


ANSWERS = ["[B]", "hm", "<think>x</think><answer>[A]</answer>", "text 3", "[Z]"]


@pytest.mark.parametrize("reward", [{}, {"kind": "corrected"}, {"malformed": -2.0}])
@pytest.mark.parametrize("relevance", [None, [0.1, 0.9, 0.4, 0.4, 0.0, 1.0]])
def test_rewards_are_the_reward_functions(relevance, reward):
    task = make(6, positive=3, relevance=relevance)
    outputs, _ = play(task, ANSWERS, reward=reward, limit=100)
    state, expected = Elimination(task), []
    for answer in ANSWERS:
        expected.append(compute_score("rec-movie", answer, state.ground_truth(), **reward))
        state.step(answer)
    assert [o.reward_score for o in outputs] == [e["score"] for e in expected]
    assert [s["expected"] for s in steps(outputs)] == [e["expected"] for e in expected]
    assert [s["score"] for s in steps(outputs)] == [e["score"] for e in expected]
    assert [s["malformed"] for s in steps(outputs)] == [e["malformed"] for e in expected]


def test_the_same_remaining_set_has_the_same_key_whatever_was_excluded_first():
    task = make(4, positive=3)
    one, _ = play(task, ["[A]", "[A]", "[A]"])
    two, _ = play(task, ["[B]", "[A]", "[A]"])
    pools = [[s["pool"] for s in steps(o)] for o in (one, two)]
    assert pools[0][0] == pools[1][0] and pools[0][1] != pools[1][1] and pools[0][2] == pools[1][2]
    assert len(set(pools[0])) == 3


def test_equal_texts_are_different_pools():
    task = make(texts=["Twin", "Twin", "Other"], positive=2)
    one, _ = play(task, ["[A]", "[A]"])
    two, _ = play(task, ["[B]", "[A]"])
    assert steps(one)[1]["pool"] != steps(two)[1]["pool"]


def test_data_of_another_template_is_refused():
    with pytest.raises(UserError) as error:
        play(make(), ["[A]"] * 3, row_template=load("think-text"))
    assert LABEL.hash in str(error.value) and load("think-text").hash in str(error.value)


def test_a_prompt_that_is_too_long_is_an_error_and_never_cut():
    with pytest.raises(ValueError, match="max_prompt_length"):
        play(make(), ["[A]"] * 3, prompt_limit=50)


@pytest.mark.parametrize("n", [2, 3, 20, 30])
def test_an_episode_of_n_candidates_is_n_minus_one_rows(n):
    outputs, _ = play(make(n, positive=0), ["[B]"] * (n - 1))
    assert len(outputs) == n - 1
    assert outputs[-1].extra_fields["reward_extra_info"]["rr"] == 1.0
    assert all(math.isfinite(o.reward_score) for o in outputs)


def test_reciprocal_ranks_of_unfinished_episodes():
    state = Elimination(make(4, positive=1))
    assert episode_metrics(state) == {"rr": 0.25, "malformed_rate": 0.0, "calls": 0.0}
    state.step("[A]")
    assert episode_metrics(state)["rr"] == pytest.approx(1 / 3)
    state.step("[A]")
    assert episode_metrics(state)["rr"] == pytest.approx(1 / 3)  # excluded third from the top
    state.step("[A]")
    assert episode_metrics(state)["rr"] == pytest.approx(1 / 3)
