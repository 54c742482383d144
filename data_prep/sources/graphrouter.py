"""GraphRouter's CSV (https://github.com/ulab-uiuc/GraphRouter), plain or gzipped: one row a query and LLM.

Read are the columns ``task_id, query, llm, effect`` and ``cost, cost_raw``, where they are there: ``cost`` is normalised to
[0, 1] (by GraphRouter itself: min-max within each task), ``cost_raw`` is in the file's own unit. LLMs may be described in
``llm_descriptions.json`` beside the CSV, or in GraphRouter's ``LLM_Descriptions.json`` there or elsewhere in the folder
that is prepared.

Policy beyond those of :mod:`data_prep.scenarios.routing` and :mod:`data_prep.readers.lines`. Rows with an empty query are dropped and
counted. Refused are a missing column (or another delimiter), an empty LLM, what is no number, and a cost below 0.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

from data_prep.readers.lines import check_columns, optional_number, table_columns, table_header
from data_prep.readers.sniff import RawFile
from data_prep.readers.text import readable
from data_prep.scenarios.descriptions import DESCRIPTIONS, Described
from data_prep.scenarios.routing import Query, Results, router_source
from data_prep.tasks import Source
from iranker_verl.errors import UserError

COLUMNS = ("task_id", "query", "llm", "effect")
COSTS = ("cost", "cost_raw")


def find_graphrouter(files: Sequence[RawFile], raw: Path) -> Iterator[Source]:
    """Yield the CSVs with ``task_id`` and ``llm`` in their header, whatever the delimiter."""
    for file in files:
        if file.suffix == ".csv" and file.has("task_id", "llm"):
            reader = partial(read_graphrouter, file.path)
            yield router_source("GraphRouter", [file.path], DESCRIPTIONS, reader, files, raw)


def read_graphrouter(path: Path, described: Mapping[str, Described] | None = None) -> Results:
    """Return the rows of the CSV in the neutral form; its costs need no prices. Raise UserError with row and column."""
    results = Results()
    check_columns(COLUMNS, table_header(path, ",")[1], path, f"a GraphRouter CSV has {','.join((*COLUMNS, *COSTS))}")
    wanted = [(name,) for name in (*COLUMNS, *COSTS)]
    for at, (task, query, llm, effect, *costs) in table_columns(path, ",", wanted, len(COLUMNS), results.dropped):
        if not llm.strip():
            raise UserError(f"{path} row {at}: llm is empty; correct or remove the row")
        if not query.strip():
            results.dropped["rows: empty query"] += 1
            continue
        paid = [optional_number(given, path, at, name, least=0) for given, name in zip(costs, COSTS, strict=True)]
        task = task.strip()
        score = optional_number(effect, path, at, "effect")
        results.add(Query(readable(query), task, task), readable(llm), score, *paid)
    return results
