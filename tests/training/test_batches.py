"""Which rows an optimiser step learns from together."""

from types import SimpleNamespace

import pytest
import torch

pytest.importorskip("verl")

from transfer_queue import KVBatchMeta
from verl.trainer.ppo import padding_utils
from verl.trainer.ppo.core_algos import agg_loss
from verl.workers.utils.padding import response_to_nested

from iranker_verl.training import optimizer_steps, trainer
from iranker_verl.training.main import compose_recipe

MINI = "actor_rollout_ref.actor.ppo_mini_batch_size=16"  # eight optimiser steps of 128 tasks


def multiple(recipe, *overrides, critic=False, reference=False, ranks=1):
    own = object.__new__(trainer.EliminationTrainer)
    own.config = compose_recipe(f"recipes/tiny_cpu/{recipe}.yaml", [MINI, *overrides])
    own.use_critic, own.use_reference_policy = critic, reference
    return own._get_required_batch_multiple(ranks)


def test_rows_that_fill_a_batch_up_are_in_no_mean():
    """Of 129 rows filled up to 256, verl's entropy, KL and value loss would be halved."""
    own = object.__new__(trainer.EliminationTrainer)
    own.config = compose_recipe("recipes/tiny_cpu/tiny_cpu.yaml", [MINI])
    batch = KVBatchMeta(
        keys=[str(i) for i in range(256)], tags=[{"is_padding": i >= 129} for i in range(256)], partition_id="train"
    )
    info = own._update_settings(batch, own.config.actor_rollout_ref.actor)
    assert info["mini_batch_size"] == 32 and info["global_batch_size"] == 129 / 8
    mask = torch.tensor([[1.0, 1.0]] * 17 + [[0.0, 0.0]] * 15)
    entropy = agg_loss(mask * 0.7, mask, "seq-mean-token-mean", dp_size=1, global_batch_size=17)
    assert entropy == pytest.approx(0.7)


FIXED = (
    "actor_rollout_ref.actor.use_dynamic_bsz=false",
    "actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu=16",
    "actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu=32",
    "actor_rollout_ref.ref.log_prob_micro_batch_size_per_gpu=32",
)


def test_a_batch_can_be_cut_for_every_pass_over_it():
    one = "data.train_batch_size=16"  # one optimiser step
    assert multiple("tiny_cpu") == 8
    assert multiple("tiny_cpu", ranks=3) == 24
    assert multiple("ppo", one, critic=True, reference=True, ranks=2) == 2
    one, *fixed = one, *FIXED  # of micro-batches of 16 rows
    assert multiple("tiny_cpu", *fixed) == 8 * 16
    assert multiple("tiny_cpu", one, *fixed) == 16  # its rollouts' log-probs are the old ones
    assert multiple("lora", one, *fixed) == 32  # old log-probs, 32 rows at a time
    assert multiple("lora", one, *fixed, ranks=3) == 96


class Workers:
    """The actor's ranks."""

    def __init__(self, ranks):
        self._dispatch_info = {"actor": list(range(ranks))}


def test_a_batch_that_the_ranks_do_not_divide_is_padded_by_less_than_one_row_a_rank_and_step(monkeypatch):
    """64 rows on 24 GPUs, in two optimiser steps."""
    own = object.__new__(trainer.EliminationTrainer)
    own.config = compose_recipe(
        "recipes/iranker_3b", ["trainer.n_gpus_per_node=8", "trainer.nnodes=3", "critic.enable=false"]
    )
    own.use_critic = own.use_reference_policy = False
    own.actor_rollout_wg, own.tokenizer = Workers(24), SimpleNamespace(eos_token_id=0)
    stored = []
    monkeypatch.setattr(padding_utils.tq, "kv_batch_get", lambda **_: [{"position_ids": torch.arange(9)}])
    monkeypatch.setattr(padding_utils.tq, "kv_batch_put", lambda **put: stored.append(put["fields"]))
    tags = [{"seq_len": 300 + 7 * i, "uid": str(i)} for i in range(64)]
    batch = KVBatchMeta(keys=[f"{i}_0_0" for i in range(64)], tags=tags, partition_id="train")
    metrics = {}
    batch = own._balance_batch(batch, metrics)
    assert (
        len(batch) == 96
        and [len(row) for row in stored[0]["input_ids"].unbind()] == [optimizer_steps.PADDING_TOKENS] * 32
    )
    steps = [chunk.tags for chunk in batch.chunk(48)]  # of 24 ranks, two steps each
    assert {sum("is_padding" not in tag for tag in step) for step in steps} == {1, 2}
    assert metrics["perf/slowest_rank_over_mean"] < 1.5
    assert optimizer_steps.update_settings(64, own.config.actor_rollout_ref.actor, 96, 64, 1.0)["mini_batch_size"] == 48


def test_padded_values_become_jagged_as_verls_own_loop_makes_them():
    mask = torch.nested.nested_tensor_from_jagged(torch.ones(6), torch.tensor([0, 3, 4, 6]))
    values = torch.arange(9.0).reshape(3, 3)
    found, expected = trainer.to_nested(values, mask), response_to_nested(values, mask)
    assert found.offsets().tolist() == expected.offsets().tolist() == [0, 3, 4, 6]
    assert found.values().tolist() == expected.values().tolist() == [0, 1, 2, 3, 6, 7]


def test_validation_sessions_that_fail_are_counted(capsys):
    own = object.__new__(trainer.EliminationTrainer)
    requested = {("rec-movie", "a"): 1, ("rec-movie", "b"): 2, ("passage", "c"): 1}
    metrics = own._val_metrics_update(["rec-movie"], ["a"], {"rr": [0.5]}, [2], expected_acc_counts=requested)
    assert metrics["val-aux/failed_sessions"] == 3 and metrics["val-aux/rec-movie/rr/mean@1"] == 0.5
    assert "3 episodes failed" in capsys.readouterr().out
    everything = own._val_metrics_update(
        ["passage"], ["c"], {"rr": [1.0]}, [2], expected_acc_counts={("passage", "c"): 1}
    )
    assert everything["val-aux/failed_sessions"] == 0 and not capsys.readouterr().out


@pytest.mark.parametrize("recipe", ["recipes/tiny_cpu", "recipes/iranker_3b"])
def test_the_queue_between_rollout_and_training_takes_as_many_rows_as_there_are(recipe):
    assert compose_recipe(recipe, []).transfer_queue.backend.SimpleStorage.total_storage_size is None
