"""Prepared Parquet as flat columns, batch by batch: for what looks at millions of rows in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from data_prep.ahead import ahead
from data_prep.schema import SCHEMA, SCHEMA_VERSION
from iranker_verl.errors import UserError, first_line

ROWS = 4096  # a batch: a few MB of text

# What every row has to have, for anything to be said about it.
NEEDED = {
    "prompt": ("prompt",),
    "dataset": ("data_source",),
    "kind": ("extra_info", "row_kind"),
    "task_id": ("extra_info", "task_id"),
    "scenario": ("extra_info", "scenario"),
    "group": ("extra_info", "group"),
    "candidate_ids": ("extra_info", "candidate_ids"),
}
LEAVES = NEEDED | {
    "time": ("extra_info", "time"),
    "context": ("extra_info", "context"),
    "history_ids": ("extra_info", "history_ids"),
    "candidates": ("reward_model", "ground_truth", "candidates"),
    "target": ("reward_model", "ground_truth", "target"),
    "relevance": ("reward_model", "ground_truth", "relevance"),
}
CONTENT = ("data_source", "reward_model", "extra_info")  # all but the prompt


def batches(path: Path, *columns: str) -> Iterator[tuple[int, pa.Table]]:
    """Yield ``(number of the first row, rows)``, again and again, each in the schema of prepared data; only ``columns`` of it.

    Only ``columns`` are read, if some are given. Raise UserError for a missing, broken or foreign file, and for a row without what it needs.
    """
    schema = pa.schema([SCHEMA.field(name) for name in columns or SCHEMA.names])
    start = 0
    try:
        with pq.ParquetFile(path) as file:
            if missing := [name for name in schema.names if name not in file.schema_arrow.names]:
                raise UserError(f"{path}: column {missing[0]!r} is missing; this is not a file of `iranker prepare`")
            for batch in ahead(file.iter_batches(ROWS, columns=schema.names)):
                if not len(batch):
                    continue
                table = pa.Table.from_batches([batch]).select(schema.names)
                yield start, _conforming(table, schema, path, start)
                start += len(table)
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file; run `iranker prepare` first") from error
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{path}: unreadable after row {start} ({first_line(error)}); prepare it again") from error


def leaves(rows: pa.Table) -> dict[str, pa.Array]:
    """Return the columns of :data:`LEAVES` that ``rows`` holds, each by its short name."""
    found = {}
    for name, (column, *inner) in LEAVES.items():
        if column in rows.column_names:
            array = rows[column].combine_chunks()
            found[name] = pc.struct_field(array, inner) if inner else array
    return found


def best(columns: dict[str, pa.Array]) -> tuple[np.ndarray, np.ndarray]:
    """Return ``(row, place)`` of every best candidate, int64; a row whose truth names none of its candidates has none.

    The best are those of the largest ``relevance``, and without one it is the ``target``. Where all are equally good,
    none is best.
    """
    sizes, grade = lengths(columns["candidates"]), grades(columns)
    row = np.repeat(np.arange(len(sizes)), sizes)
    high, low = np.full(len(sizes), -np.inf), np.full(len(sizes), np.inf)
    with np.errstate(invalid="ignore"):  # NaN spreads, and is found below
        np.maximum.at(high, row, grade)
        np.minimum.at(low, row, grade)
        usable = np.isfinite(high) & np.isfinite(low) & (high > low) & (lengths(columns["candidate_ids"]) == sizes)
    chosen = np.flatnonzero(usable[row] & (grade == high[row]))
    return row[chosen], chosen - (np.cumsum(sizes) - sizes)[row[chosen]]


def grades(columns: dict[str, pa.Array]) -> np.ndarray:
    """Return the relevance of every candidate of every row, float64: 1 for the ``target`` where a row has no ``relevance``.

    NaN stands for a missing number, and 0 for all candidates of a row whose truth does not fit them.
    """
    sizes, graded = lengths(columns["candidates"]), lengths(columns["relevance"])
    starts = np.cumsum(sizes) - sizes
    found = np.zeros(sizes.sum())
    target = pc.fill_null(columns["target"], -1).to_numpy(zero_copy_only=False)
    single = np.flatnonzero((graded == 0) & (target >= 0) & (target < sizes))
    found[starts[single] + target[single]] = 1.0
    row, value = flat(columns["relevance"])
    index = np.arange(len(row)) - (np.cumsum(graded) - graded)[row]
    fits = (graded == sizes)[row]
    found[(starts[row] + index)[fits]] = pc.fill_null(value, np.nan).to_numpy(zero_copy_only=False)[fits]
    return found


def lengths(lists: pa.ListArray) -> np.ndarray:
    """Return how long each list is, int64; a null is as an empty one."""
    return pc.fill_null(pc.list_value_length(lists), 0).to_numpy(zero_copy_only=False).astype(np.int64)


def flat(lists: pa.ListArray) -> tuple[np.ndarray, pa.Array]:
    """Return ``(row of each value, values)`` of a column of lists."""
    return pc.list_parent_indices(lists).to_numpy(), lists.flatten()


def queries(columns: dict[str, pa.Array]) -> pa.Array:
    """Return each row's query: a passage's context is its query; a routing context also has the preference, so its group is the query."""
    return pc.if_else(pc.equal(columns["scenario"], "passage"), columns["context"], columns["group"])


def by_name(names: pa.Array) -> Iterator[tuple[str, np.ndarray]]:
    """Yield each name of a column, and the rows that have it."""
    encoded = names.dictionary_encode()
    place = encoded.indices.to_numpy(zero_copy_only=False)
    for number, name in enumerate(encoded.dictionary.to_pylist()):
        yield name, np.flatnonzero(place == number)


def _conforming(table: pa.Table, schema: pa.Schema, path: Path, start: int) -> pa.Table:
    try:
        table = table.cast(schema)
    except (pa.ArrowException, ValueError) as error:
        raise UserError(
            f"{path}: not in version {SCHEMA_VERSION} of the schema ({first_line(error)}); prepare it again"
        ) from error
    columns = leaves(table)
    for name, leaf in NEEDED.items():
        if name in columns and columns[name].null_count:
            row = start + int(np.argmax(columns[name].is_null().to_numpy(zero_copy_only=False)))
            raise UserError(f"{path} row {row}: {'.'.join(leaf)} is missing; see what `iranker validate {path}` says")
    return table
