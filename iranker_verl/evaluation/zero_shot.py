"""One table from several zero-shot runs: ``python -m iranker_verl.evaluation.zero_shot OUT RUN … [--all RUN]``.

Each run left out a scenario and was tested on it. ``OUT/results.json`` has the datasets of all of them as one run's would,
with the trained models together as the system ``zero-shot`` (also under ``zero_shot``, {dataset: numbers}), the models
before training as ``before``, and, with ``--all``, the model that was trained on everything as ``after``, on the same tasks.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from iranker_verl.errors import UserError
from iranker_verl.evaluation.evaluate import write_results
from iranker_verl.evaluation.journal import of_system
from iranker_verl.evaluation.records import SystemResult
from iranker_verl.evaluation.report.files import all_records, read_results, records
from iranker_verl.evaluation.report.tables import datasets_in_order, main_table
from iranker_verl.evaluation.report.tables_text import markdown
from iranker_verl.evaluation.results import by_dataset
from iranker_verl.evaluation.systems import Role, with_role
from iranker_verl.files import claimed, write_json, write_jsonl, write_text


def merge(out: Path, runs: Sequence[Path], all_run: Path | None = None) -> dict[str, Any]:
    """Write ``out/results.json`` and the runs' episodes beside it, and return the results.

    Raise UserError where a run is not a zero-shot run, where two were tested on one dataset or differ in seed or template, and
    where ``all_run`` was not tested on the same tasks.
    """
    found = {run: read_results(run) for run in runs}
    _check(found)
    merged: dict[str, SystemResult] = {}
    for run, results in found.items():
        for system, own in all_records(run, results["macro"]).items():
            summary = results["macro"][system] | {"seconds": 0.0, "role": results["roles"][system]}
            if summary["role"] == Role.AFTER:  # a run's trained model is the zero-shot one
                system, summary["role"] = str(Role.ZERO_SHOT), Role.ZERO_SHOT
            merged[system] = _joined(merged.get(system), SystemResult.restored(system, own, summary))
    trained = merged[Role.ZERO_SHOT]
    if all_run is not None:
        merged[Role.AFTER] = _trained_on_all(all_run, trained)
    order = datasets_in_order(by_dataset(trained.records))
    first = next(iter(found.values()))
    made_of = {
        "about": _about(found),
        "runs": {run.name: _made_of(results) for run, results in found.items()},
        "template_hash": first["template_hash"],
        "data_hash": "+".join(r["unseen"]["data_hash"] for r in found.values()),
        "versions": first["versions"],
        "config": first["config"],
        "time_s": {"total": sum(r["time_s"]["total"] for r in found.values())},
        "peak_rss_bytes": max(r["peak_rss_bytes"] for r in found.values()),
    }
    with claimed(out):
        systems = []
        for system in dict.fromkeys((Role.ZERO_SHOT, Role.BEFORE, *merged)):
            if system in merged:
                own = sorted(merged[system].records, key=lambda record: order.index(record.task.dataset))
                write_jsonl(of_system(out, system), [record.to_json() for record in own])
                systems.append(replace(merged[system], records=tuple(own)))
        content = write_results(out, systems, seed=first["seed"], made_of=made_of)
        content["zero_shot"] = {dataset: numbers[Role.ZERO_SHOT] for dataset, numbers in content["datasets"].items()}
        write_json(out / "results.json", content)
        return content


def _joined(one: SystemResult | None, other: SystemResult) -> SystemResult:
    """Return a system of two runs as one; its seconds are added up."""
    if one is None:
        return other
    seconds: dict[str, Any] = {}
    for name in ("fit_seconds", "rank_seconds"):
        known = [value for value in (getattr(one, name), getattr(other, name)) if value is not None]
        seconds[name] = sum(known) if known else None
    return replace(one, records=one.records + other.records, **seconds)


def _check(found: Mapping[Path, Mapping[str, Any]]) -> None:
    tested: dict[str, Path] = {}
    for run, results in found.items():
        if not results.get("zero_shot") or "unseen" not in results:
            raise UserError(f"{run}: not a zero-shot run; train one with iranker.data.test_tasks (recipes/zero_shot)")
        for dataset in results["datasets"]:
            if dataset in tested:
                raise UserError(
                    f"{dataset} was tested in {tested[dataset]} and in {run}; give each scenario's run once"
                )
            tested[dataset] = run
        first, other = next(iter(found.items()))
        for key in ("seed", "template_hash"):
            if results[key] != other[key]:
                raise UserError(
                    f"{run} has {key} {results[key]}, but {first} has {other[key]}; give runs of one setting"
                )


def _trained_on_all(run: Path, zero_shot: SystemResult) -> SystemResult:
    """Return the model of ``run`` after training, on the datasets of the zero-shot model."""
    system = with_role(read_results(run)["roles"], Role.AFTER)
    theirs, tested = by_dataset(records(run, system or "")), by_dataset(zero_shot.records)
    for dataset, own in tested.items():
        if {r.task.id for r in theirs.get(dataset, ())} != {r.task.id for r in own}:
            raise UserError(f"{run}: it was not tested on the same tasks of {dataset}; train it on the same raw files")
    kept = tuple(record for dataset in tested for record in theirs[dataset])
    return SystemResult(str(Role.AFTER), kept, 0.0, role=Role.AFTER)


def _made_of(results: Mapping[str, Any]) -> dict[str, Any]:
    return {key: results.get(key) for key in ("run_hash", "data_hash", "unseen", "time_s", "rl_steps")}


def _about(found: Mapping[Path, Mapping[str, Any]]) -> list[str]:
    lines = [
        f"{run.name}: trained on {', '.join(r['unseen']['trained'])}; tested on {', '.join(r['unseen']['tested'])}."
        for run, r in found.items()
    ]
    bases = {r["base"]["hash"] if r.get("base") else None for r in found.values()}
    if len(bases) > 1:
        lines.append(
            "Each run made a tiny base of its own from its own training tasks, so `before` is another model in each scenario; "
            "none of them has seen a task, a text or a word list of the scenario that it is tested on."
        )
    return lines


def main() -> None:
    """Merge the runs that the command line names."""
    parser = argparse.ArgumentParser(description="One table from several zero-shot runs.")
    parser.add_argument("out", type=Path)
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--all", type=Path, help="a run that was trained on everything, for comparison")
    arguments = parser.parse_args()
    try:
        results = merge(arguments.out, arguments.runs, arguments.all)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    shown = main_table(results)
    text = markdown([shown] if shown else [])
    write_text(arguments.out / "zero_shot.md", text)
    print(text, end="")


if __name__ == "__main__":
    main()
