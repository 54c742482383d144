"""Optimiser steps are counted in tasks, whatever the number of rows."""

import itertools
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.row_lengths import sample_rows
from iranker_verl.training.optimizer_steps import (
    PADDING_TOKENS,
    batch_multiple,
    order_rows,
    steps_per_epoch,
    update_settings,
)


def role(mini=4, micro=2, dynamic=False):
    return SimpleNamespace(
        ppo_mini_batch_size=mini,
        ppo_micro_batch_size_per_gpu=micro,
        ppo_max_token_len_per_gpu=4096,
        use_dynamic_bsz=dynamic,
        ppo_epochs=3,
        data_loader_seed=7,
        shuffle=False,
    )


@pytest.mark.parametrize(("tasks", "mini", "steps"), [(128, 16, 8), (16, 16, 1), (8, 16, 1), (20, 16, 1)])
def test_steps_are_tasks_over_tasks_of_a_mini_batch(tasks, mini, steps):
    assert steps_per_epoch(tasks, role(mini)) == steps


def test_the_loss_is_divided_by_real_rows_and_a_mini_batch_counts_all():
    settings = update_settings(16, role(mini=4), rows=64, real_rows=50, temperature=0.7)
    assert settings == {
        "global_batch_size": 12.5,
        "mini_batch_size": 16,
        "epochs": 3,
        "seed": 7,
        "dataloader_kwargs": {"shuffle": False},
        "temperature": 0.7,
    }


@given(
    st.integers(1, 4),
    st.integers(1, 64),
    st.integers(1, 16),
    st.integers(1, 8),
    st.lists(st.integers(1, 9), max_size=2),
)
def test_every_pass_over_a_batch_can_be_cut_evenly(ranks, tasks, mini, micro, passes):
    actor = role(mini, micro)
    multiple = batch_multiple(tasks, [actor], passes, ranks)
    assert multiple % (steps_per_epoch(tasks, actor) * ranks * micro) == 0
    assert all(multiple % (ranks * size) == 0 for size in passes)


def test_dynamic_batches_need_no_multiple_of_a_micro_batch():
    assert batch_multiple(16, [role(mini=4, micro=32, dynamic=True)], [], ranks=2) == 4 * 2


batches = st.tuples(st.integers(1, 4), st.integers(1, 4), st.integers(1, 5)).flatmap(
    lambda shape: st.tuples(
        st.just(shape[:2]), st.lists(st.integers(1, 50), min_size=(n := shape[0] * shape[1] * shape[2]), max_size=n)
    )
)


@given(batches)
def test_parts_have_their_share_of_every_length_and_the_same_rows_for_any_number_of_ranks(batch):
    (parts, ranks), lengths = batch
    order = order_rows(lengths, parts, ranks).reshape(ranks, parts, -1)
    assert sorted(order.flatten()) == list(range(len(lengths)))
    alone = order_rows(lengths, parts, ranks=1).reshape(parts, -1)
    for part in range(parts):
        assert sorted(order[:, part].flatten()) == sorted(alone[part])
        assert all(lengths[i] <= lengths[j] for rows in order[:, part] for i, j in itertools.pairwise(rows))
    shares = [[lengths[i] for i in rows] for rows in alone]
    for index in range(len(shares[0]) - 1):  # no part has a row that is longer than the next row of another
        assert max(share[index] for share in shares) <= min(share[index + 1] for share in shares)


@given(batches)
def test_ranks_of_a_part_differ_by_less_than_two_of_its_rows(batch):
    (parts, ranks), lengths = batch
    tokens = np.array(lengths)[order_rows(lengths, parts, ranks)].reshape(ranks, parts, -1).sum(-1)
    assert (tokens.max(0) - tokens.min(0)).max() < 2 * max(lengths)


def test_on_one_rank_the_order_is_that_of_rows_sorted_by_length_and_distributed_round_robin():
    lengths = np.random.default_rng(0).integers(60, 140, 128 * 4).tolist()
    by_length = sorted(range(len(lengths)), key=lambda i: lengths[i])
    assert order_rows(lengths, parts=8, ranks=1).tolist() == [i for part in range(8) for i in by_length[part::8]]


@pytest.mark.parametrize("ranks", [1, 2, 4, 8, 16, 24, 32, 64])
@pytest.mark.parametrize(
    ("recipe", "steps"),
    [("tiny_cpu", 8), ("iranker_3b", 2), ("iranker_3b_episodes", 2), ("iranker_1_5b_single_gpu", 1)],
)
def test_a_batch_computes_at_most_15_percent_more_tokens_than_it_has_on_1_to_64_ranks(recipe, steps, ranks):
    tokens = np.array(sample_rows(recipe, seed=ranks)).sum(1)
    padding = -len(tokens) % batch_multiple(steps, [role(mini=1, micro=None, dynamic=True)], [], ranks)
    assert padding < steps * ranks
    assert (tokens.sum() + PADDING_TOKENS * padding) / tokens.sum() <= 1.15
