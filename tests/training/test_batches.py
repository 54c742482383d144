"""Which rows an optimiser step learns from together."""

import pytest
import torch

pytest.importorskip("verl")

from transfer_queue import KVBatchMeta
from verl.trainer.ppo.core_algos import agg_loss

from iranker_verl.training import optimizer_steps, trainer
from iranker_verl.training.main import compose_recipe


def test_the_split_by_length_by_hand():
    # two ranks of four rows, two optimiser steps each
    assert optimizer_steps.split_by_length([9, 1, 5, 3, 2, 8, 4, 6], ranks=2, steps=2) == [1, 2, 3, 0, 4, 7, 6, 5]


def multiple(recipe, *overrides, critic=False, reference=False, ranks=1):
    own = object.__new__(trainer.EliminationTrainer)
    own.config = compose_recipe(f"recipes/tiny_cpu/{recipe}.yaml", list(overrides))
    own.use_critic, own.use_reference_policy = critic, reference
    return own._get_required_batch_multiple(ranks)


def test_rows_that_fill_a_batch_up_are_in_no_mean():
    """Of 129 rows filled up to 256, verl's entropy, KL and value loss would be halved."""
    own = object.__new__(trainer.EliminationTrainer)
    own.config = compose_recipe("recipes/tiny_cpu/tiny_cpu.yaml", [])
    batch = KVBatchMeta(
        keys=[str(i) for i in range(256)], tags=[{"is_padding": i >= 129} for i in range(256)], partition_id="train"
    )
    info = own._update_settings(batch, own.config.actor_rollout_ref.actor)
    assert info["mini_batch_size"] == 32 and info["global_batch_size"] == 129 / 8
    mask = torch.tensor([[1.0, 1.0]] * 17 + [[0.0, 0.0]] * 15)
    entropy = agg_loss(mask * 0.7, mask, "seq-mean-token-mean", dp_size=1, global_batch_size=17)
    assert entropy == pytest.approx(0.7)


def test_a_batch_can_be_cut_for_every_pass_over_it():
    one = "data.train_batch_size=16"  # one optimiser step, of micro-batches of 16 rows
    assert multiple("tiny_cpu") == 8 * 16
    assert multiple("tiny_cpu", one) == 16  # its rollouts' log-probs are the old ones
    assert multiple("lora", one) == 32  # old log-probs, 32 rows at a time
    assert multiple("lora", one, ranks=3) == 96
    assert multiple("lora", one, "actor_rollout_ref.rollout.log_prob_use_dynamic_bsz=true") == 16
    assert multiple("ppo", one, critic=True, reference=True) == 32
    assert multiple("ppo", one, "actor_rollout_ref.ref.log_prob_micro_batch_size_per_gpu=24", reference=True) == 48
