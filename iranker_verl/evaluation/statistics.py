"""How sure we are of a mean: bootstrap intervals and paired tests, over tasks, stratified by dataset.

The macro mean is the mean of the datasets' means, each dataset weighing the same. All procedures keep to it: tasks are
drawn anew within their dataset, and the paired test's statistic is the macro mean of the differences.

    comparisons(values, against="after", seed=0)     # every system against one, by dataset and macro, Holm-corrected
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy import stats

RESAMPLES = 5000
PERMUTATIONS = 9999
# A table of 150 comparisons multiplies its least p by 150, so a table's test needs finer steps than a single one.
TABLE_PERMUTATIONS = 99_999
EXACT = 16  # pairs that differ, up to which all 2^n sign assignments are taken: fewer than the sample
_BATCH = 500
_TIE = 1e-10  # sums of the same numbers in another order differ by less; what is this close counts as extreme
MACRO = "macro"

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

    ``before[d][i]`` and ``after[d][i]`` are the same task.
    """
    if set(before) != set(after):
        raise ValueError(f"before has the datasets {sorted(before)}, after has {sorted(after)}")
    parts = []
    for dataset in sorted(before):
        first, second = np.asarray(before[dataset], float), np.asarray(after[dataset], float)
        if first.shape != second.shape or first.size == 0:
            raise ValueError(f"{dataset}: {first.size} tasks before, {second.size} after; a pair needs both")
        parts.append((second - first) / (len(before) * first.size))
    return sign_flip_p(np.concatenate(parts), seed=seed, permutations=permutations)  # they sum to the macro difference


def sign_flip_p(
    differences: Sequence[float] | np.ndarray, *, seed: int, permutations: int = TABLE_PERMUTATIONS
) -> float:
    """Two-sided p of "the differences are symmetric about 0", by their sum under random signs (Fisher's randomisation).

    Exact where at most :data:`EXACT` differences are not 0 (a pair without a difference decides nothing); else sampled,
    the observed assignment counted as one of ``permutations + 1``. Never 0. 1 where there is no difference at all.
    """
    column = np.asarray(differences, float)
    if np.count_nonzero(column) <= EXACT:
        return _exact_p(column)
    [[p]], _ = _sampled_p([column[:, None]], [np.ones(1)], seed=seed, permutations=permutations)
    return float(p)


def _exact_p(column: np.ndarray) -> float:
    sums = np.zeros(1)
    for value in column[column != 0]:
        sums = np.concatenate([sums + value, sums - value])
    return float(np.mean(np.abs(sums) >= abs(column.sum()) - _TIE))


def _sampled_p(
    blocks: Sequence[np.ndarray], weights: Sequence[np.ndarray], *, seed: int, permutations: int
) -> tuple[np.ndarray, np.ndarray]:
    """p of every column of every block, (blocks, columns), and of the columns' sums weighted over the blocks, (columns,).

    ``blocks[b]`` is (pairs, columns), ``weights[b]`` is (columns,). A pair's sign is drawn once for all columns: each
    test is the same as alone, and the signs, which cost the most, are drawn once for all systems.
    """
    rng = np.random.default_rng(seed)
    observed = np.array([block.sum(axis=0) for block in blocks])
    weight = np.array(weights)
    total = (observed * weight).sum(axis=0)
    extreme, extreme_total = np.zeros(observed.shape), np.zeros(total.shape)
    for start in range(0, permutations, _BATCH):
        size = min(_BATCH, permutations - start)
        sums = [(rng.integers(0, 2, (size, len(block)), np.int8) * 2.0 - 1.0) @ block for block in blocks]
        for b, found in enumerate(sums):
            extreme[b] += (np.abs(found) >= np.abs(observed[b]) - _TIE).sum(axis=0)
        macro = sum(found * w for found, w in zip(sums, weight, strict=True))
        extreme_total += (np.abs(macro) >= np.abs(total) - _TIE).sum(axis=0)
    return (1 + extreme) / (1 + permutations), (1 + extreme_total) / (1 + permutations)


def holm(p: Sequence[float]) -> list[float]:
    """Holm's step-down correction of a family of p values, in their order: the chance of one false finding among all of
    them stays below the level that they are held against (Holm 1979)."""
    order = sorted(range(len(p)), key=lambda i: p[i])
    corrected, least = [0.0] * len(p), 0.0
    for place, i in enumerate(order):
        least = max(least, min(1.0, (len(p) - place) * p[i]))
        corrected[i] = least
    return corrected


ByTask = Mapping[str, Mapping[str, Mapping[str, float]]]  # system -> dataset -> task id -> value


def comparisons(
    values: ByTask, against: str, *, seed: int, permutations: int = TABLE_PERMUTATIONS
) -> list[dict[str, Any]]:
    """``comparisons`` of ``results.json``: every other system against one, macro and by dataset.

    ``values[system][dataset][task id]`` is a task's value, e.g. its reciprocal rank. A pair is a task that both systems
    ranked; a dataset without any is left out, and the macro mean is over the datasets that are left. Holm's correction
    is over all comparisons of the list, macro and datasets together. ValueError where ``against`` is no system.
    """
    if against not in values:
        raise ValueError(f"no system {against!r} to compare with; there are {', '.join(values)}")
    base = values[against]
    pairs: dict[str, dict[str, np.ndarray]] = {}  # system -> dataset -> differences, (tasks of both,)
    for system, parts in values.items():
        shared = {d: [t for t in base[d] if t in parts.get(d, {})] for d in base}
        found = {d: np.array([parts[d][t] - base[d][t] for t in ts], float) for d, ts in shared.items() if ts}
        if system != against and found:
            pairs[system] = found
    p = _table_p(values, against, pairs, seed, permutations)
    corrected = dict(zip(p, holm(list(p.values())), strict=True))
    table = []
    for system, dataset in p:
        strata = pairs[system] if dataset == MACRO else {dataset: pairs[system][dataset]}
        low, high = interval({d: v.tolist() for d, v in strata.items()}, seed=seed)
        table.append(
            {
                "system": system,
                "against": against,
                "dataset": dataset,
                "difference": macro_mean({d: v.tolist() for d, v in strata.items()}),
                "ci95": [low, high],
                "p": p[system, dataset],
                "p_holm": corrected[system, dataset],
                "n": sum(v.size for v in strata.values()),
            }
        )
    return table


def _table_p(
    values: ByTask, against: str, pairs: Mapping[str, Mapping[str, np.ndarray]], seed: int, permutations: int
) -> dict[tuple[str, str], float]:
    """p by (system, dataset or "macro")."""
    systems = list(pairs)
    datasets = [d for d in values[against] if any(d in found for found in pairs.values())]
    blocks, weights = [], []
    for d in datasets:
        base = values[against][d]
        others = [values[s].get(d, {}) for s in systems]
        blocks.append(np.array([[o[t] - base[t] if t in o else 0.0 for o in others] for t in base]))
        weights.append(np.array([1 / (pairs[s][d].size * len(pairs[s])) if d in pairs[s] else 0.0 for s in systems]))
    if not blocks:
        return {}
    sampled, total = _sampled_p(blocks, weights, seed=seed, permutations=permutations)
    p: dict[tuple[str, str], float] = {}
    for column, system in enumerate(systems):
        whole = np.concatenate([b[:, column] * w[column] for b, w in zip(blocks, weights, strict=True)])
        p[system, MACRO] = _exact_p(whole) if np.count_nonzero(whole) <= EXACT else float(total[column])
        for row, d in enumerate(datasets):
            if d in pairs[system]:
                block = blocks[row][:, column]
                p[system, d] = _exact_p(block) if np.count_nonzero(block) <= EXACT else float(sampled[row][column])
    return p


def reference(macro: Mapping[str, Mapping[str, Any]]) -> str | None:
    """The system that a table is about, and the others are held against: ``zero-shot`` (of merged zero-shot runs), else
    ``after``; else the first that asks a language model (``calls_per_task`` of ``results.json``'s ``macro``) and is not a
    rival; else None."""
    from iranker_verl.evaluation.rivals import RIVALS

    models = [s for s, numbers in macro.items() if numbers.get("calls_per_task") is not None and s not in RIVALS]
    return next((s for s in ("zero-shot", "after") if s in macro), next(iter(models), None))


def _arrays(values: Strata) -> list[np.ndarray]:
    arrays = [np.asarray(v, float) for v in values.values()]
    if not arrays or any(a.size == 0 for a in arrays):
        raise ValueError("a mean needs at least one dataset, and every dataset at least one task")
    return arrays
