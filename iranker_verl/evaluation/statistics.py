"""How sure we are of a mean: bootstrap intervals and a paired test, over tasks, stratified by dataset.

The macro mean is the mean of the datasets' means, each dataset weighing the same. Both procedures keep to it: tasks are
drawn anew within their dataset, and the paired test's statistic is the macro mean of the differences.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy import stats

RESAMPLES = 5000
PERMUTATIONS = 9999
_BATCH = 500

Strata = Mapping[str, Sequence[float]]  # dataset -> one value a task


def macro_mean(values: Strata) -> float:
    """The mean of the datasets' means. ValueError where there is no dataset, or one without tasks."""
    return float(np.mean([float(np.mean(v)) for v in _arrays(values)]))


def interval(values: Strata, *, seed: int, resamples: int = RESAMPLES) -> tuple[float, float]:
    """The 95 % bootstrap percentile interval of the macro mean (with one dataset: of its mean).

    A dataset with a single task contributes no uncertainty, as nothing is known of its spread.
    """
    # Drawing anew from one value twice is that value, which scipy otherwise refuses.
    samples = [np.repeat(v, 2) if len(v) == 1 else v for v in _arrays(values)]

    def statistic(*drawn: Any, axis: int) -> Any:
        return np.mean([np.mean(d, axis=axis) for d in drawn], axis=0)

    found = stats.bootstrap(
        samples,
        statistic,
        n_resamples=resamples,
        confidence_level=0.95,
        method="percentile",
        vectorized=True,
        batch=_BATCH,
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return float(found.low), float(found.high)


def paired_p(before: Strata, after: Strata, *, seed: int, permutations: int = PERMUTATIONS) -> float:
    """Two-sided p of "the macro mean did not change", by random sign flips of the tasks' differences.

    ``before[d][i]`` and ``after[d][i]`` are the same task. Never 0: the observed assignment counts as one of all.
    """
    if set(before) != set(after):
        raise ValueError(f"before has the datasets {sorted(before)}, after has {sorted(after)}")
    parts = []
    for dataset in sorted(before):
        first, second = np.asarray(before[dataset], float), np.asarray(after[dataset], float)
        if first.shape != second.shape or first.size == 0:
            raise ValueError(f"{dataset}: {first.size} tasks before, {second.size} after; a pair needs both")
        parts.append((second - first) / (len(before) * first.size))
    weighted = np.concatenate(parts)  # sums to the macro mean of the differences
    observed = abs(float(weighted.sum()))
    rng = np.random.default_rng(seed)
    extreme = 0
    for start in range(0, permutations, _BATCH):
        signs = rng.choice((-1.0, 1.0), size=(min(_BATCH, permutations - start), weighted.size))
        extreme += int(np.sum(np.abs(signs @ weighted) >= observed - 1e-12))
    return (1 + extreme) / (1 + permutations)


def _arrays(values: Strata) -> list[np.ndarray]:
    arrays = [np.asarray(v, float) for v in values.values()]
    if not arrays or any(a.size == 0 for a in arrays):
        raise ValueError("a mean needs at least one dataset, and every dataset at least one task")
    return arrays
