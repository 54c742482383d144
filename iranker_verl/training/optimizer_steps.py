"""How a batch of rows is cut into optimiser steps, counted in tasks.

A batch takes ``data.train_batch_size / ppo_mini_batch_size`` optimiser steps an epoch, whatever its number of rows. verl counts
rows, so episodes of N - 1 rows would take N - 1 times the steps, and a varying number of them. A *role* here is the config of
what learns: ``actor_rollout_ref.actor`` or ``critic``.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any


def steps_per_epoch(train_batch_size: int, role: Any) -> int:
    """Return the optimiser steps that ``role`` takes of one batch in one epoch, at least 1."""
    return max(1, train_batch_size // role.ppo_mini_batch_size)


def batch_multiple(train_batch_size: int, roles: Iterable[Any], passes: Iterable[int], ranks: int) -> int:
    """Return the number that the rows of a batch have to be a multiple of, so that every pass over it can be cut evenly.

    ``passes``: micro-batch sizes of passes over the whole batch (log-probs of actor and reference); ``ranks``: data-parallel
    workers. A role with dynamic batch sizes takes micro-batches of any size.
    """
    multiple = ranks
    for role in roles:
        micro = 1 if role.use_dynamic_bsz else role.ppo_micro_batch_size_per_gpu
        multiple = math.lcm(multiple, steps_per_epoch(train_batch_size, role) * ranks * micro)
    return math.lcm(multiple, *(ranks * size for size in passes))


def update_settings(train_batch_size: int, role: Any, rows: int, real_rows: int, temperature: float) -> dict[str, Any]:
    """Return what verl's workers read of a batch of ``rows`` rows, of which ``real_rows`` are no padding."""
    steps = steps_per_epoch(train_batch_size, role)
    return {
        # what verl's seq-mean losses divide by (policy, entropy, KL, value): the real rows
        "global_batch_size": real_rows / steps,
        "mini_batch_size": rows // steps,
        "epochs": role.ppo_epochs,
        "seed": role.data_loader_seed,
        "dataloader_kwargs": {"shuffle": role.shuffle},
        "temperature": temperature,
    }


def split_by_length(lengths: Sequence[int], ranks: int, steps: int) -> list[int]:
    """Return an order of rows in which micro-batches of fixed size hold little padding.

    The rows of each rank, sorted by length, are distributed round-robin over its ``steps`` equal mini-batches: each mini-batch
    gets its share of every length, in order of length. ``len(lengths)`` is a multiple of ``ranks * steps``.

    >>> split_by_length([5, 1, 4, 2, 3, 6], ranks=1, steps=2)
    [1, 4, 0, 3, 2, 5]
    """
    share = len(lengths) // ranks
    order = []
    for first in range(0, len(lengths), share):
        by_length = sorted(range(first, first + share), key=lambda i: lengths[i])
        order += [i for part in range(steps) for i in by_length[part::steps]]
    return order
