"""The numbers of ``results.json``, from the records of all systems. Its keys are explained in docs/evaluation.md."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from statistics import fmean, stdev
from typing import Any

import numpy as np

from iranker_verl.evaluation.metrics import MEASURES
from iranker_verl.evaluation.orders import correlation
from iranker_verl.evaluation.records import Record, SystemResult
from iranker_verl.evaluation.statistics import comparisons, interval, paired_p, reference
from iranker_verl.inference.episode import Episode

Parts = dict[str, list[Record]]  # by dataset, in the order of the records
MODEL_ONLY = (
    *("malformed_rate", "calls_per_task", "prompt_tokens_per_task", "new_tokens_per_task"),
    *("seconds_p50", "seconds_p95", "dollars_per_task", "orders"),
)


def collect(results: Iterable[SystemResult], *, seed: int = 0) -> dict[str, Any]:
    """``datasets``, ``macro``, ``paired_p``, ``comparisons`` and ``unavailable`` of ``results.json``.

    ``paired_p`` is None unless ``before`` and ``after`` are both there, over the same tasks.
    """
    results = list(results)
    parts = {r.system: _by_dataset(r.records) for r in results if r.records}
    datasets: dict[str, dict[str, Any]] = {}
    macro: dict[str, Any] = {}
    for result in results:
        if result.system not in parts:
            continue
        own = parts[result.system]
        for dataset, records in own.items():
            datasets.setdefault(dataset, {})[result.system] = _numbers(result, {dataset: records}, seed)
        macro[result.system] = {**_numbers(result, own, seed), "n_datasets": len(own)}
    return {
        "datasets": datasets,
        "macro": macro,
        "paired_p": _paired(parts, seed),
        "comparisons": _comparisons(parts, macro, seed),
        "unavailable": {r.system: r.unavailable for r in results if r.unavailable is not None},
    }


def _paired(parts: dict[str, Parts], seed: int) -> float | None:
    if not {"before", "after"} <= parts.keys():
        return None
    before, after = parts["before"], parts["after"]
    return paired_p(_values(before, _rr), _values(after, _rr), seed=seed)


def _comparisons(parts: dict[str, Parts], macro: dict[str, Any], seed: int) -> list[dict[str, Any]]:
    """Every system against the one that the results are about; empty where there is none."""
    if (against := reference(macro)) is None:
        return []
    return comparisons({s: _values(found, _rr) for s, found in parts.items()}, against, seed=seed)


def _numbers(result: SystemResult, parts: Parts, seed: int) -> dict[str, Any]:
    """The numbers of one system over some datasets, each weighing the same. A task's value is its mean over the orders."""
    low, high = interval(_values(parts, _rr), seed=seed)
    numbers: dict[str, Any] = {name: _mean(parts, lambda r, name=name: r.values[name]) for name in MEASURES}  # type: ignore[misc]
    numbers |= {
        "rr_strict": _mean(parts, lambda r: r.rr_strict),
        "n": sum(len(_by_task(records)) for records in parts.values()),
        "ci95": [low, high],
        "fit_seconds": result.fit_seconds,
        "rank_seconds": result.rank_seconds,
    }
    episodes = {d: [r.episode for r in records if r.episode is not None] for d, records in parts.items()}
    if not all(episodes.values()):
        return numbers | dict.fromkeys(MODEL_ONLY)

    def per_task(value: Callable[[Episode], float]) -> float:
        return fmean(fmean(map(value, es)) for es in episodes.values())

    def seconds(percent: float) -> float:
        return fmean(float(np.percentile([e.seconds for e in es], percent)) for es in episodes.values())

    price = result.price
    return numbers | {
        "malformed_rate": fmean(sum(e.malformed for e in es) / sum(e.calls for e in es) for es in episodes.values()),
        "calls_per_task": per_task(lambda e: e.calls),
        "prompt_tokens_per_task": per_task(lambda e: e.prompt_tokens),
        "new_tokens_per_task": per_task(lambda e: e.new_tokens),
        "seconds_p50": seconds(50),
        "seconds_p95": seconds(95),
        "dollars_per_task": per_task(lambda e: price.dollars(e.prompt_tokens, e.new_tokens)) if price else None,
        "orders": _orders(parts),
    }


def _orders(parts: Parts) -> dict[str, Any]:
    """How many orders, how far their means are apart (null for one), and the position bias; see :mod:`.orders`."""
    found = sorted({r.order for records in parts.values() for r in records})
    means = [_mean({d: [r for r in rs if r.order == order] for d, rs in parts.items()}, _rr) for order in found]
    bias = fmean(fmean(_bias(r) for r in records) for records in parts.values())
    return {"k": len(found), "sd": stdev(means) if len(means) > 1 else None, "position_bias": bias}


def _bias(record: Record) -> float:
    return correlation([c.id for c in record.task.candidates], record.ranking)


def _rr(record: Record) -> float:
    return record.values["rr"]


def _by_dataset(records: Iterable[Record]) -> Parts:
    parts: Parts = defaultdict(list)
    for record in records:
        parts[record.task.dataset].append(record)
    return dict(parts)


def _by_task(records: Iterable[Record]) -> dict[str, list[Record]]:
    tasks: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        tasks[record.task.id].append(record)
    return tasks


def _values(parts: Parts, value: Callable[[Record], float]) -> dict[str, dict[str, float]]:
    """By dataset and task: the mean over its orders."""
    return {d: {t: fmean(map(value, own)) for t, own in _by_task(records).items()} for d, records in parts.items()}


def _mean(parts: Parts, value: Callable[[Record], float]) -> float:
    return fmean(fmean(values.values()) for values in _values(parts, value).values())
