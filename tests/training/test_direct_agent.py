"""Direct rankings as verl's workers run them, over an engine whose responses a test chooses."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("verl.experimental.agent_loop.agent_loop")

from verl.experimental.agent_loop.agent_loop import _agent_loop_registry

from data_prep.options import Options
from data_prep.rows import rows
from data_prep.tasks import Draft, tables
from iranker_verl.errors import UserError
from iranker_verl.ranking import Candidate, RankingTask
from iranker_verl.ranking.templates import load
from iranker_verl.training.metrics_log import step_metrics
from iranker_verl.training.step_record import StepRecord
from reward_fns.direct import compute_score
from tests.training import fake_rollout
from tests.training.fake_rollout import EOS

LABEL = load("direct-label")
A_FUNCTION = "def compute_score(data_source, solution_str, ground_truth, extra_info):\n    return len(solution_str)\n"


def make(n=4, positive=2, relevance=None):
    candidates = tuple(Candidate(f"id{i}", f"text {i}") for i in range(n))
    relevance = relevance or [float(i == positive) for i in range(n)]
    return RankingTask("t1", "recommendation", "rec-movie", "the context", candidates, tuple(relevance))


def row_of(task, *, split="train", template=LABEL):
    """The row that preparation makes of the task, and its candidates in the order shown."""
    (table,) = tables([Draft(task, "a user")])
    (row,) = rows(table, template, Options(rows="direct"), split, 0).to_pylist()
    return row


def run(row, answer, *, template=LABEL, path="pkg://reward_fns.direct", reward=None, **engine):
    """Return the outputs for a row and the requests; ``engine`` goes to :func:`fake_rollout.run_episode`."""
    row = {"uid": "u", "session_id": 0, "global_steps": 1} | row
    engine = {"limit": 200} | engine
    return fake_rollout.run_episode(row, [answer], template=template, reward=reward or {}, path=path, **engine)


def step_of(output):
    return StepRecord.from_dict(output.extra_fields["step"])


def best_first(row, rank=1):
    """An answer with every label once, the positive at ``rank``."""
    truth = row["reward_model"]["ground_truth"]
    places = [i for i in range(len(truth["candidates"])) if i != truth["target"]]
    places.insert(rank - 1, truth["target"])
    return " > ".join(f"[{chr(65 + i)}]" for i in places)


def test_as_many_candidates_as_the_curriculum_says():
    (output,), requests = run(row_of(make(6)) | {"first_pool": 2}, "[A] > [B]")
    assert step_of(output).pool_size == 2 and "[C]" not in requests[0].text
    (output,), _ = run(row_of(make(6)), "[A] > [B]")
    assert step_of(output).pool_size == 6


def test_both_agent_names_are_the_one_loop():
    assert row_of(make())["agent_name"] == "direct_agent"
    assert _agent_loop_registry["direct_agent"]["_target_"] == "iranker_verl.training.agent_loop.RankingAgentLoop"
    assert _agent_loop_registry["elimination_agent"] == _agent_loop_registry["direct_agent"]


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("rank", [1, 2, 3, 4])
def test_one_prompt_one_answer_one_row(split, rank):
    row = row_of(make(4), split=split)
    (output,), requests = run(row, best_first(row, rank))
    assert len(requests) == 1 and requests[0].params == {"temperature": 1.0}
    assert requests[0].text == row["prompt"][-1]["content"]
    # one positive at rank k: nDCG 1 / log2(k + 1); the answer is bare labels, so its form is not that of tags
    assert output.reward_score == pytest.approx(1 / math.log2(rank + 1), abs=0.11)
    assert output.extra_fields["reward_extra_info"] == {"rr": 1 / rank, "malformed_rate": 0.0, "calls": 1.0}
    step = step_of(output)
    assert step.pool_size == 4 and step.malformed == 0.0
    assert step.positive_survived == float(rank < 4)  # what is ranked last would be the first to be excluded
    # a random order: the mean of 1 / log2(k + 1) over the four ranks
    assert step.expected_reward == pytest.approx(sum(1 / math.log2(k + 1) for k in range(1, 5)) / 4)
    assert output.extra_fields["min_global_steps"] == 7


ANSWERS = ["[B] > [A] > [C] > [D]", "[C]", "", "no idea", "[A] > [A] > [Z]", "<think>x</think><answer>text 1</answer>"]


@pytest.mark.parametrize("relevance", [None, [0.1, 0.9, 0.4, 0.4]])
@pytest.mark.parametrize("reward", [{}, {"kind": "rr"}, {"malformed": -2.0}])
@pytest.mark.parametrize("answer", ANSWERS)
def test_the_reward_is_the_reward_functions(answer, reward, relevance):
    row = row_of(make(4, relevance=relevance))
    (output,), _ = run(row, answer, reward=reward)
    parts = compute_score("rec-movie", answer, row["reward_model"]["ground_truth"], **reward)
    step = step_of(output)
    assert (output.reward_score, step.reward, step.expected_reward) == (
        parts["score"],
        parts["score"],
        parts["expected"],
    )


def test_an_answer_without_an_order_leaves_the_order_of_the_prompt_and_is_malformed():
    row = row_of(make(5))
    (output,), _ = run(row, "hm")
    place = row["reward_model"]["ground_truth"]["target"]
    info = output.extra_fields["reward_extra_info"]
    assert info == {"rr": 1 / (place + 1), "malformed_rate": 1.0, "calls": 1.0}
    assert step_of(output).malformed == 1.0


def test_a_partial_answer_counts_as_far_as_it_goes_and_as_malformed():
    row = row_of(make(5))
    target = row["reward_model"]["ground_truth"]["target"]
    (output,), _ = run(row, f"[{chr(65 + target)}]")
    assert output.extra_fields["reward_extra_info"] == {"rr": 1.0, "malformed_rate": 1.0, "calls": 1.0}


def test_the_rollouts_of_a_task_are_one_group_and_other_tasks_are_not():
    row = row_of(make(4))
    pools = {step_of(run(row, answer)[0][0]).candidate_ids for answer in ANSWERS}
    other = step_of(run(row_of(make(5)), "[A]")[0][0]).candidate_ids
    assert len(pools) == 1 and other not in pools


def test_the_trainers_metrics_read_it():
    row = row_of(make(4))
    outputs = [run(row | {"session_id": rank}, best_first(row, rank))[0][0] for rank in (1, 4)]
    metrics = step_metrics([step_of(output) for output in outputs])
    assert metrics["episode/rr"] == metrics["episode/rr/rec-movie"] == pytest.approx((1 + 1 / 4) / 2)
    assert metrics["episode/calls"] == 1 and metrics["survival/4"] == 0.5 and metrics["reward/malformed"] == 0


def test_the_tokens_trained_on_are_those_sampled():
    row = row_of(make(3))
    (output,), _ = run(row, "[A] > [B] > [C] and much more", limit=15)
    assert output.response_ids == [ord(c) for c in "[A] > [B] > [C]"]
    assert output.response_mask == [1] * 15 and output.response_logprobs == [-0.5] * 15
    assert step_of(output).malformed == 0.0


@pytest.mark.parametrize("log_probs", [True, False])
def test_an_aborted_answer_is_a_row_all_the_same(log_probs):
    (output,), _ = run(row_of(make(3)), "", log_probs=log_probs)
    assert output.response_ids == [EOS] and output.response_mask == [1]
    assert output.response_logprobs == ([0.0] if log_probs else None)
    assert step_of(output).malformed == 1.0


def test_a_reward_function_of_ones_own_may_return_a_number(tmp_path):
    (tmp_path / "mine.py").write_text(A_FUNCTION)
    (output,), _ = run(row_of(make(3)), "[A]", path=tmp_path / "mine.py")
    assert output.reward_score == 3.0 and step_of(output).expected_reward == 0.0


def test_data_of_another_template_is_refused():
    with pytest.raises(UserError) as error:
        run(row_of(make(), template=load("direct-think-text")), "[A]")
    assert LABEL.hash in str(error.value) and load("direct-think-text").hash in str(error.value)


def test_a_template_of_another_kind_is_refused():
    row = row_of(make())
    label = load("label")
    row["extra_info"] |= {"template_id": label.id, "template_hash": label.hash}
    with pytest.raises(
        UserError, match="task 't1' is for a template of kind direct, but template label is of kind exclusion"
    ):
        run(row, "[A]", template=label)


def test_a_prompt_that_is_too_long_is_an_error_and_never_cut():
    with pytest.raises(ValueError, match="max_prompt_length"):
        run(row_of(make()), "[A]", prompt_limit=50)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.sampled_from([0.0, 0.3, 1.0]), min_size=2, max_size=8).filter(lambda r: len(set(r)) > 1),
    st.text(alphabet="[]ABCDEFGH> ,\n1text", max_size=60),
)
def test_any_answer_is_a_row_that_can_be_trained_on(relevance, answer):
    row = row_of(make(len(relevance), relevance=relevance))
    (output,), _ = run(row, answer)
    step, info = step_of(output), output.extra_fields["reward_extra_info"]
    assert math.isfinite(output.reward_score) and math.isfinite(step.expected_reward)
    assert 1 / len(relevance) <= info["rr"] <= 1 and info["calls"] == 1.0
    assert info["malformed_rate"] == step.malformed
    if info["rr"] == 1 / len(relevance) and relevance.count(max(relevance)) == 1:
        assert step.positive_survived == 0.0
