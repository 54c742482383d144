"""One file of a prepared folder, read once for all checks: what it holds, and the first row that is wrong in itself."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_prep.checks.columns import CONTENT, batches, best, flat, grades, leaves, lengths, queries
from data_prep.checks.positions import Places, add
from data_prep.hashing import examples
from data_prep.readers.text import shown
from data_prep.schema import HISTORY_SEPARATOR, ContentHash

# Groups of these are queries, which several datasets share; elsewhere they are users, each dataset's own.
QUERIES = ("routing", "passage")
_COMPACT_EVERY = 64  # batches

Columns = dict[str, pa.Array]


class Distinct:
    """Distinct rows of some columns, how often each occurred and at which row first; Arrow's memory, not Python's."""

    def __init__(self, *names: str) -> None:
        self.names = list(names)
        self._parts: list[pa.Table] = []

    def add(self, columns: Mapping[str, pa.Array], rows: np.ndarray) -> None:
        """Take in the columns' rows at ``rows``, which have these numbers in the file."""
        table = pa.table({name: columns[name] for name in self.names})
        self._parts.append(
            table.append_column("row", pa.array(rows)).append_column("count", pa.array(np.ones(len(rows), np.int64)))
        )
        if len(self._parts) >= _COMPACT_EVERY:
            self._parts = [self.table()]

    def table(self) -> pa.Table:
        """Return the columns, ``row`` and ``count``."""
        if not self._parts:
            empty = dict.fromkeys(self.names, pa.array([], pa.string()))
            return pa.table({**empty, "row": pa.array([], pa.int64()), "count": pa.array([], pa.int64())})
        found = pa.concat_tables(self._parts).group_by(self.names).aggregate([("row", "min"), ("count", "sum")])
        return found.select([*self.names, "row_min", "count_sum"]).rename_columns([*self.names, "row", "count"])


@dataclass
class Times:
    """The earliest and the latest time of a dataset's positives, in seconds, each with its row."""

    first: tuple[float, int] = (math.inf, -1)
    last: tuple[float, int] = (-math.inf, -1)


@dataclass
class Side:
    """``offences`` and ``counted`` are by check: the first row that is wrong in itself, and how many were looked at."""

    name: str
    content: ContentHash = field(default_factory=ContentHash)
    groups: Distinct = field(default_factory=lambda: Distinct("family", "group"))
    examples: Distinct = field(default_factory=lambda: Distinct("dataset", "example"))
    queries: Distinct = field(default_factory=lambda: Distinct("scenario", "query"))
    tasks: Distinct = field(default_factory=lambda: Distinct("dataset", "task_id", "kind", "size"))
    times: dict[str, Times] = field(default_factory=dict)
    places: Places = field(default_factory=dict)
    counted: Counter[str] = field(default_factory=Counter)
    offences: dict[str, str] = field(default_factory=dict)

    def look(self, name: str, count: int, bad: np.ndarray, start: int, what: Callable[[int], str]) -> None:
        """Count ``count`` checked rows of a batch, of which those at ``bad`` are wrong; ``what(row)`` describes the fault."""
        self.counted[name] += count
        if len(bad) and name not in self.offences:
            row = int(bad.min())
            self.offences[name] = f"{self.name} row {start + row}: {what(row)}"


def read(path: Path, *, by_time: bool) -> Side:
    """Return what a file holds. ``by_time``: recommendation is split by time, and a user may be on both sides.

    Raise UserError for a broken file.
    """
    side = Side(path.name)
    for start, rows in batches(path, *CONTENT):
        side.content.update(rows)
        columns = leaves(rows)
        columns["size"] = pa.array(lengths(columns["candidate_ids"]))
        is_query = _mask(pc.is_in(columns["scenario"], pa.array(QUERIES)))
        _groups(side, columns, np.flatnonzero(is_query | (not by_time)), start)
        _queries(side, columns, np.flatnonzero(is_query), start)
        _examples(side, columns, np.flatnonzero(~is_query & (not by_time)), start)
        side.tasks.add(columns, start + np.arange(len(rows)))
        _ids(side, columns, start)
        _texts(side, columns, start)
        if by_time:
            _times(side, columns, np.flatnonzero(~is_query), start)
        _places(side, columns, start)
    return side


def _groups(side: Side, columns: Columns, where: np.ndarray, start: int) -> None:
    is_query = pc.is_in(columns["scenario"], pa.array(QUERIES))
    columns = {"group": columns["group"], "family": pc.if_else(is_query, columns["scenario"], columns["dataset"])}
    side.groups.add({name: column.take(pa.array(where)) for name, column in columns.items()}, start + where)


def _queries(side: Side, columns: Columns, where: np.ndarray, start: int) -> None:
    columns = {"scenario": columns["scenario"], "query": pc.fill_null(queries(columns), "")}
    side.queries.add({name: column.take(pa.array(where)) for name, column in columns.items()}, start + where)


def _examples(side: Side, columns: Columns, where: np.ndarray, start: int) -> None:
    """Take in what recommendation rows show, a hash of each: two users with one history and one best item are one example."""
    sizes = lengths(columns["candidates"])
    target = pc.fill_null(columns["target"], -1).to_numpy(zero_copy_only=False)
    where = where[(target[where] >= 0) & (target[where] < sizes[where])]
    positive = columns["candidates"].flatten().take(pa.array((np.cumsum(sizes) - sizes + target)[where]))
    example = examples(columns["context"].take(pa.array(where)), positive)
    side.examples.add({"dataset": columns["dataset"].take(pa.array(where)), "example": example}, start + where)


def _ids(side: Side, columns: Columns, start: int) -> None:
    row, candidate = flat(columns["candidate_ids"])
    history_row, history = flat(columns["history_ids"])
    keys, in_history, text = _compared(row, candidate, history_row, history)
    side.look(
        "history",
        len(np.unique(history_row)),
        row[in_history],
        start,
        lambda at: f"candidate {text(in_history, at)} is in the history",
    )
    again = np.ones(len(row), bool)
    again[np.unique(keys, return_index=True)[1]] = False
    count = len(columns["candidate_ids"])
    side.look("candidate ids", count, row[again], start, lambda at: f"candidate {text(again, at)} occurs twice")


def _texts(side: Side, columns: Columns, start: int) -> None:
    """Compare what is shown: a model and a reader see texts, not ids."""
    row, candidate = flat(columns["candidates"])
    keys, in_history, text = _compared(row, candidate, *_history_texts(columns))
    side.look("history", 0, row[in_history], start, lambda at: f"{text(in_history, at)} is shown in the history, too")
    grade = grades(columns)
    _, same = np.unique(keys, return_inverse=True)
    low, high = np.full(len(same), np.inf), np.full(len(same), -np.inf)
    with np.errstate(invalid="ignore"):  # NaN is no grade, and is found as such
        np.minimum.at(low, same, grade)
        np.maximum.at(high, same, grade)
        differing = (high > low)[same]
    side.look(
        "candidate texts",
        len(columns["candidates"]),
        row[differing],
        start,
        lambda at: (
            f"{text(differing, at)} is shown twice, with relevance {min(grade[differing & (row == at)]):g} and "
            f"{max(grade[differing & (row == at)]):g}"
        ),
    )


def _compared(
    row: np.ndarray, candidate: pa.Array, past_row: np.ndarray, past: pa.Array
) -> tuple[np.ndarray, np.ndarray, Callable[[np.ndarray, int], str]]:
    """Compare candidates with each other and with the past of their own rows, all rows at once.

    Return a key of each candidate, equal for equal values of a row; whether the value is in the row's past; and a function
    ``text(bad, row)`` that shows the first value of ``row`` among those that are ``bad``.
    """
    every = pa.concat_arrays([candidate, past]).dictionary_encode(null_encoding="encode")
    code = every.indices.to_numpy(zero_copy_only=False) + len(every.dictionary) * np.concatenate([row, past_row])
    keys = code[: len(row)]

    def text(bad: np.ndarray, at: int) -> str:
        return shown(str(every.dictionary[int(keys[bad & (row == at)][0] % len(every.dictionary))]))

    return keys, np.isin(keys, code[len(row) :]), text


def _history_texts(columns: Columns) -> tuple[np.ndarray, pa.Array]:
    """Return ``(row of each text, texts)`` of the items that contexts list, where items can be separated."""
    parts = pc.split_pattern(pc.fill_null(columns["context"], ""), HISTORY_SEPARATOR)
    past = lengths(columns["history_ids"])
    told = np.flatnonzero((past > 0) & (lengths(parts) == past))  # a title may hold the separator
    row, text = flat(parts.take(pa.array(told)))
    return told[row], text


def _times(side: Side, columns: Columns, where: np.ndarray, start: int) -> None:
    time = pc.fill_null(columns["time"], np.nan).to_numpy(zero_copy_only=False)
    side.look("time", len(where), where[~np.isfinite(time[where])], start, lambda at: f"time is {time[at]}")
    for dataset in pc.unique(columns["dataset"].take(pa.array(where))).to_pylist():
        rows = where[_mask(pc.equal(columns["dataset"], dataset))[where] & np.isfinite(time[where])]
        if len(rows):
            early, late = rows[time[rows].argmin()], rows[time[rows].argmax()]
            found = side.times.setdefault(dataset, Times())
            found.first = min(found.first, (float(time[early]), start + int(early)))
            found.last = max(found.last, (float(time[late]), start + int(late)))


def _places(side: Side, columns: Columns, start: int) -> None:
    sizes = columns["size"].to_numpy()
    row, place = best(columns)
    add(side.places, sizes[row], place)
    without = np.setdiff1d(np.arange(len(sizes)), row)
    side.look("position", len(row), without, start, lambda at: f"no best one among {sizes[at]} candidates")


def _mask(values: pa.Array) -> np.ndarray:
    return pc.fill_null(values, False).to_numpy(zero_copy_only=False)
