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
from iranker_verl.evaluation.statistics import Values, comparisons, interval, paired_p
from iranker_verl.evaluation.systems import Role, check_roles, main_system, with_role
from iranker_verl.inference.episode import Episode

Parts = dict[str, list[Record]]  # by dataset, in the order of the records
MODEL_ONLY = (
    *("malformed_rate", "calls_per_task", "prompt_tokens_per_task", "new_tokens_per_task"),
    *("seconds_p50", "seconds_p95", "dollars_per_task", "orders"),
)


def collect(results: Iterable[SystemResult], *, seed: int = 0) -> dict[str, Any]:
    """Return ``datasets``, ``macro``, ``roles``, ``paired_p``, ``comparisons`` and ``unavailable`` of ``results.json``.

    ``paired_p`` is None unless there are a model before training and one after it, over the same tasks. Raise UserError where
    two systems have a role that only one can have.
    """
    results = list(results)
    roles = {r.system: r.role for r in results if r.records}
    check_roles(roles)
    parts = {r.system: by_dataset(r.records) for r in results if r.records}
    datasets: dict[str, dict[str, Any]] = {}
    macro: dict[str, Any] = {}
    for result in results:
        if result.system not in parts:
            continue
        own = parts[result.system]
        for dataset, records in own.items():
            datasets.setdefault(dataset, {})[result.system] = _numbers(result, {dataset: records}, seed)
        macro[result.system] = {**_numbers(result, own, seed), "n_datasets": len(own)}
    values = {system: _values(found, _rr) for system, found in parts.items()}
    before, after = with_role(roles, Role.BEFORE), with_role(roles, Role.ZERO_SHOT) or with_role(roles, Role.AFTER)
    against = main_system(roles)
    return {
        "datasets": datasets,
        "macro": macro,
        "roles": roles,
        "paired_p": paired_p(values[before], values[after], seed=seed) if before and after else None,
        "comparisons": comparisons(values, against, seed=seed) if against else [],
        "unavailable": {r.system: r.unavailable for r in results if r.unavailable is not None},
    }


def values_by_task(records: Iterable[Record]) -> Values:
    """Return, by dataset and task, the reciprocal rank, meaned over the task's orders."""
    return _values(by_dataset(records), _rr)


def _numbers(result: SystemResult, parts: Parts, seed: int) -> dict[str, Any]:
    """Return the numbers of a system over some datasets, each weighing the same. A task's value is its mean over the orders."""
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
    """Return how many orders, how far their means are apart (null for one), and the position bias; see :mod:`.orders`."""
    found = sorted({r.order for records in parts.values() for r in records})
    means = [_mean({d: [r for r in rs if r.order == order] for d, rs in parts.items()}, _rr) for order in found]
    bias = fmean(
        fmean(correlation([c.id for c in r.task.candidates], r.ranking) for r in records) for records in parts.values()
    )
    return {"k": len(found), "sd": stdev(means) if len(means) > 1 else None, "position_bias": bias}


def _rr(record: Record) -> float:
    return record.values["rr"]


def by_dataset(records: Iterable[Record]) -> Parts:
    """Return the records of each dataset, in their order."""
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
    """Return, by dataset and task, the mean over its orders."""
    return {d: {t: fmean(map(value, own)) for t, own in _by_task(records).items()} for d, records in parts.items()}


def _mean(parts: Parts, value: Callable[[Record], float]) -> float:
    return fmean(fmean(values.values()) for values in _values(parts, value).values())
