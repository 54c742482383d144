"""The asynchronous trainer: verl's hooks around our step, and the replay buffer that goes with them."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

pytest.importorskip("verl")

from verl.trainer.ppo.v1.trainer_colocate_async import PPOTrainerColocateAsync

from iranker_verl.training import asynchronous
from iranker_verl.training.asynchronous import ColocatedTrainer
from iranker_verl.training.main import compose_recipe
from iranker_verl.training.trainer import EliminationTrainer


def test_the_hooks_around_a_step_are_verls_and_what_is_in_it_is_ours():
    hooks = [name for name in vars(PPOTrainerColocateAsync) if name.startswith(("on_", "get_"))]
    assert {"on_sample_end", "on_step_end", "on_train_begin"} <= set(hooks)
    assert all(getattr(ColocatedTrainer, name) is getattr(PPOTrainerColocateAsync, name) for name in hooks)
    assert ColocatedTrainer._compute_advantage is EliminationTrainer._compute_advantage


@pytest.mark.parametrize(
    ("given", "taken"),
    [("PromptReplayBuffer", "AsyncPromptReplayBuffer"), ("AsyncPromptReplayBuffer", "AsyncPromptReplayBuffer")],
)
def test_the_replay_buffer_is_the_asynchronous_one(given, taken):
    made = object.__new__(ColocatedTrainer)
    made.trainer_mode = "colocate_async"
    made.config = compose_recipe(
        "recipes/tiny_cpu",
        [f"trainer.v1.trainer_mode={made.trainer_mode}", f"trainer.v1.sampler.custom_sampler.name={given}"],
    )
    buffer = made._build_replay_buffer()
    assert type(buffer).__name__ == taken and buffer.max_off_policy_threshold == 8
    assert buffer.refill_fn == made._add_prompts_to_generate


def test_a_resumed_queue_keeps_the_rows_of_tasks_that_are_to_be_trained_and_no_others(monkeypatch):
    """ "a" is done and "b" runs; "c" is of the step that was saved, whose rows verl had not removed yet."""
    tags = {
        "a": {"is_prompt": True, "status": "finished"},
        "b": {"is_prompt": True, "status": "running"},
        **{f"{uid}_{session}_0": {"seq_len": 3} for uid in "abc" for session in range(2)},
    }
    queue = SimpleNamespace(
        kv_list=lambda partition_id: {partition_id: tags},
        kv_clear=lambda keys, partition_id: [tags.pop(key) for key in keys],
    )
    monkeypatch.setattr(asynchronous, "tq", queue)
    monkeypatch.setattr(PPOTrainerColocateAsync, "_load_checkpoint", lambda self: None)
    object.__new__(ColocatedTrainer)._load_checkpoint()
    assert set(tags) == {"a", "a_0_0", "a_1_0", "b", "b_0_0", "b_1_0"}
    queue.kv_list = lambda partition_id: None  # a run that begins
    assert asynchronous.drop_trained_rows() == 0
