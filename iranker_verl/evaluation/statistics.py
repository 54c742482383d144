"""Bootstrap intervals and paired tests of means over tasks, stratified by dataset.

The macro mean is the mean of the datasets' means, each dataset weighing the same. All procedures keep to it: tasks are
drawn anew within their dataset, and the paired test's statistic is the macro mean of the differences.

**What is drawn is a query, not a task.** The three routing datasets ask the same queries, so what a system gets in one says
something of the others. Tasks of one query (:func:`query`) are drawn, and their signs flipped, together; taken for
independent, their intervals were too narrow and their p too small (where a query's differences correlate by .8 in three
datasets, a test at the 5 % level rejects a true null hypothesis in 28 % of all cases). Two tasks that happen to have one id in
two datasets are drawn together as well, which is just as valid.

    comparisons(values, against="after", seed=0)     # every system against one, by dataset and macro, Holm-corrected
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy import stats

RESAMPLES = 5000
PERMUTATIONS = 9999
# A table of 150 comparisons multiplies its least p by 150, so a table's test needs finer steps than a single one.
TABLE_PERMUTATIONS = 99_999
EXACT = 16  # queries that differ, up to which all 2^n sign assignments are taken: fewer than the sample
_BATCH = 500
_TIE = 1e-10  # sums of the same numbers in another order differ by less; what is this close counts as extreme
MACRO = "macro"
REST = "\0"  # separates a query's key from what distinguishes its tasks

Values = Mapping[str, Mapping[str, float]]  # dataset -> task id -> value


def query(dataset: str, task: str) -> str:
    """Return what tasks of one query have in common: the id but for the dataset's name, as data preparation makes ids.

    >>> query("router-cost", "router-cost:reasoning:16b1"), query("router-balance", "router-balance:reasoning:16b1")
    ('reasoning:16b1', 'reasoning:16b1')
    """
    return task.removeprefix(f"{dataset}:").partition(REST)[0]


def macro_mean(values: Values) -> float:
    """Return the mean of the datasets' means. Raise ValueError where there is no dataset, or one without tasks."""
    return float(sum(_shares(values).values()))


def interval(values: Values, *, seed: int, resamples: int = RESAMPLES) -> tuple[float, float]:
    """Return the 95 % bootstrap percentile interval of the macro mean (with one dataset: of its mean).

    Queries are drawn anew among those of the same datasets, so every dataset keeps its number of tasks. Of a single query
    nothing is known of the spread, and it contributes none.
    """
    found: dict[tuple[str, ...], list[float]] = defaultdict(list)
    datasets: dict[str, list[str]] = defaultdict(list)
    for dataset, tasks in values.items():
        for task in tasks:
            datasets[query(dataset, task)].append(dataset)
    for name, share in _shares(values).items():
        found[tuple(datasets[name])].append(share)
    # Drawing anew from one value twice is that value, which scipy otherwise refuses.
    samples = [np.repeat(v, 2) if len(v) == 1 else np.array(v) for v in found.values()]
    sizes = [len(v) for v in found.values()]

    def statistic(*drawn: Any, axis: int) -> Any:
        return sum(size * np.mean(d, axis=axis) for size, d in zip(sizes, drawn, strict=True))

    ends = stats.bootstrap(
        samples,
        statistic,
        n_resamples=resamples,
        confidence_level=0.95,
        method="percentile",
        vectorized=True,
        batch=_BATCH,
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return float(ends.low), float(ends.high)


def paired_p(before: Values, after: Values, *, seed: int, permutations: int = PERMUTATIONS) -> float:
    """Return the two-sided p of "the macro mean did not change", by random sign flips of the queries' differences.

    Raise ValueError where ``before`` and ``after`` are not of the same tasks.
    """
    if {d: set(tasks) for d, tasks in before.items()} != {d: set(tasks) for d, tasks in after.items()}:
        raise ValueError("before and after are of different datasets or tasks; a pair needs both")
    differences = {d: {t: after[d][t] - value for t, value in tasks.items()} for d, tasks in before.items()}
    return sign_flip_p(list(_shares(differences).values()), seed=seed, permutations=permutations)


def _shares(values: Values) -> dict[str, float]:
    """Return what each query contributes to the macro mean; the shares sum to it."""
    if not values or not all(values.values()):
        raise ValueError("a mean needs at least one dataset, and every dataset at least one task")
    shares: dict[str, float] = defaultdict(float)
    for dataset, tasks in values.items():
        for task, value in tasks.items():
            shares[query(dataset, task)] += value / (len(values) * len(tasks))
    return dict(shares)


def sign_flip_p(
    differences: Sequence[float] | np.ndarray, *, seed: int, permutations: int = TABLE_PERMUTATIONS
) -> float:
    """Return the two-sided p of "the differences are symmetric about 0", by their sum under random signs (Fisher's randomisation).

    Exact where at most :data:`EXACT` differences are not 0 (a pair without a difference decides nothing); else sampled,
    the observed assignment counted as one of ``permutations + 1``. Never 0. 1 where there is no difference at all.
    """
    column = np.asarray(differences, float)
    if np.count_nonzero(column) <= EXACT:
        return _exact_p(column)
    each = np.arange(column.size)
    [[p]], _ = _sampled_p([column[:, None]], [np.ones(1)], [each], seed=seed, permutations=permutations)
    return float(p)


def _exact_p(column: np.ndarray) -> float:
    sums = np.zeros(1)
    for value in column[column != 0]:
        sums = np.concatenate([sums + value, sums - value])
    return float(np.mean(np.abs(sums) >= abs(column.sum()) - _TIE))


def _sampled_p(
    blocks: Sequence[np.ndarray],
    weights: Sequence[np.ndarray],
    queries: Sequence[np.ndarray],
    *,
    seed: int,
    permutations: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Return p of every column of every block, (blocks, columns), and of the columns' sums weighted over the blocks, (columns,).

    ``blocks[b]`` is (pairs, columns), ``weights[b]`` is (columns,), ``queries[b]`` is (pairs,): the number of each pair's
    query, whose sign is drawn once for all its pairs and for all columns. Each test is the same as alone, and the signs, which
    cost the most, are drawn once for all systems.
    """
    rng = np.random.default_rng(seed)
    observed = np.array([block.sum(axis=0) for block in blocks])
    weight = np.array(weights)
    total = (observed * weight).sum(axis=0)
    extreme, extreme_total = np.zeros(observed.shape), np.zeros(total.shape)
    for start in range(0, permutations, _BATCH):
        size = min(_BATCH, permutations - start)
        signs = rng.integers(0, 2, (size, 1 + max(int(own.max()) for own in queries)), np.int8) * 2.0 - 1.0
        sums = [signs[:, own] @ block for own, block in zip(queries, blocks, strict=True)]
        for b, found in enumerate(sums):
            extreme[b] += (np.abs(found) >= np.abs(observed[b]) - _TIE).sum(axis=0)
        macro = sum(found * w for found, w in zip(sums, weight, strict=True))
        extreme_total += (np.abs(macro) >= np.abs(total) - _TIE).sum(axis=0)
    return (1 + extreme) / (1 + permutations), (1 + extreme_total) / (1 + permutations)


def holm(p: Sequence[float]) -> list[float]:
    """Return p values corrected by Holm's step-down procedure (Holm 1979), in the order of ``p``.

    The chance of one false finding among all of them stays below the level that they are compared with.
    """
    order = sorted(range(len(p)), key=lambda i: p[i])
    corrected, least = [0.0] * len(p), 0.0
    for smaller, i in enumerate(order):
        least = max(least, min(1.0, (len(p) - smaller) * p[i]))
        corrected[i] = least
    return corrected


ByTask = Mapping[str, Values]  # system -> dataset -> task id -> value


def comparisons(
    values: ByTask, against: str, *, seed: int, permutations: int = TABLE_PERMUTATIONS
) -> list[dict[str, Any]]:
    """Return ``comparisons`` of ``results.json``: every other system against one, macro and by dataset.

    ``values[system][dataset][task id]`` is a task's value, e.g. its reciprocal rank. A pair is a task that both systems
    ranked; a dataset without any is left out, and the macro mean is over the datasets that are left. Holm's correction
    is over all comparisons of the list, macro and datasets together; where a system has one dataset, its macro test is that
    dataset's and counts once. Raise ValueError where ``against`` is no system.
    """
    if against not in values:
        raise ValueError(f"no system {against!r} to compare with; there are {', '.join(values)}")
    base = values[against]
    pairs: dict[str, dict[str, dict[str, float]]] = {}  # system -> dataset -> task of both -> difference
    for system, parts in values.items():
        shared = {d: {t: parts[d][t] - v for t, v in base[d].items() if t in parts.get(d, {})} for d in base}
        if system != against and (found := {d: own for d, own in shared.items() if own}):
            pairs[system] = found
    p = _table_p(base, pairs, seed, permutations)
    family = [test for test in p if test[1] == MACRO or len(pairs[test[0]]) > 1]
    corrected = dict(zip(family, holm([p[test] for test in family]), strict=True))
    table = []
    for system, dataset in p:
        differences = pairs[system] if dataset == MACRO else {dataset: pairs[system][dataset]}
        table.append(
            {
                "system": system,
                "against": against,
                "dataset": dataset,
                "difference": macro_mean(differences),
                "ci95": list(interval(differences, seed=seed)),
                "p": p[system, dataset],
                "p_holm": corrected.get((system, dataset), corrected[system, MACRO]),
                "n": sum(map(len, differences.values())),
            }
        )
    return table


def _table_p(base: Values, pairs: Mapping[str, Values], seed: int, permutations: int) -> dict[tuple[str, str], float]:
    """Return p by (system, dataset or "macro")."""
    systems = list(pairs)
    datasets = [d for d in base if any(d in found for found in pairs.values())]
    numbers: dict[str, int] = {}
    blocks, weights, queries = [], [], []
    for d in datasets:
        blocks.append(np.array([[pairs[s].get(d, {}).get(t, 0.0) for s in systems] for t in base[d]]))
        weights.append(np.array([1 / (len(pairs[s][d]) * len(pairs[s])) if d in pairs[s] else 0.0 for s in systems]))
        queries.append(np.array([numbers.setdefault(query(d, t), len(numbers)) for t in base[d]]))
    if not blocks:
        return {}
    sampled, total = _sampled_p(blocks, weights, queries, seed=seed, permutations=permutations)

    def chosen(differences: Values, from_sample: float) -> float:
        shares = np.array(list(_shares(differences).values()))
        return _exact_p(shares) if np.count_nonzero(shares) <= EXACT else float(from_sample)

    p: dict[tuple[str, str], float] = {}
    for column, system in enumerate(systems):
        p[system, MACRO] = chosen(pairs[system], total[column])
        for row, d in enumerate(datasets):
            if d in pairs[system]:
                p[system, d] = chosen({d: pairs[system][d]}, sampled[row][column])
    return p
