"""Elimination episodes as verl's workers run them, over an engine whose responses a test chooses."""

import math

import pytest

pytest.importorskip("verl.experimental.agent_loop.agent_loop")

from data_prep.rows import episode_rows
from iranker_verl.errors import UserError
from iranker_verl.ranking import Candidate, Elimination, RankingTask
from iranker_verl.ranking.templates import load
from iranker_verl.training.agent_loop import episode_metrics
from iranker_verl.training.step_record import StepRecord
from reward_fns.exclusion import compute_score
from tests.training import fake_rollout
from tests.training.fake_rollout import EOS

LABEL = load("label")


def make(n=4, positive=2, texts=None, relevance=None):
    texts = texts or [f"text {i}" for i in range(n)]
    candidates = tuple(Candidate(f"id{i}", t) for i, t in enumerate(texts))
    relevance = relevance or [float(i == positive) for i in range(len(texts))]
    return RankingTask("t1", "recommendation", "rec-movie", "the context", candidates, tuple(relevance))


def run(
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
    """Return the outputs of an episode and the requests; ``engine`` goes to :func:`fake_rollout.run_episode`."""
    (row,) = episode_rows([task], row_template or template, split).to_pylist()
    row |= {"uid": "u", "session_id": 0, "global_steps": step}
    row["extra_info"]["row_kind"] = row_kind
    if first_pool is not None:
        row["first_pool"] = first_pool
    path = "pkg://reward_fns.exclusion"
    return fake_rollout.run_episode(row, answers, template=template, reward=reward or {}, path=path, **engine)


def steps(outputs):
    return [StepRecord.from_dict(o.extra_fields["step"]) for o in outputs]


def test_validation_plays_every_episode_out():
    outputs, _ = run(make(5, positive=1), ["[B]", "[A]", "[A]", "[A]"])
    assert len(outputs) == 4
    assert [o.reward_score for o in outputs] == [0.0, 1.0, 1.0, 1.0]  # nothing is lost after the positive
    assert [s.pool_size for s in steps(outputs)] == [5, 4, 3, 2]
    assert [s.positive_survived for s in steps(outputs)] == [0.0, 0.0, 0.0, 0.0]
    assert outputs[0].extra_fields["reward_extra_info"] == {"rr": 0.2, "malformed_rate": 0.0, "calls": 4.0}


def test_the_requests_of_an_episode_stay_on_one_replica_and_those_of_others_do_not():
    """verl routes by the id of a request; a replica that has seen an episode's beginning has it in its cache."""
    ids = [{a.id for a in run(make(5, positive=1), ["[B]", "[A]", "[A]", "[A]"])[1]} for _ in range(2)]
    assert [len(one) for one in ids] == [1, 1] and ids[0] != ids[1]


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_state_is_one_step(split):
    outputs, requests = run(make(5, positive=1), ["[A]", "[A]"], split=split, row_kind="state")
    assert [o.reward_score for o in outputs] == [1.0] and len(requests) == 1
    assert steps(outputs)[0].pool_size == 5 and steps(outputs)[0].positive_survived == 1.0


def test_training_ends_when_the_positive_is_out():
    outputs, _ = run(make(5, positive=1), ["[A]", "[A]", "[A]"], split="train")
    assert [o.reward_score for o in outputs] == [1.0, 0.0]
    assert [s.positive_survived for s in steps(outputs)] == [1.0, 0.0]
    # five candidates: one out, then the positive, so its rank is 4
    assert {o.extra_fields["reward_extra_info"]["rr"] for o in outputs} == {0.25}


def test_an_episode_begins_with_as_many_candidates_as_the_curriculum_says():
    outputs, requests = run(make(5, positive=3), ["[A]"] * 4, split="train", first_pool=2)
    assert [s.pool_size for s in steps(outputs)] == [2]
    assert "text 3" in requests[0].text and list(steps(outputs)[0].candidate_ids) == sorted(
        steps(outputs)[0].candidate_ids
    )
    again, _ = run(make(5, positive=3), ["[A]"] * 4, split="train", first_pool=2)
    assert [s.candidate_ids for s in steps(again)] == [
        s.candidate_ids for s in steps(outputs)
    ]  # rollouts of a task are compared
    outputs, _ = run(make(5, positive=4), ["[A]"] * 4, split="train", first_pool=9)
    assert [s.pool_size for s in steps(outputs)] == [5, 4, 3, 2]


def test_counterfactual_rewards_are_those_of_every_label_and_of_no_answer():
    outputs, requests = run(make(4, positive=1), ["[A]", "nonsense", "[A]"], split="train", counterfactual=True)
    assert [s.counterfactual_rewards for s in steps(outputs)] == [
        (1.0, 0.0, 1.0, 1.0, -0.5),
        (0.0, 1.0, 1.0, -0.5),
        (0.0, 1.0, -0.5),
    ]
    assert [s.reward for s in steps(outputs)] == [1.0, -0.5, 0.0] and len(requests) == 3
    for options in (
        {"split": "train"},
        {"counterfactual": True},
    ):  # another estimator; a validation, which teaches nothing
        outputs, _ = run(make(4, positive=1), ["[B]"] * 3, **options)
        assert {s.counterfactual_rewards for s in steps(outputs)} == {()}


def test_a_perfect_training_episode():
    outputs, _ = run(make(4, positive=3), ["[A]"] * 3, split="train")
    assert [o.reward_score for o in outputs] == [1.0, 1.0, 1.0]
    assert [s.expected_reward for s in steps(outputs)] == pytest.approx([3 / 4, 2 / 3, 1 / 2])
    assert outputs[-1].extra_fields["reward_extra_info"] == {"rr": 1.0, "malformed_rate": 0.0, "calls": 3.0}


def test_the_pool_is_labelled_anew_at_every_step():
    _, requests = run(make(4), ["[B]", "text 0", "[B]"])
    candidates = [a.text.split("Candidates:\n")[1].split("\nExclude")[0].splitlines() for a in requests]
    assert candidates == [
        ["[A] text 0", "[B] text 1", "[C] text 2", "[D] text 3"],
        ["[A] text 0", "[B] text 2", "[C] text 3"],
        ["[A] text 2", "[B] text 3"],
    ]
    assert len({a.text.split("Candidates:")[0] for a in requests}) == 1


def test_a_malformed_answer_earns_the_lowest_reward_and_excludes_the_last_candidate():
    outputs, requests = run(make(4, positive=0), ["what?", "", "[A]"])
    assert [o.reward_score for o in outputs] == [-0.5, -0.5, 0.0]
    assert [s.malformed for s in steps(outputs)] == [1.0, 1.0, 0.0]
    assert "text 3" in requests[0].text and "text 3" not in requests[1].text
    assert "text 2" in requests[1].text and "text 2" not in requests[2].text
    assert outputs[0].extra_fields["reward_extra_info"] == {
        "rr": 0.5,
        "malformed_rate": pytest.approx(2 / 3),
        "calls": 3.0,
    }


def test_a_malformed_answer_that_drops_the_positive_ends_training_with_the_worst_reward():
    outputs, _ = run(make(3, positive=2), ["?", "[A]"], split="train")
    assert [o.reward_score for o in outputs] == [-0.5]
    assert steps(outputs)[0].positive_survived == 0.0


def test_a_session_is_paid_its_sum_where_sessions_are_compared():
    """RR less 1 / N with the measure's reward: here the positive is third of four."""
    outputs, _ = run(make(4, positive=0), ["[B]", "[A]"], reward={"kind": "rr"}, session_reward="sum", split="train")
    assert outputs[-1].reward_score == pytest.approx(1 / 3 - 1 / 4) and outputs[0].reward_score == pytest.approx(1 / 12)
    assert [s.reward for s in steps(outputs)] == pytest.approx([1 / 12, 0.0])


def test_every_state_is_answered_as_often_as_training_branches_and_the_first_answer_decides():
    answers = ["[A]", "[B]", "[B]", "[A]", "[A]", "[B]"]
    outputs, requests = run(make(4, positive=1), answers, split="train", branch=2)
    assert [s.pool_size for s in steps(outputs)] == [4, 4, 3, 3, 2, 2]
    assert [s.candidate_ids for s in steps(outputs)][::2] == [s.candidate_ids for s in steps(outputs)][1::2]
    assert [o.reward_score for o in outputs] == [1.0, 0.0, 1.0, 0.0, 0.0, 1.0]
    assert [s.positive_survived for s in steps(outputs)] == [1.0, 0.0, 1.0, 0.0, 0.0, 1.0]
    assert {(s.reciprocal_rank, s.most_calls, s.calls) for s in steps(outputs)} == {(0.5, 6, 3)}
    assert [a.text for a in requests][::2] == [a.text for a in requests][1::2]
    outputs, _ = run(make(4, positive=1), ["[A]"] * 3, branch=2)  # a validation
    assert [s.pool_size for s in steps(outputs)] == [4, 3, 2]


def test_training_pays_less_for_what_comes_near_the_limit_of_its_length():
    answers = ["[A]", "[A]   ", "[A]     "]
    outputs, _ = run(make(4, positive=3), answers, split="train", limit=8, overlong=4)
    assert [o.reward_score for o in outputs] == [1.0, 0.5, 0.0]
    assert [s.reward_parts["overlong"] for s in steps(outputs)] == [0.0, -0.5, -1.0]
    outputs, _ = run(make(4, positive=3), answers, limit=8, overlong=4)
    assert [o.reward_score for o in outputs] == [1.0, 1.0, 1.0]


def test_some_training_episodes_are_one_call():
    whole = [run(make(4, positive=0), ["[B]", "[B]", "[B]"], split="train", one_call=share)[0] for share in (0.0, 0.9)]
    assert [len(outputs) for outputs in whole] == [3, 1]
    assert [steps(outputs)[0].most_calls for outputs in whole] == [3, 1]
    assert [steps(outputs)[0].whole for outputs in whole] == [True, False]
    assert len(run(make(4, positive=0), ["[B]"] * 3, one_call=0.9)[0]) == 3  # never in validation


def test_an_aborted_answer_is_a_row_all_the_same():
    for log_probs in (True, False):
        outputs, _ = run(make(3), ["", "[A]"], log_probs=log_probs)
        assert outputs[0].response_ids == [EOS] and outputs[0].response_mask == [1]
        assert outputs[0].response_logprobs == ([0.0] if log_probs else None)
        assert steps(outputs)[0].malformed == 1.0


def test_the_tokens_trained_on_are_those_sampled():
    outputs, requests = run(make(3), ["[A]  and much more", "[A]"], limit=3)
    first = outputs[0]
    assert first.response_ids == [ord(c) for c in "[A]"]  # cut to the limit, with its log-probabilities
    assert first.response_mask == [1, 1, 1] and first.response_logprobs == [-0.5] * 3
    assert "".join(map(chr, first.prompt_ids)) == requests[0].text
    assert first.reward_score == 1.0
    assert first.extra_fields["min_global_steps"] == 7
    assert requests[0].params == {"temperature": 1.0}


ANSWERS = ["[B]", "hm", "<think>x</think><answer>[A]</answer>", "text 3", "[Z]"]


@pytest.mark.parametrize("reward", [{}, {"kind": "corrected"}, {"malformed": -2.0}])
@pytest.mark.parametrize("relevance", [None, [0.1, 0.9, 0.4, 0.4, 0.0, 1.0]])
def test_rewards_are_the_reward_functions(relevance, reward):
    task = make(6, positive=3, relevance=relevance)
    outputs, _ = run(task, ANSWERS, reward=reward, limit=100)
    state, expected = Elimination(task), []
    for answer in ANSWERS:
        expected.append(compute_score("rec-movie", answer, state.ground_truth(), **reward))
        state.step(answer)
    assert [o.reward_score for o in outputs] == [e["score"] for e in expected]
    assert [s.expected_reward for s in steps(outputs)] == [e["expected"] for e in expected]
    assert [s.reward for s in steps(outputs)] == [e["score"] for e in expected]
    assert [s.malformed for s in steps(outputs)] == [e["malformed"] for e in expected]


def test_the_same_remaining_set_has_the_same_key_whatever_was_excluded_first():
    task = make(4, positive=3)
    one, _ = run(task, ["[A]", "[A]", "[A]"])
    two, _ = run(task, ["[B]", "[A]", "[A]"])
    pools = [[s.candidate_ids for s in steps(o)] for o in (one, two)]
    assert pools[0][0] == pools[1][0] and pools[0][1] != pools[1][1] and pools[0][2] == pools[1][2]
    assert len(set(pools[0])) == 3


def test_equal_texts_are_different_pools():
    task = make(texts=["Twin", "Twin", "Other"], positive=2)
    one, _ = run(task, ["[A]", "[A]"])
    two, _ = run(task, ["[B]", "[A]"])
    assert steps(one)[1].candidate_ids != steps(two)[1].candidate_ids


def test_data_of_another_template_is_refused():
    with pytest.raises(UserError) as error:
        run(make(), ["[A]"] * 3, row_template=load("think-text"))
    assert LABEL.hash in str(error.value) and load("think-text").hash in str(error.value)


def test_a_prompt_that_is_too_long_is_an_error_and_never_cut():
    with pytest.raises(ValueError, match="max_prompt_length"):
        run(make(), ["[A]"] * 3, prompt_limit=50)


@pytest.mark.parametrize("n", [2, 3, 20, 30])
def test_an_episode_of_n_candidates_is_n_minus_one_rows(n):
    outputs, _ = run(make(n, positive=0), ["[B]"] * (n - 1))
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


def test_every_step_knows_its_rollout_and_how_its_episode_ended():
    outputs, _ = run(make(4, positive=1), ["[A]", "[A]"], split="train")
    assert [(s.task, s.session, s.dataset) for s in steps(outputs)] == [("u", "u_0", "rec-movie")] * 2
    assert [(s.reciprocal_rank, s.calls) for s in steps(outputs)] == [(pytest.approx(1 / 3), 2)] * 2
    assert steps(outputs)[0].reward_parts["regret"] == 0.0 and steps(outputs)[1].reward_parts["regret"] == 1.0


def test_what_all_answers_begin_with_is_put_at_the_end_of_the_prompt():
    outputs, requests = run(make(3, positive=1), ["A]", "B]"], answer_prefix="[")
    assert all(request.text.endswith("[") for request in requests)
    assert [o.reward_score for o in outputs] == [1.0, 1.0]
    assert all(o.prompt_ids[-1] == ord("[") and o.response_ids[0] != ord("[") for o in outputs)


def test_a_hundred_candidates_and_prompts_of_8000_tokens_go_through_to_advantages():
    from iranker_verl.training import credit, optimizer_steps

    texts = [f"candidate {i} " + "word " * 12 for i in range(100)]
    task = make(texts=texts, positive=99)
    outputs, requests = run(task, ["[A]"] * 99, split="train", counterfactual=True, prompt_limit=8192)
    assert len(outputs) == 99 and max(len(o.prompt_ids) for o in outputs) > 7500
    records = steps(outputs)
    assert [s.pool_size for s in records] == list(range(100, 1, -1))
    assert [len(s.counterfactual_rewards) for s in records] == list(range(101, 2, -1))
    assert "[CV]" in requests[0].text  # the hundredth label
    advantages, _ = credit.step_advantages(records, prior=8.0, normalise="batch")
    assert len(advantages) == 99 and all(math.isfinite(a) for a in advantages)
    lengths = [len(o.prompt_ids) + len(o.response_ids) for o in outputs] + [optimizer_steps.PADDING_TOKENS]
    order = optimizer_steps.order_rows(lengths, parts=2, ranks=5)
    assert (
        sorted(order) == list(range(100)) and optimizer_steps.slowest_over_mean([lengths[i] for i in order], 2, 5) < 1.1
    )
