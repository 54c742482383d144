"""Tables as files: ``tables.tex`` (booktabs), ``tables.md``, and ``tables.csv``, one number a line."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader

from iranker_verl.evaluation.published import Published
from iranker_verl.evaluation.report.table import PUBLISHED, Table
from iranker_verl.evaluation.statistics import MACRO
from iranker_verl.files import write_text

ALL = "all"  # "dataset" of what is meaned over all tasks, whatever their dataset
CSV_COLUMNS = ("source", "system", "dataset", "measure", "value")


def write_tables(folder: Path, tables: Iterable[Table], results: Mapping[str, Any], published: Published) -> list[Path]:
    """Write the three files into ``folder`` and return their paths."""
    shown = list(tables)
    contents = {
        "tables.tex": latex(shown),
        "tables.md": markdown(shown),
        "tables.csv": long_csv(results, published),
    }
    for name, text in contents.items():
        write_text(folder / name, text)
    return [folder / name for name in contents]


_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "−": "$-$",
    "×": r"$\times$",
    "–": "--",
} | {c: f"\\{c}" for c in "{}$&#%_"}


def latex_escape(text: str) -> str:
    """Return a text as LaTeX shows it; what would end a line or a page is a space."""
    return "".join(_LATEX.get(c, c) for c in _one_line(text))


def markdown_escape(text: str) -> str:
    """Return a text as a cell of a Markdown table shows it."""
    return re.sub(r"([\\`*_\[\]<>|~#&!$])", r"\\\1", _one_line(text))


def _one_line(text: str) -> str:
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def latex(tables: Iterable[Table]) -> str:
    """Return one ``table`` each, with ``booktabs`` rules."""
    return _ENVIRONMENT.get_template("tables.tex.j2").render(tables=tables)


def markdown(tables: Iterable[Table]) -> str:
    """Return a heading, a pipe table and its note each."""
    return _ENVIRONMENT.get_template("tables.md.j2").render(tables=tables)


# braces are LaTeX's own
_ENVIRONMENT = Environment(
    loader=PackageLoader(__package__, "html"),
    block_start_string="<%",
    block_end_string="%>",
    variable_start_string="<<",
    variable_end_string=">>",
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
)
_ENVIRONMENT.filters.update(latex=latex_escape, md=markdown_escape)


def long_csv(results: Mapping[str, Any], published: Published) -> str:
    """Return every number that tables and figures show and every published one, unrounded, a line each (:data:`CSV_COLUMNS`).

    ``source`` is ``measured`` or ``published``; shares and ranks are between 0 and 1 in both. A system that could not run
    has one line, whose source is ``not run:`` and why, and whose value is empty. Numbers within others have dots in their
    measure (``orders.sd``, ``survival.7.alive.3``: of pools of 7, after 3 exclusions); a diagnosis is of the dataset
    :data:`ALL`, as its means are over tasks and not over datasets.
    """
    out = io.StringIO()
    writer = csv.writer(out, quoting=csv.QUOTE_NONNUMERIC, lineterminator="\n")  # a lone "\r" is quoted only so
    writer.writerow(CSV_COLUMNS)
    writer.writerows([_no_formula(cell) for cell in row] for row in _measured(results))
    for system, values in (published.systems | published.zero_shot).items():
        writer.writerows((PUBLISHED, system, dataset, "rr", round(value / 100, 6)) for dataset, value in values.items())
    for task, (base, trained) in published.generic.items():
        writer.writerow((PUBLISHED, "base", task, "score", base))
        writer.writerow((PUBLISHED, "trained", task, "score", trained))
    return out.getvalue()


def _no_formula(cell: Any) -> Any:
    """Return a cell; of a text that a spreadsheet would run as a formula, with an apostrophe before it."""
    return f"'{cell}" if isinstance(cell, str) and cell.lstrip()[:1] in ("=", "+", "-", "@") else cell


def _measured(results: Mapping[str, Any]) -> Iterator[tuple[Any, ...]]:
    def numbers(system: str, dataset: str, found: Mapping[str, Any]) -> Iterator[tuple[Any, ...]]:
        for measure, value in _flat(found):
            yield ("measured", system, dataset, _CI95.get(measure, measure), value)

    for system, found in results["macro"].items():
        yield from numbers(system, MACRO, found)
    for dataset, systems in results["datasets"].items():
        for system, found in systems.items():
            yield from numbers(system, dataset, found)
    for dataset, found in (results.get("zero_shot") or {}).items():
        # a zero-shot run's own are among its datasets, by another name
        if found not in results["datasets"].get(dataset, {}).values():
            yield from numbers("zero-shot", dataset, found)
    for system, reason in (results.get("unavailable") or {}).items():
        yield (f"not run: {reason}", system, MACRO, "rr", "")
    for task, found in (results.get("generic") or {}).items():
        for system, key, error in _GENERIC:
            for measure, field in (("difference" if key == "difference" else "score", key), ("stderr", error)):
                if found.get(field) is not None:
                    yield ("measured", system, task, measure, found[field])
    for one in results.get("comparisons") or []:
        for measure, value in _flat({key: one.get(key) for key in ("difference", "ci95", "p", "p_holm", "n")}):
            name = _COMPARED.get(measure, measure)
            yield ("measured", one["system"], one["dataset"], f"{name} against {one['against']}", value)
    for system, found in (results.get("diagnosis") or {}).items():
        yield from numbers(system, ALL, {key: value for key, value in found.items() if key != "regret_by_dataset"})
        for dataset, regret in (found.get("regret_by_dataset") or {}).items():
            yield from numbers(system, dataset, {"regret": regret})


_CI95 = {"ci95.0": "rr_low", "ci95.1": "rr_high"}
_COMPARED = {"ci95.0": "difference_low", "ci95.1": "difference_high"}
# of a task other than ranking: the system, the key of its value and that of the value's error
_GENERIC = (
    ("base", "base", "base_stderr"),
    ("trained", "trained", "trained_stderr"),
    ("trained minus base", "difference", "stderr"),
)


def _flat(content: Any, name: str = "") -> Iterator[tuple[str, int | float]]:
    """Yield the numbers in nested content, each with its way in, joined by dots. A bin (an object in a list) goes by its first value."""
    if isinstance(content, int | float):
        yield name, content
        return
    inner: Iterable[tuple[Any, Any]] = ()
    if isinstance(content, Mapping):
        inner = content.items()
    elif isinstance(content, list | tuple):
        inner = (_bin(part) if isinstance(part, Mapping) else (i, part) for i, part in enumerate(content))
    for key, value in inner:
        yield from _flat(value, f"{name}.{key}" if name else str(key))


def _bin(content: Mapping[str, Any]) -> tuple[Any, Mapping[str, Any]]:
    (_, value), *rest = content.items()
    return value, dict(rest)
