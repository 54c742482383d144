"""Events of a table, a line each, as fast as pyarrow reads CSV, and as exact as :mod:`data_prep.readers.lines`.

What the fast reader gives is what the slow one would: whatever they might take differently (quotes, a lone carriage
return, text that is not UTF-8, a field too many, an empty id, a time that is not a number) makes the slow one take
over, which reads on or names file, row and value. Memory is a few blocks of a megabyte.
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv

from data_prep.readers.lines import BOM, ParseHeader, header, identifier, number, opened, places, plain_names, rows
from data_prep.scenarios.interactions import EVENTS

BATCH = 65_536
BLOCK_BYTES = 1 << 20


@dataclass(frozen=True)
class Layout:
    """How a line is laid out: ``columns`` fields, and which of them (from 0) tell user, item and time.

    ``header`` is the row of the header (1-based), 0 for none.
    """

    separator: str
    columns: int
    user: int
    item: int
    time: int
    header: int = 0


def by_header(path: Path, separator: str, names: Sequence[Sequence[str]], parse: ParseHeader = plain_names) -> Layout:
    """The layout that the file's header tells; ``names`` are those that the columns of user, item and time may have."""
    row, columns = header(path, separator, parse)
    user, item, time = places(path, columns, names, 3)
    return Layout(separator, len(columns), user, item, time, row)


def read(path: Path, layout: Layout, dropped: Counter[str]) -> Iterator[pa.RecordBatch]:
    """The events in the file's order. UserError for an event without user or item, or whose time is not a number."""
    done = 0
    counts: Counter[str] = Counter()
    try:
        for batch in _fast(path, layout, counts):
            yield batch
            done += batch.num_rows
        if not done:
            raise _Doubt("an empty file")
    except (_Doubt, pa.ArrowException, EOFError, OSError, zlib.error):
        yield from batches(path, islice(_slow(path, layout, dropped), done, None))
    else:
        dropped.update(+counts)


def batches(path: Path, events: Iterable[tuple[int, object, object, object]]) -> Iterator[pa.RecordBatch]:
    """``(row, user, item, time)`` of any reader, checked: ids are texts or whole numbers, times numbers or their text."""
    events = iter(events)
    while part := list(islice(events, BATCH)):
        users = [identifier(user, path, row, "user") for row, user, _, _ in part]
        items = [identifier(item, path, row, "item") for row, _, item, _ in part]
        times = [number(str(time), path, row, "the time") for row, _, _, time in part]
        yield pa.record_batch([pa.array(users, pa.string()), pa.array(items, pa.string()), pa.array(times)], EVENTS)


def _slow(path: Path, layout: Layout, dropped: Counter[str]) -> Iterator[tuple[int, str, str, str]]:
    for row, fields in rows(path, layout.separator, layout.columns, dropped):
        if row > layout.header:
            yield row, fields[layout.user], fields[layout.item], fields[layout.time]


class _Doubt(Exception):
    """The fast reader might read something else than what is there."""


def _fast(path: Path, layout: Layout, counts: Counter[str]) -> Iterator[pa.RecordBatch]:
    # Whole lines, some at a time, and not pyarrow's streaming reader: one that is left before the file's end may wait
    # for itself for ever, since its background thread can be the one that takes it down.
    head = layout.header
    with opened(path) as file:
        block = file.read(BLOCK_BYTES).removeprefix(BOM)
        while block:
            new = file.read(BLOCK_BYTES)
            end = block.rfind(b"\n") + 1 if new else len(block)
            if end:
                yield from _parse(block[:end], layout, head, counts)
                head = 0
            elif len(block) > BLOCK_BYTES:
                raise _Doubt("a huge line")
            block = block[end:] + new


def _parse(block: bytes, layout: Layout, head: int, counts: Counter[str]) -> Iterator[pa.RecordBatch]:
    """The events of whole lines, of which the first ``head`` are the header and what is above it."""
    if b"\r" in block and block.count(b"\r") != block.count(b"\r\n"):
        raise _Doubt("a lone carriage return")
    if layout.separator == "," and b'"' in block:
        raise _Doubt("quotes")
    if block.startswith(BOM):
        raise _Doubt("a mark that pyarrow would skip")
    try:
        block.decode()
    except UnicodeDecodeError as error:
        raise _Doubt("not UTF-8") from error
    # pyarrow's separators are one byte: between the two of "::" it sees a field, which has to be empty (type null).
    step = len(layout.separator)
    names = [str(place) for place in range((layout.columns - 1) * step + 1)]
    user, item, time = (names[place * step] for place in (layout.user, layout.item, layout.time))
    gaps = dict.fromkeys((name for place, name in enumerate(names) if place % step), pa.null())
    table = csv.read_csv(
        pa.BufferReader(block),
        csv.ReadOptions(column_names=names, skip_rows=head, block_size=len(block) + 1, use_threads=False),
        csv.ParseOptions(delimiter=layout.separator[0], quote_char=False, escape_char=False, ignore_empty_lines=True),
        csv.ConvertOptions(
            column_types={user: pa.string(), item: pa.string(), time: pa.float64(), **gaps},
            include_columns=[user, item, time, *gaps],
            null_values=[""],
            strings_can_be_null=False,
            check_utf8=False,
        ),
    )
    events = pa.table(table.columns[:3], EVENTS)
    if events["time"].null_count or not pc.all(pc.is_finite(events["time"])).as_py():
        raise _Doubt("a time that is not a number")
    if any(pc.any(pc.equal(pc.binary_length(events[name]), 0)).as_py() for name in ("user", "item")):
        raise _Doubt("an empty id")
    ends = np.count_nonzero(np.frombuffer(block, np.uint8) == ord("\n"))  # many times as fast as bytes.count
    counts["lines: blank"] += int(ends) + (not block.endswith(b"\n")) - events.num_rows - (head > 0)
    yield from events.to_batches(BATCH)
