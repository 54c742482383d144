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

from iranker_verl import page
from iranker_verl.errors import UserError
from iranker_verl.evaluation.report import figures, tables
from iranker_verl.evaluation.report import files as report_files
from iranker_verl.evaluation.report.formats import duration, hundred, percent
from iranker_verl.evaluation.report.page import pages
from iranker_verl.evaluation.report.table import GROUP, OURS, Row, Table, row
from iranker_verl.evaluation.report.tables import COMPARISON_COLUMNS, comparison_cells, tests_note
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
    """Return warnings for a reader who compares the runs."""
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
    svg = figures.runs([run.name for run in runs], drawn)
    return (
        pages()
        .get_template("compare.html.j2")
        .render(
            css=page.css(),
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
            f"{hundred(n['rr'])} ({'–'.join(f'{100 * end:.1f}' for end in n['ci95'])})" if n else "–" for n in found
        ]

    rows = [row(d, *cells([r.results["datasets"].get(d, {}).get(r.system) for r in runs])) for d in datasets]
    rows.append(row("macro", *cells([r.results["macro"][r.system] for r in runs]), kind=OURS))
    return _by_run("runs", "MRR × 100", "dataset", runs, rows, "With 95 % bootstrap intervals.")


def _tests(runs: Sequence[Run], found: Sequence[Mapping[str, Any]]) -> Table:
    rows = []
    for run in runs[1:]:
        rows.append(row(run.name, kind=GROUP))
        tested = {c["dataset"]: c for c in found if c["system"] == run.name}
        both = tables.datasets_in_order({*run.results["datasets"], *runs[0].results["datasets"]})
        for dataset in (MACRO, *both):
            one = tested.get(dataset)
            rows.append(row(dataset, *(comparison_cells(one) if one else ("unpaired", "–", "–", "–", "0"))))
    note = (
        f"MRR × 100 minus that of {runs[0].name}, over the tasks that both runs share; macro: over the datasets that share any. "
        f"{tests_note(len(found))} Unpaired: no task is the same in both, so there is no test."
    )
    return Table("tests", f"Against {runs[0].name}", ("dataset", *COMPARISON_COLUMNS), tuple(rows), note)


def _systems(runs: Sequence[Run]) -> Table:
    roles = {s: role for run in runs for s, role in run.results["roles"].items()}
    rows = []
    for system in dict.fromkeys(s for run in runs for s in tables.in_order(run.results)):
        found = (run.results["macro"].get(system) for run in runs)
        rows.append(row(tables.label(system, roles), *(hundred(n and n["rr"]) for n in found)))
    return _by_run("systems", "All systems, macro MRR × 100", "system", runs, rows, "Of each run's tasks.")


def _costs(runs: Sequence[Run]) -> Table:
    macro = [run.results["macro"][run.system] for run in runs]
    rows = [row("malformed", *(percent(n.get("malformed_rate")) for n in macro))]
    for key, name in (
        ("calls_per_task", "calls a task"),
        ("prompt_tokens_per_task", "prompt tokens a task"),
        ("new_tokens_per_task", "new tokens a task"),
        ("dollars_per_task", "$ a task"),
    ):
        rows.append(row(name, *(tables.cost(key, n.get(key)) for n in macro)))
    rows = [one for one in rows if set(one.cells[1:]) != {"–"}]  # what no run has is left out
    rows.append(row("time, all in all", *(duration((run.results.get("time_s") or {}).get("total")) for run in runs)))
    for key in ("seed", "data_hash", "template_hash"):
        rows.append(row(key.replace("_", " "), *(str(run.results.get(key, "–")) for run in runs)))
    return _by_run("costs", "Cost and make", "", runs, rows)


def _by_run(name: str, title: str, first: str, runs: Sequence[Run], rows: Sequence[Row], note: str = "") -> Table:
    """Return a table with a column a run."""
    return Table(name, title, (first, *(run.name for run in runs)), tuple(rows), note)
