"""Read a run folder back: ``results.json``, and files of one JSON object a line, one line at a time."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from iranker_verl.errors import NOT_JSON, UserError
from iranker_verl.evaluation.baselines import BASELINES
from iranker_verl.evaluation.journal import EPISODES, of_system
from iranker_verl.evaluation.records import Record, records_of
from iranker_verl.evaluation.systems import Role, role_by_name
from iranker_verl.files import read_json

NUMBERS = ("rr", "ndcg@5", "ndcg@10", "hit@1", "n")  # of every system, beside its ci95


def read_results(run_dir: Path) -> dict[str, Any]:
    """Return ``results.json``. Raise UserError where it is missing or not what it should be.

    Of an earlier version, which had no ``roles``, a system's role is that of its name.
    """
    path = run_dir / "results.json"
    if not path.is_file():
        raise UserError(f"{path}: no such file; {run_dir} holds no finished evaluation")
    results = read_json(path, "evaluate the run again")
    if not isinstance(results.get("datasets"), dict) or not isinstance(results.get("macro"), dict):
        raise UserError(f"{path}: it needs `datasets` and `macro`; evaluate the run again")
    for where, found in [("macro", results["macro"]), *results["datasets"].items()]:
        if not isinstance(found, dict):
            raise UserError(f"{path}: {where} has to hold {{system: numbers}}; evaluate the run again")
        for system, numbers in found.items():
            if missing := _missing(numbers):
                raise UserError(f"{path}: {system} under {where} has no {missing}; evaluate the run again")
    results["roles"] = {system: _role(path, results, system) for system in results["macro"]}
    return results


def _role(path: Path, results: dict[str, Any], system: str) -> Role:
    role = (results.get("roles") or {}).get(system)
    if role is None:
        calls_no_model = results["macro"][system].get("calls_per_task") is None
        return role_by_name(system, baseline=calls_no_model or system in BASELINES)
    if role not in list(Role):
        raise UserError(f"{path}: the role of {system} is {role!r}; it has to be one of {', '.join(Role)}")
    return Role(role)


def _missing(numbers: Any) -> str | None:
    """Return the name of a system's first missing or invalid number, if any."""

    def is_number(value: Any) -> bool:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)

    if not isinstance(numbers, dict):
        return "numbers"
    ends = numbers.get("ci95")
    there = {name: is_number(numbers.get(name)) for name in NUMBERS}
    there["ci95"] = isinstance(ends, list) and len(ends) == 2 and all(map(is_number, ends))
    return next((name for name, good in there.items() if not good), None)


def lines(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the objects of a JSONL file, if it is there. A line cut short (by a kill) is passed over."""
    if not path.is_file():
        return
    with path.open(encoding="utf-8") as file:
        for line in file:
            try:
                value = json.loads(line)
            except NOT_JSON:
                continue
            if isinstance(value, dict):
                yield value


def records(run_dir: Path, system: str) -> list[Record]:
    """Return the records that a system left in the folder; none where it left no file."""
    path = of_system(run_dir, system)
    return list(records_of(lines(path), path, system))


def all_records(run_dir: Path, systems: Iterable[str] | None = None) -> dict[str, list[Record]]:
    """Return the records of the systems (default: all) that left any in the folder, by name."""
    known = sorted(p.name.removeprefix(EPISODES).removesuffix(".jsonl") for p in run_dir.glob(f"{EPISODES}*.jsonl"))
    chosen = known if systems is None else [system for system in known if system in set(systems)]
    return {system: found for system in chosen if (found := records(run_dir, system))}
