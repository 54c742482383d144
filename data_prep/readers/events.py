"""Events of a table, a line each, as fast as pyarrow reads CSV, and as exact as :mod:`data_prep.readers.lines`.

What the fast reader gives is what the slow one would: whatever they might take differently (quotes, a lone carriage
return, text that is not UTF-8, a field too many, an empty id, a time that is not a number) makes the slow one take
over, which reads on or names file, row and value. Memory is a few blocks of a megabyte.
"""

from __future__ import annotations

import codecs
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv

from data_prep.readers.lines import (
    NO_IDS,
    ParseHeader,
    identifier,
    number,
    places,
    plain_names,
    table_header,
    table_rows,
)
from data_prep.readers.opened import open_text
from iranker_verl.errors import UserError

# One row an event, in the file's order. ``time`` is any number that orders: seconds, or nanoseconds as they are. A number
# that no float holds is ``time`` and ``rest`` together, ``rest`` in units of 1 from 2^53 on and of 2^-62 below; ordered by
# both, numbers are ordered as they are written.
EVENTS = pa.schema([("user", pa.string()), ("item", pa.string()), ("time", pa.float64()), ("rest", pa.int64())])

BATCH = 65_536
BLOCK_BYTES = 1 << 20
_PARTS = 2**62
EXACT = 2**53  # whole numbers below are floats; above, neighbours become one
_DIGITS = 15  # decimal numbers of so many are all different as floats


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


def header_layout(
    path: Path, separator: str, names: Sequence[Sequence[str]], parse: ParseHeader = plain_names
) -> Layout:
    """Return the layout that a file's header tells; ``names`` are those that the columns of user, item and time may have."""
    row, columns = table_header(path, separator, parse)
    user, item, time = places(path, columns, names, 3)
    return Layout(separator, len(columns), user, item, time, row)


def table_events(path: Path, layout: Layout, dropped: Counter[str]) -> Iterator[pa.RecordBatch]:
    """Yield the events in the file's order. Raise UserError for one without user or item, or whose time is no number."""
    done = 0
    counts: Counter[str] = Counter()
    try:
        for batch in _fast(path, layout, counts):
            yield batch
            done += batch.num_rows
        if not done:
            raise _Doubt("an empty file")
    except (_Doubt, pa.ArrowException, EOFError, OSError, zlib.error, UserError):
        yield from event_batches(path, islice(_slow(path, layout, dropped), done, None))
    else:
        dropped.update(+counts)


def event_batches(path: Path, events: Iterable[tuple[int, object, object, object]]) -> Iterator[pa.RecordBatch]:
    """Yield checked events from ``(row, user, item, time)``: ids are texts or whole numbers, times numbers or their text."""
    checked = (_checked(path, *event) for event in events)
    while part := list(islice(checked, BATCH)):
        columns = zip(*part, strict=True)
        yield pa.record_batch([pa.array(own, kind.type) for own, kind in zip(columns, EVENTS, strict=True)], EVENTS)


def _checked(path: Path, row: int, user: object, item: object, time: object) -> tuple[str, str, float, int]:
    """Return user, item, time, and what the number as written has beyond the float."""
    names = identifier(user, path, row, "user"), identifier(item, path, row, "item")
    value, text = number(time, path, row, "the time"), str(time).strip()
    beyond = len(text) > _DIGITS and 0 < abs(value) < 2**100
    rest = Decimal(text) - Decimal(value) if beyond else Decimal(0)
    return *names, value, int(rest if abs(value) >= EXACT else rest * _PARTS)


def _slow(path: Path, layout: Layout, dropped: Counter[str]) -> Iterator[tuple[int, str, str, str]]:
    for row, fields in table_rows(path, layout.separator, layout.columns, dropped):
        if row > layout.header:
            yield row, fields[layout.user], fields[layout.item], fields[layout.time]


class _Doubt(Exception):
    """The fast reader might read something else than what is there."""


def _fast(path: Path, layout: Layout, counts: Counter[str]) -> Iterator[pa.RecordBatch]:
    # Whole lines, some at a time, and not pyarrow's streaming reader: one that is left before the file's end may wait
    # for itself for ever, since its background thread can be the one that takes it down.
    head = layout.header
    with open_text(path) as file:
        block = file.read(BLOCK_BYTES)
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
    """Yield the events of whole lines, of which the first ``head`` are the header and what is above it."""
    if b"\r" in block and block.count(b"\r") != block.count(b"\r\n"):
        raise _Doubt("a lone carriage return")
    if layout.separator == "," and (block.startswith(b" ") or any(one in block for one in (b'"', b", ", b"\n "))):
        raise _Doubt("quotes, or spaces that are skipped")
    if block.startswith(codecs.BOM_UTF8):
        raise _Doubt("a mark that pyarrow would skip")
    try:
        block.decode()
    except UnicodeDecodeError as error:
        raise _Doubt("not UTF-8") from error
    table = _table(block, layout, head, pa.float64())
    times = table["time"]
    if times.null_count or not pc.all(pc.is_finite(times)).as_py():
        raise _Doubt("a time that is not a number")
    if b"." in block and pc.max(pc.binary_length(_table(block, layout, head, pa.string())["time"])).as_py() > _DIGITS:
        raise _Doubt("a time with more digits than a float has")
    rest = np.zeros(len(times), np.int64)
    if (largest := pc.max(pc.abs(times)).as_py() or 0) >= EXACT:
        if largest >= 2**62:
            raise _Doubt("a time that int64 may not hold")
        rest = _table(block, layout, head, pa.int64())["time"].to_numpy() - times.to_numpy().astype(np.int64)
    events = table.append_column("rest", pa.array(rest)).cast(EVENTS)
    missing = pa.array(NO_IDS if b"n" in block or b"N" in block else NO_IDS[:1])  # most ids are numbers
    if any(_any_of(events[name], missing) for name in ("user", "item")):
        raise _Doubt("a missing id")
    ends = np.count_nonzero(np.frombuffer(block, np.uint8) == ord("\n"))  # many times as fast as bytes.count
    counts["lines: blank"] += int(ends) + (not block.endswith(b"\n")) - events.num_rows - (head > 0)
    yield from events.to_batches(BATCH)


def _any_of(ids: pa.ChunkedArray, missing: pa.Array) -> bool:
    bad = pc.is_in(ids, value_set=missing) if len(missing) > 1 else pc.equal(pc.binary_length(ids), 0)
    return bool(pc.any(bad).as_py())


def _table(block: bytes, layout: Layout, head: int, time_type: pa.DataType) -> pa.Table:
    """Return the columns user, item and time of whole lines."""
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
            column_types={user: pa.string(), item: pa.string(), time: time_type, **gaps},
            include_columns=[user, item, time, *gaps],
            null_values=[""],
            strings_can_be_null=False,
            check_utf8=False,
        ),
    )
    return pa.table(table.columns[:3], ["user", "item", "time"])
