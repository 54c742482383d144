"""Tasks on their way to Parquet: every unit spools its own into *ranges* of the tasks' final order.

The order of all tasks is that of a hash of their ids, a shuffle that depends on nothing else. A range is a slice of that
order, small enough to be sorted in memory, so that any amount of tasks is put in order with bounded memory.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_prep.hashing import keys
from data_prep.options import Options
from data_prep.tasks import TASKS, Dropped, Unit, nothing_dropped
from iranker_verl.files import read_json

KEY = pa.field("key", pa.uint64())
SPOOLED = TASKS.append(KEY)


def fill(folder: Path, unit: Unit, options: Options, datasets: Sequence[str], ranges: int) -> None:
    """Run a unit as a job of :mod:`data_prep.work`: write its tasks to ``range-<i>.arrow`` and what it dropped to JSON."""
    dropped = nothing_dropped()
    writers: dict[int, pa.RecordBatchFileWriter] = {}
    try:
        for table in unit.run(options, datasets, dropped):
            key = keys(table["task_id"].to_pylist(), options.seed, "order")
            spooled = table.append_column(KEY, pa.array(key))
            for place, part in split_by(spooled, range_of(key, ranges), ranges):
                if place not in writers:
                    writers[place] = pa.ipc.new_file(str(folder / f"range-{place:05d}.arrow"), SPOOLED)
                writers[place].write_table(part)
    finally:
        for writer in writers.values():
            writer.close()
    (folder / "dropped.json").write_text(json.dumps(dropped), encoding="utf-8")


def range_of(key: np.ndarray, ranges: int) -> np.ndarray:
    """Return which of ``ranges`` equal slices of the uint64 numbers each key lies in."""
    return ((key >> np.uint64(32)) * np.uint64(ranges) >> np.uint64(32)).astype(np.int64)


def split_by(table: pa.Table, places: np.ndarray, count: int) -> Iterator[tuple[int, pa.Table]]:
    """Yield the rows of each place in ``range(count)``, in their order; places without rows are left out."""
    if count == 1:
        if table.num_rows:
            yield 0, table
        return
    order = np.argsort(places, kind="stable")
    table, ends = table.take(pa.array(order)), np.cumsum(np.bincount(places, minlength=count))
    for place, (start, end) in enumerate(zip([0, *ends[:-1]], ends, strict=True)):
        if end > start:
            yield place, table.slice(start, end - start)


def dropped_in(folders: Sequence[Path]) -> Dropped:
    """Return what all units dropped."""
    total = nothing_dropped()
    for folder in folders:
        for dataset, counts in read_json(folder / "dropped.json").items():
            total[dataset] += Counter(counts)
    return total


def read_range(folders: Sequence[Path], place: int) -> pa.Table:
    """Return all tasks of a range, in final order. Equal keys (one id twice, or chance) are ordered by id."""
    parts = [_read(path) for folder in folders if (path := folder / f"range-{place:05d}.arrow").exists()]
    table = pa.concat_tables(parts) if parts else SPOOLED.empty_table()
    return table.take(pc.sort_indices(table, [("key", "ascending"), ("task_id", "ascending")]))


def read_columns(folders: Sequence[Path], columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """Yield some columns of all tasks, in no particular order."""
    options = pa.ipc.IpcReadOptions(included_fields=[SPOOLED.names.index(c) for c in columns])
    for folder in folders:
        for path in sorted(folder.glob("range-*.arrow")):
            with pa.memory_map(str(path)) as file:
                reader = pa.ipc.open_file(file, options=options)
                for i in range(reader.num_record_batches):
                    yield reader.get_batch(i)


def _read(path: Path) -> pa.Table:
    with pa.memory_map(str(path)) as file:
        return pa.ipc.open_file(file).read_all()
