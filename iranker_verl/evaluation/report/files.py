"""Reading a run folder back: ``results.json``, and files of one JSON object a line, one line at a time."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean
from typing import Any

from iranker_verl.errors import UserError
from iranker_verl.evaluation.statistics import ByTask

EPISODES = "episodes-"
NUMBERS = ("rr", "ndcg@5", "ndcg@10", "hit@1", "n")  # of every system, beside its ci95


def read_results(run_dir: Path) -> dict[str, Any]:
    """``results.json``. UserError where it is missing or not what it should be."""
    path = run_dir / "results.json"
    results = read_object(path)
    if results is None:
        raise UserError(f"{path}: no such file; {run_dir} holds no finished evaluation")
    if not isinstance(results.get("datasets"), dict) or not isinstance(results.get("macro"), dict):
        raise UserError(f"{path}: it needs `datasets` and `macro`; evaluate the run again")
    for where, found in [("macro", results["macro"]), *results["datasets"].items()]:
        if not isinstance(found, dict):
            raise UserError(f"{path}: {where} has to hold {{system: numbers}}; evaluate the run again")
        for system, numbers in found.items():
            if missing := _missing(numbers):
                raise UserError(f"{path}: {system} under {where} has no {missing}; evaluate the run again")
    return results


def _missing(numbers: Any) -> str | None:
    """The first of a system's numbers that is none, if any."""

    def is_number(value: Any) -> bool:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)

    if not isinstance(numbers, dict):
        return "numbers"
    ends = numbers.get("ci95")
    there = {name: is_number(numbers.get(name)) for name in NUMBERS}
    there["ci95"] = isinstance(ends, list) and len(ends) == 2 and all(map(is_number, ends))
    return next((name for name, good in there.items() if not good), None)


def read_object(path: Path) -> dict[str, Any] | None:
    """The JSON object of a file, None where there is no such file. UserError where it is anything else."""
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path}: not valid JSON ({error})") from error
    if not isinstance(content, dict):
        raise UserError(f"{path}: it has to hold a JSON object, not a {type(content).__name__}")
    return content


def lines(path: Path) -> Iterator[dict[str, Any]]:
    """The objects of a JSONL file, if it is there. A line cut short (by a kill) is passed over."""
    if not path.is_file():
        return
    with path.open(encoding="utf-8") as file:
        for line in file:
            try:
                value = json.loads(line)
            except ValueError:
                continue
            if isinstance(value, dict):
                yield value


def episodes(run_dir: Path, system: str) -> Iterator[dict[str, Any]]:
    """A system's tasks, see :meth:`iranker_verl.evaluation.evaluate.Record.to_json`; none where it left no file."""
    return lines(run_dir / f"{EPISODES}{system}.jsonl")


def systems(run_dir: Path) -> list[str]:
    """The systems that left their tasks in the folder, by name."""
    return sorted(p.name.removeprefix(EPISODES).removesuffix(".jsonl") for p in run_dir.glob(f"{EPISODES}*.jsonl"))


def values(run_dir: Path, measure: str = "rr") -> ByTask:
    """{system: {dataset: {task id: value}}} of a measure, from the episode files; the mean over a task's orders."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for system in systems(run_dir):
        parts: dict[str, dict[str, list[float]]] = {}
        for line in episodes(run_dir, system):
            parts.setdefault(line["dataset"], {}).setdefault(line["task_id"], []).append(line[measure])
        if parts:
            found[system] = {d: {task: fmean(v) for task, v in own.items()} for d, own in parts.items()}
    return found
