"""Put several runs side by side, in one page: what each made of the same tasks, and whether the difference is real.

Each run is known by the system that its own report is about (see :func:`.systems.main_system`), or by one that is named. A task of two runs is the
same where its dataset, its id, its candidates and their relevance are; over such tasks the test is paired. Where two runs
share none, the page says "unpaired" and gives no p.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from markupsafe import Markup

from iranker_verl.errors import UserError
from iranker_verl.evaluation.report import figures_failure, tables
from iranker_verl.evaluation.report import files as report_files
from iranker_verl.evaluation.report.page import css, environment
from iranker_verl.evaluation.report.tables import GROUP, Row, Table
from iranker_verl.evaluation.statistics import MACRO, REST, comparisons
from iranker_verl.evaluation.systems import main_system
from iranker_verl.files import make_folder, write_text
from iranker_verl.ranking import RankingTask


@dataclass(frozen=True)
class Run:
    """A run folder: ``values[dataset][key]`` is its system's RR, a key being the same where the task is."""

    name: str
    folder: Path
    results: Mapping[str, Any]
    system: str
    values: Mapping[str, Mapping[str, float]]


def write_comparison(folders: Sequence[Path], out: Path, system: str | None = None) -> Path:
    """Draw the page of at least two runs into the file ``out`` and return its path; ``system`` is the one that is compared.

    Raise UserError for fewer runs, an unreadable one, or one without that system.
    """
    if len({f.resolve() for f in folders}) < 2:
        raise UserError("--compare needs at least two run folders")
    if out.is_dir():
        raise UserError(f"--out {out}: it is a folder; give the page's file, e.g. {out / 'compare.html'}")
    text = render([_read(f, n, system) for f, n in zip(folders, names(folders), strict=True)])
    make_folder(out.parent)
    write_text(out, text)
    return out


def names(folders: Sequence[Path]) -> list[str]:
    """Return a name a folder, all different: its own, with as many of its parents' as that takes."""
    parts = [f.resolve().parts for f in folders]
    for length in range(1, max(map(len, parts)) + 1):
        found = ["/".join(p[-length:]) for p in parts]
        if len(set(found)) == len(found):
            return found
    raise UserError(f"{folders[0]}: the same run folder twice")


def _read(folder: Path, name: str, wanted: str | None = None) -> Run:
    results = report_files.read_results(folder)
    system = wanted or main_system(results["roles"])
    if system is None or system not in results["macro"]:
        known = f"there are {', '.join(results['macro']) or 'none'}"
        why = f"it has no system {system!r}" if system else "no system asked a language model; name one with --system"
        raise UserError(f"{folder / 'results.json'}: {why}; {known}")
    values: dict[str, dict[str, list[float]]] = {}
    for record in report_files.records(folder, system):
        values.setdefault(record.task.dataset, {}).setdefault(_key(record.task), []).append(record.values["rr"])
    means = {d: {key: fmean(v) for key, v in found.items()} for d, found in values.items()}
    return Run(name, folder, results, system, means)


def _key(task: RankingTask) -> str:
    """Return a task's identity, whatever the order of its candidates; its query's is before :data:`.statistics.REST`."""
    pool = sorted((c.id, c.text, r) for c, r in zip(task.candidates, task.relevance, strict=True))
    return task.id + REST + hashlib.sha256(json.dumps([task.context, pool]).encode()).hexdigest()


def tests(runs: Sequence[Run], seed: int = 0) -> list[dict[str, Any]]:
    """Return :func:`.statistics.comparisons` of every later run against the first, over the tasks that both share."""
    return comparisons({run.name: run.values for run in runs}, runs[0].name, seed=seed)


def warnings(runs: Sequence[Run]) -> list[str]:
    """Return what a reader has to know before comparing."""
    found = []
    for key, what in (("data_hash", "data"), ("template_hash", "prompt template")):
        hashes = {run.name: run.results.get(key) for run in runs}
        if len(set(hashes.values())) > 1 or None in hashes.values():
            listed = ", ".join(f"{name}: {value or 'unknown'}" for name, value in hashes.items())
            found.append(f"These runs are not known to have the same {what} ({listed}).")
    first = set(runs[0].results["datasets"])
    for run in runs[1:]:
        if set(run.results["datasets"]) != first:
            found.append(f"{run.name} and {runs[0].name} have other datasets; their macro means are of other things.")
    return found


def render(runs: Sequence[Run]) -> str:
    """Return the page as text."""
    datasets = tables.datasets_in_order({d for run in runs for d in run.results["datasets"]})
    found = tests(runs)
    drawn = {d: [run.results["datasets"].get(d, {}).get(run.system) for run in runs] for d in datasets}
    shown = [_main(runs, datasets), _tests(runs, found), _systems(runs), _costs(runs)]
    svg = figures_failure.runs([run.name for run in runs], drawn)
    return (
        environment()
        .get_template("compare.html.j2")
        .render(
            css=css(),
            runs=runs,
            labels={run.name: tables.label(run.system, run.results["roles"]) for run in runs},
            warnings=warnings(runs),
            figure=Markup(svg) if svg else None,
            tables=[t for t in shown if t],
        )
    )


def _main(runs: Sequence[Run], datasets: Sequence[str]) -> Table:
    def cells(found: Sequence[Mapping[str, Any] | None]) -> list[str]:
        return [
            "–" if n is None else f"{100 * n['rr']:.2f} ({100 * n['ci95'][0]:.1f}–{100 * n['ci95'][1]:.1f})"
            for n in found
        ]

    rows = [Row((d, *cells([r.results["datasets"].get(d, {}).get(r.system) for r in runs]))) for d in datasets]
    rows.append(Row(("macro", *cells([r.results["macro"][r.system] for r in runs])), tables.OURS))
    return Table(
        "runs", "MRR × 100", ("dataset", *(r.name for r in runs)), tuple(rows), "With 95 % bootstrap intervals."
    )


def _tests(runs: Sequence[Run], found: Sequence[Mapping[str, Any]]) -> Table:
    rows = []
    for run in runs[1:]:
        rows.append(Row((run.name,), GROUP))
        tested = {c["dataset"]: c for c in found if c["system"] == run.name}
        for dataset in (
            MACRO,
            *tables.datasets_in_order(set(run.results["datasets"]) | set(runs[0].results["datasets"])),
        ):
            if one := tested.get(dataset):
                low, high = (f"{100 * v:+.1f}" for v in one["ci95"])
                p = (
                    tables.p_text(one["p"]),
                    tables.p_text(one["p_holm"]) + tables.stars(one["p_holm"]),
                    f"{one['n']:,}",
                )
                rows.append(Row((dataset, f"{100 * one['difference']:+.2f}", f"{low} to {high}", *p)))
            else:
                rows.append(Row((dataset, "unpaired", "–", "–", "–", "0")))
    note = (
        f"MRR × 100 minus that of {runs[0].name}, over the tasks that both runs share; macro: over the datasets that share any. "
        f"Paired randomisation test, two-sided; Holm: corrected for all {len(found)} comparisons. * p < 0.05, ** p < 0.01, "
        "*** p < 0.001 after correction. Unpaired: no task is the same in both, so there is no test."
    )
    columns = ("dataset", "difference", "95 % interval", "p", "p (Holm)", "tasks")
    return Table("tests", f"Against {runs[0].name}", columns, tuple(rows), note)


def _systems(runs: Sequence[Run]) -> Table:
    systems = list(dict.fromkeys(s for run in runs for s in tables.in_order(run.results)))
    rows = []
    for system in systems:
        found = [run.results["macro"].get(system) for run in runs]
        everywhere = {s: role for run in runs for s, role in run.results["roles"].items()}
        rows.append(
            Row((tables.label(system, everywhere), *("–" if n is None else f"{100 * n['rr']:.2f}" for n in found)))
        )
    return Table(
        "systems",
        "All systems, macro MRR × 100",
        ("system", *(r.name for r in runs)),
        tuple(rows),
        "Each run's own tasks.",
    )


def _costs(runs: Sequence[Run]) -> Table:
    measured = (
        ("malformed_rate", "malformed", tables.percent),
        ("calls_per_task", "calls a task", tables.whole),
        ("prompt_tokens_per_task", "prompt tokens a task", tables.whole),
        ("new_tokens_per_task", "new tokens a task", tables.whole),
        ("dollars_per_task", "$ a task", lambda v: "–" if v is None else f"{v:.2g}"),
    )
    rows = [
        Row((name, *(text(run.results["macro"][run.system].get(key)) for run in runs)))
        for key, name, text in measured
        if any(run.results["macro"][run.system].get(key) is not None for run in runs)
    ]
    times = [tables.duration((run.results.get("time_s") or {}).get("total")) for run in runs]
    made = [("time, all in all", times), ("seed", [str(run.results.get("seed", "–")) for run in runs])]
    made += [
        (k.replace("_", " "), [str(run.results.get(k) or "–") for run in runs]) for k in ("data_hash", "template_hash")
    ]
    rows += [Row((name, *cells)) for name, cells in made]
    return Table("costs", "Cost and make", ("", *(r.name for r in runs)), tuple(rows))
