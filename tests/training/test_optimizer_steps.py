"""Optimiser steps are counted in tasks, whatever the number of rows."""

from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iranker_verl.training.optimizer_steps import batch_multiple, split_by_length, steps_per_epoch, update_settings


def role(mini=4, micro=2, dynamic=False):
    return SimpleNamespace(
        ppo_mini_batch_size=mini,
        ppo_micro_batch_size_per_gpu=micro,
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


@given(st.data(), st.integers(1, 3), st.integers(1, 4), st.integers(1, 6))
def test_mini_batches_have_their_share_of_every_length(data, ranks, steps, rows):
    lengths = data.draw(st.lists(st.integers(1, 50), min_size=ranks * steps * rows, max_size=ranks * steps * rows))
    order = split_by_length(lengths, ranks, steps)
    share = steps * rows
    for rank in range(ranks):
        own = order[rank * share : (rank + 1) * share]
        assert sorted(own) == list(range(rank * share, (rank + 1) * share))  # a rank keeps its rows
        parts = [[lengths[i] for i in own[first : first + rows]] for first in range(0, share, rows)]
        assert all(part == sorted(part) for part in parts)
        for index in range(rows - 1):  # no part has a row that is longer than the next row of another
            assert max(part[index] for part in parts) <= min(part[index + 1] for part in parts)
