"""Parquet files and JSON documents, streamed: every error names the file and, as far as it is known, the row (1-based).

For JSON lines and tables of text see :mod:`data_prep.readers.lines`. JSON may be gzipped.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import ijson
import pyarrow as pa
import pyarrow.parquet as pq

from data_prep.readers.lines import BOM, opened
from data_prep.readers.text import shown
from iranker_verl.errors import UserError, first_line

HEAD = 1 << 16
_BATCH = 1024
_BUFFER = 1 << 20
_GZIP = b"\x1f\x8b"


def head(path: Path, size: int = HEAD) -> bytes:
    """The first bytes, unpacked, by which a file is recognised, also where it is cut off; none where it is unreadable."""
    try:
        with path.open("rb") as file:
            start = file.read(size)
    except OSError:
        return b""
    return (_unpacked(start, size) if start.startswith(_GZIP) else start).removeprefix(BOM)


def _unpacked(start: bytes, size: int) -> bytes:
    unzip, found = zlib.decompressobj(31), b""
    try:
        for place in range(0, len(start), 512):
            found += unzip.decompress(start[place : place + 512], size)
            if len(found) >= size:
                break
    except zlib.error:
        pass  # what was read before the damage is enough to know the file; reading it tells of the damage
    return found


def json_items(path: Path) -> Iterator[tuple[int, Any]]:
    """``(row, value)`` of every item of a file that is one JSON array; an item at a time is in memory."""
    with _json(path, 1) as (file,):
        yield from enumerate(ijson.items(file, "item", use_float=True), 1)


def json_columns(path: Path, names: Sequence[str]) -> Iterator[tuple[int, list[Any]]]:
    """``(row, values)`` of a JSON object of columns, ``{"name": {"0": value, "1": …}, …}``, as pandas writes it.

    Columns stand one after the other, so the file is read once for each name, side by side: a row at a time is in
    memory. UserError where the columns do not have the same keys in the same order.
    """
    with _json(path, len(names)) as files:
        columns = [ijson.kvitems(file, name, use_float=True) for file, name in zip(files, names, strict=True)]
        row = 0
        while any(cells := [next(column, None) for column in columns]):
            row += 1
            keys = [cell and cell[0] for cell in cells]
            if len(set(keys)) > 1:
                found = ", ".join(f"{name} has {shown(str(key))}" for name, key in zip(names, keys, strict=True))
                raise UserError(f"{path} row {row}: the columns do not have the same keys ({found}); fetch it again")
            yield row, [cell[1] for cell in cells if cell]


@contextmanager
def _json(path: Path, count: int) -> Iterator[list[Any]]:
    """The file opened ``count`` times. What goes wrong in reading it as JSON is a UserError."""
    try:
        with ExitStack() as stack:
            yield [stack.enter_context(opened(path)) for _ in range(count)]
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise UserError(f"{path}: gzip data cut off or damaged; fetch it again") from error
    except (ijson.JSONError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not a whole JSON file ({first_line(error)}); fetch it again") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error}); check the path") from error


def parquet(path: Path) -> pq.ParquetFile:
    """The open file. UserError for one that is missing or not whole."""
    try:
        return pq.ParquetFile(path, buffer_size=_BUFFER, pre_buffer=False)  # else a whole row group is in memory
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file; check the path") from error
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{path}: not a whole Parquet file ({first_line(error)}); fetch it again") from error


def parquet_batches(
    path: Path, columns: Sequence[str], groups: Sequence[int] | None = None, row: int = 1
) -> Iterator[tuple[int, pa.RecordBatch]]:
    """``(row, batch)``: batches of some ``columns`` of some row ``groups`` (None: all) and the row each begins with.

    ``row`` is the number of the first one. ``columns`` may name a field of a struct, ``a.b``.
    """
    with parquet(path) as file:
        try:
            for batch in file.iter_batches(_BATCH, row_groups=groups, columns=list(columns)):
                yield row, batch
                row += batch.num_rows
        except (pa.ArrowException, OSError) as error:
            raise UserError(f"{path}: unreadable after row {row - 1} ({first_line(error)}); fetch it again") from error
