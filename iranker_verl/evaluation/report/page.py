"""The report: ``report.html`` of a run folder, drawn from the files in it and from nothing else.

It reads ``results.json`` (needed), and ``metrics.jsonl``, ``episodes-<system>.jsonl`` and ``out_of_domain/out_of_domain.json`` (what
``iranker evaluate-out-of-domain --out RUN/out_of_domain`` leaves; ``generic/generic.json`` of a former version) as far as
they are there. Whatever is absent is not shown.

``results.json``
    ``datasets.<dataset>.<system>``, ``macro.<system>``
        the numbers of a system: see docs/evaluation.md.
    ``comparisons``, ``diagnosis``
        of :func:`.statistics.comparisons` and :func:`.diagnosis.diagnose`; where they are absent, both are worked out
        from the episode files.
    ``roles`` {system: ``before``, ``after``, ``zero-shot``, ``model`` or ``baseline``}
        what each system is; of results without them, its name says it.
    ``paired_p``
        two-sided p of "RL did not change the macro RR" (sign flips within tasks), or null.
    ``unavailable`` {system: reason}
        what could not be run.
    ``zero_shot`` {dataset: {``rr``, …}}, ``generic`` {task: {``base``, ``trained``, ``stderr``}}
        the model trained without that dataset's scenario; tasks other than ranking, with the standard error of the
        difference (else the ``tasks`` of ``out_of_domain/out_of_domain.json``).
    ``seed``, ``versions`` {package: version}, ``data_hash``, ``template_hash``, ``config``
        what made the run.
    ``time_s`` {``prepare``, ``base``, ``rl``, ``evaluate``, ``total``}, ``rl_time_share`` {``generate``, ``forward``,
    ``backward``, ``other``}, ``peak_rss_bytes``
        what it took. Without ``rl_time_share`` it is added up from ``metrics.jsonl``.
    ``about``
        paragraphs that say how the run was made, first of all the base.

``metrics.jsonl``
    one object an RL step: ``step``, ``reward/corrected``, ``reward/malformed``, ``episode/candidates``, ``time/step``,
    ``time/generate``, ``time/forward``, ``time/backward``, ``time/other``, and at some steps ``val/mrr``.

``episodes-<system>.jsonl``
    one object a task: see :meth:`iranker_verl.evaluation.records.Record.to_json`.

The page is one file: its style and its figures are in it, and it loads nothing from elsewhere.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment
from markupsafe import Markup

from iranker_verl import page
from iranker_verl.errors import UserError
from iranker_verl.evaluation import published
from iranker_verl.evaluation.records import Record, StepRecord
from iranker_verl.evaluation.report import figures, formats, tables, tables_text
from iranker_verl.evaluation.report import files as report_files
from iranker_verl.evaluation.report.diagnosis import POSITIONS, diagnose
from iranker_verl.evaluation.results import values_by_task
from iranker_verl.evaluation.statistics import MACRO, comparisons
from iranker_verl.evaluation.systems import Role, main_system, with_role
from iranker_verl.files import mark, read_json, write_text
from iranker_verl.inference.episode import AnsweredStep


def write_report(run_dir: Path, against: str | None = None) -> Path:
    """Draw ``run_dir/report.html`` and return its path; it appears whole or not at all.

    ``against`` names the system that all others are tested against (default: :func:`.systems.main_system`). Raise UserError
    where ``results.json`` is missing or not what it should be, or has no such system.
    """
    path = run_dir / "report.html"
    write_text(path, render(run_dir, against))
    return path


def write_tables(run_dir: Path, against: str | None = None) -> list[Path]:
    """Write ``tables.tex``, ``tables.md`` and ``tables.csv`` beside the report, and return their paths."""
    results = complete(run_dir, against)
    shown = [table for table in report_tables(results).values() if table]
    mark(run_dir)
    return tables_text.write_tables(run_dir, shown, results, published.load())


def complete(run_dir: Path, against: str | None = None) -> dict[str, Any]:
    """Return ``results.json`` with what other files of the folder hold: comparisons, diagnosis, tasks other than ranking."""
    results = report_files.read_results(run_dir)
    if "generic" not in results:
        for name in ("out_of_domain", "generic"):  # the second is the former name
            if (file := run_dir / name / f"{name}.json").is_file():
                found = read_json(file)
                results["generic"], results["generic_unavailable"] = found["tasks"], found.get("unavailable") or {}
                break
    if "diagnosis" in results and "comparisons" in results and against is None:
        return results
    records = report_files.all_records(run_dir, results["macro"])
    if "diagnosis" not in results:
        results["diagnosis"] = diagnose(records)
    if "comparisons" not in results or against is not None:
        if against is not None and against not in records:
            raise UserError(f"{run_dir}: it has no episodes of {against!r}; there are {', '.join(records) or 'none'}")
        values = {system: values_by_task(found) for system, found in records.items()}
        chosen = against or main_system(results["roles"])
        results["comparisons"] = comparisons(values, chosen, seed=results.get("seed") or 0) if chosen in values else []
    return results


def report_tables(results: Mapping[str, Any]) -> dict[str, tables.Table | None]:
    """Return the report's tables by name, in its order."""
    theirs = published.load()
    found, systems = results.get("comparisons") or [], {s: results["roles"][s] for s in tables.in_order(results)}
    return {
        "ranking": tables.main_table(results, theirs),
        "comparisons": tables.comparison_table(found, systems, MACRO),
        "comparisons_datasets": tables.comparison_table(found, systems, None),
        "zero_shot": tables.zero_shot_table(results, theirs),
        "generic": tables.generic_table(results.get("generic") or {}, theirs),
        "strict": tables.strict_table(results),
        "orders": tables.orders_table(results),
        "regret": tables.regret_table(results),
        "cost": tables.cost_table(results),
        "numbers": tables.numbers_table(results),
    }


def render(run_dir: Path, against: str | None = None) -> str:
    """Return the page as text."""
    results = complete(run_dir, against)
    roles = results["roles"]
    main, before = main_system(roles), with_role(roles, Role.BEFORE)
    records = report_files.all_records(run_dir, [system for system in (before, main) if system])
    steps = list(report_files.lines(run_dir / "metrics.jsonl"))
    macro = results["macro"]
    datasets = {d: results["datasets"][d] for d in tables.datasets_in_order(results["datasets"])}
    labels = {s: tables.label(s, roles) for s in macro}
    shares = results.get("rl_time_share") or time_shares(steps)
    return (
        pages()
        .get_template("report.html.j2")
        .render(
            name=run_dir.resolve().name,
            css=page.css(),
            figures={
                name: svg and Markup(svg) for name, svg in _figures(results, records, datasets, steps, shares).items()
            },
            tables=report_tables(results),
            published=published.load(),
            macro=macro,
            datasets=datasets,
            main=main,
            labels=labels,
            headline=_headline(results, datasets, main, before),
            statuses={
                labels[s]: (results["diagnosis"].get(s) or {}).get("statuses") for s in (before, main) if s in macro
            },
            example=_example(records.get(str(main), ()), records.get(str(before), ())),
            embedded=_embedded(results),
            about=results.get("about") or [],
            results=results
            | {"unavailable": (results.get("unavailable") or {}) | (results.get("generic_unavailable") or {})},
        )
    )


def pages() -> Environment:
    """Return where the report's pages come from."""
    own = {name: getattr(formats, name) for name in ("number", "percent", "duration", "whole")}
    return page.environment(__package__, "html", p=formats.p_text, tojson_text=_json_text, **own)


def _figures(
    results: Mapping[str, Any],
    records: Mapping[str, Sequence[Record]],
    datasets: Mapping[str, Any],
    steps: Sequence[Mapping[str, Any]],
    shares: Mapping[str, float],
) -> dict[str, str | None]:
    """Return the figures by name; matplotlib escapes their texts."""
    roles, main = results["roles"], main_system(results["roles"])
    pair = {"before": with_role(roles, Role.BEFORE), "after": main}  # by colour
    named = [(colour, s) for colour, s in pair.items() if s and s in results["diagnosis"]]
    curves = [(tables.label(s, roles), colour, results["diagnosis"][s]) for colour, s in named]
    ranks = [
        (tables.label(s, roles), colour, [r.rank_of_best for r in records[s]])
        for colour, s in pair.items()
        if s and s in records
    ]
    order = tables.in_order(results)
    against = next((c["against"] for c in results["comparisons"]), None)
    others = [
        (tables.label(c["system"], roles), c["difference"], *c["ci95"])
        for c in sorted(results["comparisons"], key=lambda c: order.index(c["system"]))
        if c["dataset"] == MACRO
    ]
    return {
        # the embedded world's tasks bear the names of the paper's, and nothing else of them
        "datasets": figures.by_dataset(
            datasets, roles, {} if _embedded(results) else published.load().rows(bool(results.get("zero_shot")))
        ),
        "learning": figures.learning(
            reward=_curve(steps, "reward/corrected"),
            candidates=_curve(steps, "episode/candidates"),
            validation=_curve(steps, "val/mrr"),
            malformed=_curve(steps, "reward/malformed"),
            pools=[_curve(steps, f"episode/candidates/{name}") for name in datasets],
        ),
        "differences": figures.differences(others, tables.label(against, roles)) if against else None,
        "survival": figures.survival(curves),
        "ranks": figures.ranks(ranks),
        "size": figures.bins(curves, "by_pool_size", "candidates", "candidates in the pool"),
        "position": figures.bins(
            curves, "by_position", "position", "position at which the best candidate is shown", POSITIONS
        ),
        "popularity": figures.bins(
            curves, "by_popularity", "popularity", "popularity of the best candidate within its pool"
        ),
        "times": figures.times(results.get("time_s") or {}, shares),
    }


def _embedded(results: Mapping[str, Any]) -> bool:
    """Return whether the tasks are the embedded world's: a recipe without raw files of a user's."""
    data = (results.get("config") or {}).get("data")
    return isinstance(data, Mapping) and "raw" in data and data["raw"] is None


def _curve(steps: Sequence[Mapping[str, Any]], key: str) -> list[tuple[float, float]]:
    points = {float(s["step"]): float(s[key]) for s in steps if s.get("step") is not None and _finite(s.get(key))}
    return sorted(points.items())  # a step taken again after a resume counts once, as last taken


def time_shares(steps: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Return ``rl_time_share``: what part of all RL steps' time each phase took; empty where no step was timed."""
    sums = {p: sum(float(s[f"time/{p}"]) for s in steps if _finite(s.get(f"time/{p}"))) for p in figures.PHASES}
    total = sum(sums.values())
    return {p: value / total for p, value in sums.items()} if total > 0 else {}


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _headline(
    results: Mapping[str, Any], datasets: Mapping[str, Any], main: str | None, before: str | None
) -> dict[str, Any]:
    """Return the page's first lines about ``main``, the same model ``before`` training, and the baselines."""
    macro = results["macro"]
    old, new = macro.get(before), macro.get(main)
    pairs = [(d[before]["rr"], d[main]["rr"]) for d in datasets.values() if before in d and main in d]
    every = [c for c in results["comparisons"] if c["against"] == main]
    tests = [c for c in every if c["dataset"] == MACRO]
    by_dataset = [c for c in every if c["system"] == before and c["dataset"] != MACRO]
    others = [c for c in tests if c["system"] != before]
    return {
        "before": old,
        "after": new,
        "gain": new["rr"] - old["rr"] if old and new else None,
        "better": sum(new > old for old, new in pairs),
        "sure": sum(c["difference"] < 0 and c["p_holm"] < 0.05 for c in by_dataset) if by_dataset else None,
        "of": len(pairs),
        "p": next((c["p_holm"] for c in tests if c["system"] == before), None),
        "family": len(results["comparisons"]),
        "p_alone": results.get("paired_p"),
        "baselines": [c["system"] for c in others],
        "beaten": [c["system"] for c in others if c["difference"] < 0 and c["p_holm"] < 0.05],
    }


def _example(records: Sequence[Record], before: Sequence[Record]) -> dict[str, Any] | None:
    """Return an episode to read: a well-formed one that RL turned from a miss into a hit, of a length that reads well."""
    old = {(r.task.dataset, r.task.id): r.rank_of_best for r in before}

    def key(record: Record) -> tuple[Any, ...]:
        task = record.task
        gain = old.get((task.dataset, task.id), 1) - record.rank_of_best
        return (-(record.episode.malformed if record.episode else 0), 5 <= len(task.candidates) <= 10, gain, task.id)

    eliminations = [r for r in records if r.episode and any("excluded" in _details(s) for s in r.episode.steps)]
    chosen = max(eliminations, key=key, default=None)
    if chosen is None or chosen.episode is None:
        return None
    task, best = chosen.task, max(chosen.task.relevance)
    candidates = {
        c.id: {"text": c.text, "positive": r == best} for c, r in zip(task.candidates, task.relevance, strict=True)
    }
    return {
        "dataset": task.dataset,
        "task_id": task.id,
        "context": task.context,
        "steps": [
            {**candidates[_details(s)["excluded"]], "response": s.response.strip(), "status": s.status}
            for s in chosen.episode.steps
        ],
        "winner": candidates[chosen.ranking[0]],
        "rank": chosen.rank_of_best,
        "rank_before": old.get((task.dataset, task.id)),
        "size": len(candidates),
    }


def _details(step: AnsweredStep) -> Mapping[str, Any]:
    return step.details if isinstance(step, StepRecord) else {}


def _json_text(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False, sort_keys=True, default=str)
