"""How a batch of rows is cut into optimiser steps, counted in tasks.

A batch takes ``data.train_batch_size / ppo_mini_batch_size`` optimiser steps an epoch, whatever its number of rows. verl counts
rows, so episodes of N - 1 rows would take N - 1 times the steps, and a varying number of them. A *role* here is the config of
what learns: ``actor_rollout_ref.actor`` or ``critic``.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

PADDING_TOKENS = 2  # of a padding row: one of prompt and one of response
COMPUTED_TOKENS = "computed_tokens"  # the engine's metric of each micro-batch of an update: tokens, padding included


def steps_per_epoch(train_batch_size: int, role: Any) -> int:
    """Return the optimiser steps that ``role`` takes of one batch in one epoch, at least 1."""
    return max(1, train_batch_size // role.ppo_mini_batch_size)


def parts(train_batch_size: int, roles: Iterable[Any]) -> int:
    """Return the number of equal parts of a batch that make every role's optimiser steps."""
    return math.lcm(*(steps_per_epoch(train_batch_size, role) for role in roles))


def batch_multiple(train_batch_size: int, roles: Iterable[Any], passes: Iterable[int], ranks: int) -> int:
    """Return the number that the rows of a batch have to be a multiple of, so that every pass over it can be cut evenly.

    ``passes``: micro-batch sizes of passes over the whole batch (log-probs of actor and reference); ``ranks``: data-parallel
    workers. With micro-batches by tokens it is ``parts * ranks``; of fixed size, it grows with that size.
    """
    roles = list(roles)
    fixed = [role for role in roles if not role.use_dynamic_bsz]
    sizes = [steps_per_epoch(train_batch_size, role) * role.ppo_micro_batch_size_per_gpu for role in fixed]
    return ranks * math.lcm(parts(train_batch_size, roles), *sizes, *passes)


def update_settings(train_batch_size: int, role: Any, rows: int, real_rows: int, temperature: float) -> dict[str, Any]:
    """Return what verl's workers read of a batch of ``rows`` rows, of which ``real_rows`` are not padding."""
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


def order_rows(lengths: Sequence[int], parts: int, ranks: int) -> np.ndarray:
    """Return an order of rows: those of rank 0, of rank 1 and so on, and of each rank part after part.

    The ``parts`` are optimiser steps. The rows, sorted by length, are distributed round-robin over them, so each part has its
    share of every length, and the same rows whatever the number of ranks. The rows of a part are distributed over the ranks,
    longest first, each time one to each, more tokens to those that have fewer. Within a rank's part they are sorted by length:
    padded micro-batches of fixed size then hold little padding. ``len(lengths)`` is a multiple of ``parts * ranks``.

    >>> order_rows([5, 1, 4, 2, 3, 6], parts=2, ranks=1).tolist()
    [1, 4, 0, 3, 2, 5]
    >>> order_rows([9, 1, 5, 3, 2, 8, 4, 6], parts=2, ranks=2).tolist()
    [1, 5, 4, 0, 3, 2, 6, 7]
    """
    tokens = np.asarray(lengths)
    by_length = np.argsort(tokens, kind="stable").reshape(-1, ranks, parts).transpose(0, 2, 1)  # (turns, parts, ranks)
    turns = len(by_length)
    order = np.empty((ranks, parts, turns), dtype=np.int64)
    loads = np.zeros((parts, ranks), dtype=np.int64)
    part = np.arange(parts)[:, None]
    for turn in range(turns - 1, -1, -1):
        emptiest, rows = np.argsort(loads, axis=1, kind="stable"), by_length[turn, :, ::-1]
        order[emptiest, part, turn] = rows
        loads[part, emptiest] += tokens[rows]
    return order.reshape(-1)


def slowest_over_mean(lengths: Sequence[int], parts: int, ranks: int) -> float:
    """Return the tokens of the rank with most over the ranks' mean, for all parts together; all ranks wait for it in each part.

    ``lengths`` are in the order of :func:`order_rows`.

    >>> slowest_over_mean([1, 9, 2, 8], parts=1, ranks=2), slowest_over_mean([1, 9, 2, 2], parts=2, ranks=2)
    (1.0, 1.5714285714285714)
    """
    tokens = np.asarray(lengths).reshape(ranks, parts, -1).sum(-1)
    return float(tokens.max(0).sum() / tokens.mean(0).sum())
