"""GraphRouter's CSV (https://github.com/ulab-uiuc/GraphRouter), plain or gzipped: one row a query and LLM.

Read are the columns ``task_id, query, llm, effect`` and ``cost, cost_raw``, where they are there: ``cost`` is normalised to
[0, 1] (by GraphRouter itself: min-max within each task), ``cost_raw`` is in the file's own unit. LLMs may be described in
``llm_descriptions.json`` beside the CSV, or in GraphRouter's ``LLM_Descriptions.json`` there or elsewhere in the folder
that is prepared.

Policy beyond those of :mod:`data_prep.scenarios.routing` and :mod:`data_prep.readers.lines`. Rows with an empty query are dropped and
counted. Refused are a missing column (or another delimiter), an empty LLM, what is no number, and a cost below 0.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

from data_prep.readers.lines import columns, first_line, header
from data_prep.scenarios.routing import ROUTERS, Described, Query, Results, nearest, readable, units, value
from data_prep.tasks import Source
from iranker_verl.errors import UserError

COLUMNS = ("task_id", "query", "llm", "effect")
COSTS = ("cost", "cost_raw")
DESCRIPTIONS = ("llm_descriptions.json", "LLM_Descriptions.json")
_KNOWN_BY = {"task_id", "llm"}


def find(files: Sequence[Path], raw: Path) -> Iterator[Source]:
    """CSVs with ``task_id`` and ``llm`` in their first line, whatever the delimiter."""
    for path in files:
        if kind(path) == ".csv" and _KNOWN_BY.issubset(re.findall(r"\w+", peek(path))):
            described = nearest(DESCRIPTIONS, path, files)
            used = (path, described) if described else (path,)
            name = unit_name("graphrouter", path, raw)
            yield Source("GraphRouter", ROUTERS, used, partial(units, name, partial(read, path), described, path))


def kind(path: Path) -> str:
    """The suffix, that of what is packed where it is gzipped."""
    return Path(path.name.removesuffix(".gz")).suffix


def peek(path: Path) -> str:
    """The first line of a text file, as far as it can be read; UTF-16 as if it were ASCII: it is found, and refused."""
    try:
        return first_line(path).replace("\0", "")
    except OSError:
        return ""


def unit_name(format: str, path: Path, raw: Path) -> str:
    """By the path below ``raw``."""
    return f"{format}:{path.name if path == raw else path.relative_to(raw).as_posix()}"


def read(path: Path, described: Mapping[str, Described] | None = None) -> Results:
    """The rows of the CSV in the neutral form; its costs need no prices. UserError names the row (the line that it begins in) and the column."""
    results = Results()
    expect(COLUMNS, header(path, ",")[1], path, f"a GraphRouter CSV has {','.join((*COLUMNS, *COSTS))}")
    wanted = [(name,) for name in (*COLUMNS, *COSTS)]
    for at, (task, query, llm, effect, *costs) in columns(path, ",", wanted, len(COLUMNS), results.dropped):
        if not llm.strip():
            raise UserError(f"{path} row {at}: llm is empty; correct or remove the row")
        if not query.strip():
            results.dropped["rows: empty query"] += 1
            continue
        paid = [value(given, path, at, name, least=0) for given, name in zip(costs, COSTS, strict=True)]
        task = task.strip()
        results.add(Query(readable(query), task, task), readable(llm), value(effect, path, at, "effect"), *paid)
    return results


def expect(columns: Collection[str], names: Collection[str], path: Path, hint: str) -> None:
    """UserError where one of ``columns`` is not among the ``names``; ``hint`` says what the file is to look like."""
    if missing := [column for column in columns if column not in names]:
        raise UserError(f"{path}: no column {missing[0]!r}; {hint}, separated by commas")
