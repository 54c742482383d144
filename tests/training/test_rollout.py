"""Every step's reward reaches the rows that the trainer trains on, through verl's own post-processing."""

import asyncio
from types import SimpleNamespace

import pytest
import torch

tq_module = pytest.importorskip("verl.trainer.ppo.v1.agent_loop_tq")

from verl.experimental.agent_loop.agent_loop import AgentLoopOutput  # noqa: E402

from iranker_verl.training import rollout  # noqa: E402
from iranker_verl.training.rollout import StepOutput, StepRewardWorker  # noqa: E402
from iranker_verl.training.step_record import StepRecord  # noqa: E402

REWARDS = [1.0, -0.5, 0.0]


def output(reward, step=0, **changes):
    fields = {
        "prompt_ids": [1, 2, 3][: 3 - step],
        "response_ids": [7, 8],
        "response_mask": [1, 1],
        "response_logprobs": [-0.1, -0.2],
        "reward_score": reward,
        "num_turns": 2,
        "metrics": {},
        "extra_fields": {
            "turn_scores": [],
            "reward_extra_info": {"rr": 0.5},
            "step": StepRecord("u1", "u1_0", tuple("abcd"[step:]), reward, 0.75).to_dict(),
        },
    }
    return AgentLoopOutput(**fields | changes)


def postprocess(cls, outputs, monkeypatch, validate=False):
    """Run ``_agent_loop_postprocess`` of a worker that never saw Ray; returns what it put into TransferQueue."""
    worker = object.__new__(cls)
    worker.processor = None
    worker.distillation_enabled = False
    worker.reward_loop_worker_handles = None
    stored = []

    async def put(**kwargs):
        stored.append(SimpleNamespace(**kwargs))

    monkeypatch.setattr(tq_module.tq, "async_kv_batch_put", put)
    row = {"uid": "u1", "session_id": 0, "global_steps": 3, "data_source": "rec-movie"}
    asyncio.run(worker._agent_loop_postprocess(outputs, validate, **row))
    return stored


def rewards_of(stored):
    """Reward of every row: the sum over its response tokens, as the trainer takes it."""
    return [row.sum().item() for row in stored.fields["rm_scores"].unbind()]


def read_back(stored):
    """TransferQueue's ``kv_batch_get`` of what was put: tensors come back jagged, whatever their lengths."""

    def get(keys, partition_id, select_fields):
        assert (keys, partition_id) == (stored.keys, stored.partition_id)
        fields = {}
        for name in select_fields:
            value = stored.fields.get(name)
            is_tensor = isinstance(value, torch.Tensor)
            fields[name] = (
                torch.nested.as_nested_tensor(list(value.unbind()), layout=torch.jagged) if is_tensor else value
            )
        return fields

    return get


def test_the_premise_verls_own_worker_overwrites_all_rewards_but_the_last(monkeypatch):
    (stored,) = postprocess(rollout._Worker, [output(r, i) for i, r in enumerate(REWARDS)], monkeypatch)
    assert rewards_of(stored) == [0.0, 0.0, 0.0]


@pytest.mark.parametrize("validate", [False, True])
def test_every_steps_own_reward_reaches_its_row(monkeypatch, validate):
    outputs = [output(r, i) for i, r in enumerate(REWARDS)]
    (stored,) = postprocess(StepRewardWorker, outputs, monkeypatch, validate)
    assert rewards_of(stored) == REWARDS
    # on the last response token, where verl's estimators look for it
    assert [r[-1].item() for r in stored.fields["rm_scores"].unbind()] == REWARDS
    assert stored.keys == ["u1_0_0", "u1_0_1", "u1_0_2"]
    assert stored.partition_id == ("val" if validate else "train")
    assert [t["seq_len"] for t in stored.tags] == [5, 4, 3]
    assert [p.tolist() for p in stored.fields["prompts"].unbind()] == [[1, 2, 3], [1, 2], [1]]
    steps = [StepRecord.from_dict(f["step"]) for f in stored.fields["extra_fields"]]
    assert ["".join(step.candidate_ids) for step in steps] == ["abcd", "bcd", "cd"]


def test_the_trainer_reads_the_same_rewards(monkeypatch):
    trainer = pytest.importorskip("iranker_verl.training.trainer")
    (stored,) = postprocess(StepRewardWorker, [output(r, i) for i, r in enumerate(REWARDS)], monkeypatch)
    monkeypatch.setattr(trainer.tq, "kv_batch_get", read_back(stored))
    batch = SimpleNamespace(keys=stored.keys, partition_id="train", tags=stored.tags)
    steps = trainer.EliminationTrainer._step_records(batch)
    assert [s.reward for s in steps] == REWARDS == rewards_of(stored)
    assert [(s.task, s.session, s.pool_size) for s in steps] == [("u1", "u1_0", 4 - i) for i in range(3)]


def test_one_output_that_is_no_list_is_verls_own_business(monkeypatch):
    (stored,) = postprocess(StepRewardWorker, output(0.5), monkeypatch)
    assert rewards_of(stored) == [0.5]


def test_a_step_without_a_reward_is_an_error(monkeypatch):
    for outputs in ([output(None), output(1.0)], [output(1.0), output(None)]):
        with pytest.raises(ValueError, match="no reward"):
            postprocess(StepRewardWorker, outputs, monkeypatch)


def test_an_episode_without_a_step_is_an_error(monkeypatch):
    with pytest.raises(ValueError, match="no step for prompt u1"):
        postprocess(StepRewardWorker, [], monkeypatch)


def test_a_kept_reward_stays():
    kept = StepOutput.keep(output(0.0))  # 0 is a reward
    kept.reward_score = 1.0
    assert kept.reward_score == 0.0
    kept.num_turns = 5
    assert kept.num_turns == 5
    fresh = StepOutput(**output(None).model_dump(exclude_unset=True))
    fresh.reward_score = -0.5
    fresh.reward_score = 2.0
    assert fresh.reward_score == -0.5


def test_keep_copies_every_field():
    full = output(
        0.25,
        routed_experts=[[[1]]],
        multi_modal_data={"images": []},
        mm_processor_kwargs={"fps": 1},
        mm_processor_output=[{"a": 1}],
        metrics={"generate_sequences": 1.5, "tool_calls": 2.0},
    )
    assert full.model_fields_set == set(AgentLoopOutput.model_fields), "verl has new fields: cover them here"
    kept = StepOutput.keep(full)
    assert kept.model_dump() == full.model_dump()
    assert kept.model_fields_set == full.model_fields_set
    # what is not set is not stored by verl, and stays so
    assert StepOutput.keep(output(1.0)).model_dump(exclude_unset=True) == output(1.0).model_dump(exclude_unset=True)


def test_the_manager_starts_our_workers():
    manager = object.__new__(rollout.StepRewardManager)
    base = rollout.RecoveringManager.__mro__[2]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(base, "__init__", lambda self, *a, **k: None)
        rollout.StepRewardManager.__init__(manager)
    assert issubclass(manager.agent_loop_workers_class.__ray_metadata__.modified_class, StepRewardWorker)
