"""From spooled tasks to ``train.parquet`` and ``test.parquet``: sides, caps, rows, in bounded memory."""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from data_prep.ahead import ahead
from data_prep.options import Options
from data_prep.rows import rows
from data_prep.schema import SCHEMA, SPLITS, ContentHash
from data_prep.sides import Sides
from data_prep.split import TEST, TRAIN
from data_prep.spool import read_range
from data_prep.tasks import Dropped
from iranker_verl.errors import UserError
from iranker_verl.ranking import DATASETS
from iranker_verl.ranking.templates import Template

# Rows of a row group: some MB, so that verl's loader (Hugging Face datasets) reads a file in even pieces.
ROW_GROUP = 4096
# Called with a table of rows before they are written, e.g. to refuse prompts that are too long.
Inspect = Callable[[pa.Table], None]


@dataclass
class Made:
    """What came out: ``tasks[dataset][side]``, the largest pool of each dataset, rows a side, and how it was split."""

    tasks: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    candidates: Counter[str] = field(default_factory=Counter)
    rows: Counter[str] = field(default_factory=Counter)
    data_hash: str = ""
    split: dict[str, str] = field(default_factory=dict)


def assemble(
    folders: Sequence[Path],
    ranges: int,
    out: Path,
    template: Template,
    options: Options,
    dropped: Dropped,
    inspect: Inspect | None = None,
    progress: Callable[[str], None] = lambda line: None,
) -> Made:
    """Write both files into ``out`` from what the units spooled into ``folders``; ``dropped`` is added to."""
    made = Made()
    writers = {split: _Writer(out / f"{split}.parquet") for split in SPLITS}
    hashes = {split: ContentHash() for split in SPLITS}

    def parts() -> Iterator[tuple[str, pa.Table]]:
        """Yield some rows of a split at a time, in order."""
        side_of = Sides(folders, options)
        made.split = side_of.split
        for place in range(ranges):
            table = read_range(folders, place)
            _no_task_twice(table)
            side = side_of(table, dropped)
            for split, cap, states in ((TRAIN, options.max_train, options.max_states), (TEST, options.max_test, None)):
                tasks = _capped(table.filter(pa.array(side == split)), cap, states, split, made).drop_columns(["key"])
                for start in range(0, tasks.num_rows, ROW_GROUP):
                    written = rows(tasks.slice(start, ROW_GROUP), template, options, split, made.rows[split])
                    made.rows[split] += written.num_rows
                    yield split, written
            if ranges > 1:
                progress(f"rows: {place + 1} of {ranges} parts, {sum(made.rows.values())} rows")

    try:
        for split, written in ahead(parts()):
            if inspect is not None:
                inspect(written)
            writers[split].write(written)
            hashes[split].update(written)
    finally:
        for writer in writers.values():
            writer.close()
    made.data_hash = ContentHash.of(*(hashes[split] for split in SPLITS))
    return made


def _no_task_twice(table: pa.Table) -> None:
    ids = table["task_id"].to_pylist()  # equal ids have equal keys, so they meet in one range
    for one, two in itertools.pairwise(ids):
        if one == two:
            raise UserError(f"the task id {one!r} occurs twice in the raw data; ids have to be unique")


def _capped(tasks: pa.Table, cap: int | None, states: int | None, split: str, made: Made) -> pa.Table:
    """Return at most ``cap`` tasks of each dataset, and of at most ``states`` states, the first ones in order, counted."""
    datasets = pc.dictionary_encode(tasks["dataset"]).combine_chunks()
    if not tasks.num_rows:
        return tasks
    place = datasets.indices.to_numpy()
    keep = np.ones(len(place), bool)
    sizes = pc.list_value_length(tasks["candidates"]).to_numpy()
    for number, name in enumerate(datasets.dictionary.to_pylist()):
        own = np.flatnonzero(place == number)
        most = [] if cap is None else [cap]
        if states is not None and DATASETS.get(name) in ("recommendation", "passage"):
            most.append(states // max(int(sizes[own].max()) - 1, 1))
        room = max(0, min(most) - made.tasks[name][split]) if most else len(own)
        keep[own[room:]] = False
        made.tasks[name][split] += min(room, len(own))
        made.candidates[name] = max(made.candidates[name], int(sizes[own[:room]].max(initial=0)))
    return tasks.filter(pa.array(keep))


class _Writer:
    """A Parquet file in row groups of :data:`ROW_GROUP` rows, however the rows come in."""

    def __init__(self, path: Path) -> None:
        self._writer = pq.ParquetWriter(path, SCHEMA, compression="zstd")
        self._waiting: list[pa.Table] = []
        self._count = 0

    def write(self, table: pa.Table) -> None:
        self._waiting.append(table)
        self._count += table.num_rows
        if self._count >= ROW_GROUP:
            whole = pa.concat_tables(self._waiting)
            full = self._count // ROW_GROUP * ROW_GROUP
            self._writer.write_table(whole.slice(0, full), row_group_size=ROW_GROUP)
            self._waiting, self._count = [whole.slice(full)], self._count - full

    def close(self) -> None:
        if self._count:
            self._writer.write_table(pa.concat_tables(self._waiting), row_group_size=ROW_GROUP)
        self._writer.close()
