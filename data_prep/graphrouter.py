"""Routing tasks from GraphRouter's CSV (https://github.com/ulab-uiuc/GraphRouter): one row a query and LLM.

Columns ``task_id, query, llm, effect, cost, cost_raw`` (``ground_truth`` and ``metric`` are not read): ``effect`` and
``cost`` are normalised to [0, 1], ``cost_raw`` is in the file's own unit. Rows are grouped by (task_id, query), and
each of the three datasets ranks the LLMs by ``weight * effect - weight * cost``.

Policy. A query that lacks an LLM which other queries have, or a number (empty, NaN), is dropped and counted; so is one
longer than ``max_chars``. Of a repeated query and LLM the first row counts. The positive is the LLM with the best
score; among equals the one with the lowest ``cost_raw``, and where that is equal too the query is dropped from the
dataset as tied. The split is by query text and the same for all three datasets. Every task shows the LLMs in an order
of its own.

A candidate is the LLM's name with what a file ``llm_descriptions.json`` beside the CSV says: ``{name: {description,
price}}``, or GraphRouter's own ``{name: {feature, input_price, output_price}}``. Without that file it is the name with
the LLM's average ``cost_raw`` over the training queries.
"""

from __future__ import annotations

import csv
import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

from data_prep.lines import number
from data_prep.sampling import Options, TaskSet, make_task, one_line, query_key, split
from iranker_verl.errors import UserError
from iranker_verl.ranking import Candidate, RankingTask

COLUMNS = ("task_id", "query", "llm", "effect", "cost", "cost_raw")
DESCRIPTIONS = "llm_descriptions.json"
# dataset: weight of effect, weight of cost, how the context says it
PREFERENCES = {
    "router-performance": (1.0, 0.0, "quality only"),
    "router-cost": (0.2, 0.8, "quality 0.2, cost 0.8"),
    "router-balance": (0.5, 0.5, "quality 0.5, cost 0.5"),
}


@dataclass(frozen=True)
class Outcome:
    """What one LLM did on one query."""

    effect: float
    cost: float
    cost_raw: float


@dataclass
class Query:
    """A query with every LLM's outcome. ``row`` is its first row; an outcome with a missing number is None."""

    task: str
    text: str
    row: int
    outcomes: dict[str, Outcome | None] = field(default_factory=dict)


def load(path: Path, options: Options, datasets: Iterable[str] = tuple(PREFERENCES)) -> dict[str, TaskSet]:
    """The tasks of the CSV, by dataset."""
    dropped: Counter[str] = Counter()
    queries = list(read(path, dropped))
    llms = sorted({llm for query in queries for llm in query.outcomes})
    if len(llms) < 2:
        raise UserError(f"{path}: {len(llms)} LLM(s) in column llm; ranking needs at least 2")
    whole = [query for query in queries if _usable(query, llms, options, dropped)]
    keys = [query_key(query.text) for query in whole]
    by_key: dict[str, list[Query]] = {}
    for key, query in zip(keys, whole, strict=True):
        by_key.setdefault(key, []).append(query)
    train, test = ([q for key in side for q in by_key[key]] for side in split(keys, options, "router"))
    texts = _candidate_texts(path, llms, train)
    result = {}
    for dataset in datasets:
        made = result[dataset] = TaskSet(dropped=Counter(dropped))
        made.train = _tasks(dataset, train, texts, options, made.dropped)[: options.max_train]
        made.test = _tasks(dataset, test, texts, options, made.dropped)[: options.max_test]
    return result


def read(path: Path, dropped: Counter[str]) -> Iterator[Query]:
    """The queries of the CSV in its order. UserError names the row (the header is row 1) and the column."""
    queries: dict[tuple[str, str], Query] = {}
    csv.field_size_limit(2**31 - 1)
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            table = csv.reader(file, strict=True)
            header = next(table, [])
            if missing := [c for c in COLUMNS if c not in header]:
                raise UserError(
                    f"{path}: no column {missing[0]!r}; a GraphRouter CSV has {','.join(COLUMNS)}, separated by commas"
                )
            for row, fields in enumerate(table, 2):
                if not any(fields):
                    dropped["rows: blank"] += 1
                    continue
                if len(fields) != len(header):
                    raise UserError(f"{path} row {row}: {len(fields)} fields, {len(header)} expected; fetch it again")
                _add(queries, dict(zip(header, fields, strict=True)), path, row, dropped)
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: byte {error.start} is not utf-8 text; fetch it again") from error
    except csv.Error as error:
        raise UserError(f"{path}: not a whole CSV file ({error}); fetch it again") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); check the path") from error
    yield from queries.values()


def _add(
    queries: dict[tuple[str, str], Query], row: Mapping[str, str], path: Path, at: int, dropped: Counter[str]
) -> None:
    for column in ("query", "llm"):
        if not row[column].strip():
            raise UserError(f"{path} row {at}: {column} is empty; correct or remove the row")
    query = queries.setdefault((row["task_id"], row["query"]), Query(row["task_id"], row["query"].strip(), at))
    if row["llm"] in query.outcomes:
        dropped["rows: repeated query and LLM"] += 1
        return
    values = [row[column].strip() for column in ("effect", "cost", "cost_raw")]
    if any(value.lower() in ("", "nan", "null", "none") for value in values):
        query.outcomes[row["llm"]] = None
    else:
        columns = zip(("effect", "cost", "cost_raw"), values, strict=True)
        query.outcomes[row["llm"]] = Outcome(*(number(value, path, at, column) for column, value in columns))


def _usable(query: Query, llms: list[str], options: Options, dropped: Counter[str]) -> bool:
    if len(query.outcomes) < len(llms):
        reason = "queries: an LLM is missing"
    elif None in query.outcomes.values():
        reason = "queries: a number is missing"
    elif len(query.text) > options.max_chars:
        reason = f"queries: longer than {options.max_chars} characters"
    else:
        return True
    dropped[reason] += 1
    return False


def best(query: Query, dataset: str) -> str | None:
    """The LLM with the best weighted score, of equals the cheapest; None where that is tied too."""
    quality, thrift, _ = PREFERENCES[dataset]
    # Rounded, so that the order of float operations decides no tie.
    keys = {
        llm: (-round(quality * o.effect - thrift * o.cost, 9), o.cost_raw) for llm, o in query.outcomes.items() if o
    }
    least = min(keys.values())
    winners = [llm for llm, key in keys.items() if key == least]
    return winners[0] if len(winners) == 1 else None


def _tasks(
    dataset: str, queries: list[Query], texts: dict[str, str], options: Options, dropped: Counter[str]
) -> list[RankingTask]:
    tasks = []
    for query in queries:
        positive = best(query, dataset)
        if positive is None:
            dropped["queries: tied"] += 1
            continue
        context = f"Query: {query.text}\nPreference: {PREFERENCES[dataset][2]}"
        candidates = [Candidate(llm, text) for llm, text in texts.items()]
        tasks.append(make_task(f"{dataset}:{query.task}:{query.row}", dataset, context, candidates, positive, options))
    return tasks


def _candidate_texts(path: Path, llms: list[str], train: list[Query]) -> dict[str, str]:
    file = path.with_name(DESCRIPTIONS)
    if file.exists():
        described = _read_descriptions(file)
        return {llm: _described(llm, described, file) for llm in llms}
    texts = {}
    for llm in llms:
        costs = [o.cost_raw for query in train if (o := query.outcomes[llm])]
        mean = Decimal(f"{math.fsum(costs) / max(len(costs), 1):.3g}")
        texts[llm] = f"{llm}, avg cost {mean:f}"
    return texts


def _read_descriptions(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise UserError(f"{file}: not a readable JSON file ({error})") from error
    if not isinstance(content, dict):
        raise UserError(f"{file}: not an object {{name: {{description, price}}}}")
    return content


def _described(llm: str, described: dict[str, Any], file: Path) -> str:
    entry = described.get(llm)
    if not isinstance(entry, dict):
        raise UserError(f"{file}: no description of {llm!r}; add it, or remove the file to show average costs instead")
    text = one_line(str(entry.get("description") or entry.get("feature") or ""))
    price = entry.get("price")
    if price is None and "input_price" in entry and "output_price" in entry:
        price = f"${entry['input_price']} in, ${entry['output_price']} out per 1M tokens"
    shown = one_line(", ".join(str(part) for part in (llm, price) if part is not None))
    return f"{shown}: {text}" if text else shown
