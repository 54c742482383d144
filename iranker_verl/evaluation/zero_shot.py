"""One table from several zero-shot runs: ``python -m iranker_verl.evaluation.zero_shot OUT RUN … [--all RUN]``.

Each run left out a scenario and was tested on it. ``OUT/results.json`` has the datasets of all of them as one run's would,
with the trained models together as the system ``zero-shot`` (also under ``zero_shot``, {dataset: numbers}), the models
before training as ``before``, and, with ``--all``, the model that was trained on everything as ``after``, on the same
tasks. Its macro is the mean over datasets; intervals and p are over all tasks, each dataset weighing the same.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from iranker_verl.errors import UserError
from iranker_verl.evaluation.report.files import episodes, read_results, systems, values
from iranker_verl.evaluation.statistics import interval, paired_p
from iranker_verl.files import claim, write_json, write_jsonl, write_text
from iranker_verl.ranking import DATASETS

BEFORE, ZERO_SHOT, AFTER = "before", "zero-shot", "after"

ByDataset = dict[str, Mapping[str, float]]  # {dataset: {task: reciprocal rank}}


def merge(out: Path, runs: Sequence[Path], all_run: Path | None = None) -> dict[str, Any]:
    """Write ``out/results.json`` and the runs' episodes beside it, and return the results.

    UserError where a run is not a zero-shot run, where two were tested on one dataset or differ in seed or template, and
    where ``all_run`` was not tested on the same tasks.
    """
    found = {run: read_results(run) for run in runs}
    _check(found)
    datasets: dict[str, dict[str, Any]] = {}
    tasks: dict[str, ByDataset] = {}
    for run, results in found.items():
        for dataset, numbers in results["datasets"].items():
            datasets[dataset] = {_named(system): n for system, n in numbers.items()}
        for system, parts in values(run).items():
            tasks.setdefault(_named(system), {}).update(parts)
    if all_run is not None:
        _add_all(all_run, datasets, tasks)
    order = [d for d in DATASETS if d in datasets] + sorted(datasets.keys() - set(DATASETS))
    first = next(iter(found.values()))
    results = {
        "datasets": {d: datasets[d] for d in order},
        "macro": {s: _macro(s, datasets, tasks[s], first["seed"]) for s in _systems(datasets) if s in tasks},
        "paired_p": paired_p(tasks[BEFORE], tasks[ZERO_SHOT], seed=first["seed"]),
        "zero_shot": {d: datasets[d][ZERO_SHOT] for d in order},
        "about": _about(found),
        "runs": {run.name: _made_of(results) for run, results in found.items()},
        "seed": first["seed"],
        "template_hash": first["template_hash"],
        "data_hash": "+".join(r["unseen"]["data_hash"] for r in found.values()),
        "versions": first["versions"],
        "config": first["config"],
        "time_s": {"total": sum(r["time_s"]["total"] for r in found.values())},
        "peak_rss_bytes": max(r["peak_rss_bytes"] for r in found.values()),
    }
    claim(out)
    for system in sorted({system for run in found for system in systems(run)}):
        lines = [line for run in found for line in episodes(run, system)]
        write_jsonl(out / f"episodes-{_named(system)}.jsonl", lines)
    if all_run is not None:
        lines = [line for line in episodes(all_run, AFTER) if line["dataset"] in datasets]
        write_jsonl(out / f"episodes-{AFTER}.jsonl", lines)
    write_json(out / "results.json", results)
    return results


def table(results: Mapping[str, Any]) -> list[str]:
    """MRR × 100 as Markdown: a system a row, a dataset a column, and the macro."""
    datasets = results["datasets"]
    rows = [["", *datasets, "macro"], ["---"] * (len(datasets) + 2)]
    for system, macro in results["macro"].items():
        cells = [numbers[system]["rr"] if system in numbers else None for numbers in datasets.values()]
        rows.append([system, *("–" if c is None else f"{100 * c:.2f}" for c in (*cells, macro["rr"]))])
    return [f"| {' | '.join(row)} |" for row in rows]


def _named(system: str) -> str:
    return ZERO_SHOT if system == AFTER else system


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


def _add_all(run: Path, datasets: dict[str, dict[str, Any]], tasks: dict[str, ByDataset]) -> None:
    results, theirs = read_results(run), values(run).get(AFTER, {})
    for dataset in datasets:
        if theirs.get(dataset, {}).keys() != tasks[ZERO_SHOT][dataset].keys():
            raise UserError(f"{run}: it was not tested on the same tasks of {dataset}; train it on the same raw files")
        datasets[dataset][AFTER] = results["datasets"][dataset][AFTER]
    tasks[AFTER] = {dataset: theirs[dataset] for dataset in datasets}


def _systems(datasets: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """All systems, the zero-shot model and the one before first, then in the order of the runs."""
    names = dict.fromkeys([ZERO_SHOT, BEFORE, *(name for numbers in datasets.values() for name in numbers)])
    return list(names)


def _macro(system: str, datasets: Mapping[str, Mapping[str, Any]], tasks: ByDataset, seed: int) -> dict[str, Any]:
    """The mean over the datasets of every number that all of them have; tasks are added up."""
    numbers = [own[system] for own in datasets.values() if system in own]
    macro: dict[str, Any] = {}
    for key, example in numbers[0].items():
        known = [n.get(key) for n in numbers]
        if isinstance(example, int | float) and all(isinstance(k, int | float) for k in known):
            macro[key] = fmean(known)
        elif example is None:
            macro[key] = None
    low, high = interval(tasks, seed=seed)
    return macro | {"n": sum(n["n"] for n in numbers), "n_datasets": len(numbers), "ci95": [low, high]}


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
    text = "\n".join(table(results))
    write_text(arguments.out / "zero_shot.md", text + "\n")
    print(text)


if __name__ == "__main__":
    main()
