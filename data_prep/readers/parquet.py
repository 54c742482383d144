"""Parquet files, streamed: every error names the file and, as far as it is known, the row (1-based).

A text cannot be longer than the page that contains it, and a page's header tells its size: so one that is far too long is
refused before anything of it is in memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from data_prep.readers import opened
from data_prep.readers.opened import BUFFER, check_regular
from iranker_verl.errors import UserError, first_line

_BATCH = 1024
_LEAST = 4
PAGE_TEXTS = 4  # pages may have so many times the bytes of the longest text; 1 MB is usual
_HEADER = 1 << 16  # bytes of a page's header, at most
_BUDGET = 256 << 20  # bytes of a batch, at most, as far as the file's metadata tells


def parquet_file(path: Path) -> pq.ParquetFile:
    """Return the open file. Raise UserError for one that is missing or not whole."""
    check_regular(path)
    try:
        return pq.ParquetFile(path, buffer_size=BUFFER, pre_buffer=False)  # else a whole row group is in memory
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{path}: not a whole Parquet file ({first_line(error)}); fetch it again") from error


def parquet_batches(
    path: Path, columns: Sequence[str], groups: Sequence[int] | None = None, row: int = 1
) -> Iterator[tuple[int, pa.RecordBatch]]:
    """Yield ``(row, batch)``: batches of some ``columns`` of some row ``groups`` (None: all) and the row each begins with.

    ``row`` is the number of the first one. ``columns`` may name a field of a struct, ``a.b``. Raise UserError for a text
    that is longer than a text may be.
    """
    with parquet_file(path) as file:
        check_pages(file, path, columns, groups)
        try:
            for batch in file.iter_batches(_batch_rows(file), row_groups=groups, columns=list(columns)):
                for column in batch.columns:
                    if longest_text(column) > opened.MAX_TEXT:
                        raise UserError(
                            f"{path} row {row} to {row + batch.num_rows - 1}: a text of more than "
                            f"{opened.MAX_TEXT >> 20} MB; remove it, or fetch the file again"
                        )
                yield row, batch
                row += batch.num_rows
        except (pa.ArrowException, OSError) as error:
            raise UserError(f"{path}: unreadable after row {row - 1} ({first_line(error)}); fetch it again") from error


def check_pages(
    file: pq.ParquetFile, path: Path, columns: Sequence[str] = (), groups: Sequence[int] | None = None
) -> None:
    """Raise UserError for a page of text whose size proves that a text is too long.

    ``columns`` (none: all) and ``groups`` are as in :func:`parquet_batches`.
    """
    most = PAGE_TEXTS * opened.MAX_TEXT
    with path.open("rb") as raw:
        for number in range(file.num_row_groups) if groups is None else groups:
            group = file.metadata.row_group(number)
            for column in map(group.column, range(group.num_columns)):
                name = column.path_in_schema
                wanted = not columns or any(f"{name}.".startswith(f"{one}.") for one in columns)
                if not wanted or column.physical_type != "BYTE_ARRAY" or column.total_uncompressed_size <= most:
                    continue
                if (size := max(_page_sizes(raw, column, path), default=0)) > most:
                    raise UserError(
                        f"{path}: {name} has a page of {size >> 20} MB in row group {number + 1}, and a text may have "
                        f"{opened.MAX_TEXT >> 20} MB; remove what is longer, or write the file again in smaller pages"
                    )


def _page_sizes(raw: BinaryIO, column: pq.ColumnChunkMetaData, path: Path) -> Iterator[int]:
    """Yield how many bytes each page of a column has, unpacked."""
    start = min(column.data_page_offset, column.dictionary_page_offset or column.data_page_offset)
    end = start + column.total_compressed_size
    while start < end:
        raw.seek(start)
        header = _Thrift(raw.read(_HEADER))
        try:
            fields = header.struct()
            yield fields[2]
            start += header.at + max(fields[3], 0)
        except (IndexError, KeyError) as error:
            raise UserError(f"{path}: a page's header cannot be read; fetch it again") from error


class _Thrift:
    """A page's header: a struct in Thrift's compact protocol (parquet.thrift, PageHeader)."""

    def __init__(self, data: bytes) -> None:
        self._data, self.at = data, 0

    def struct(self) -> dict[int, int]:
        """Return the whole numbers in a struct by their field's number; what else is in it is passed over."""
        found: dict[int, int] = {}
        field = 0
        while head := self._byte():
            field = field + (head >> 4) if head >> 4 else self._integer()
            if head & 15 in (4, 5, 6):
                found[field] = self._integer()
            else:
                self._skip(head & 15)
        return found

    def _byte(self) -> int:
        self.at += 1
        return self._data[self.at - 1]

    def _varint(self) -> int:
        result = shift = 0
        while True:
            byte = self._byte()
            result |= (byte & 127) << shift
            if byte < 128:
                return result
            shift += 7

    def _integer(self) -> int:
        value = self._varint()
        return (value >> 1) ^ -(value & 1)

    def _skip(self, kind: int) -> None:
        if kind in (4, 5, 6):
            self._varint()
        elif kind == 8:  # a text
            size = self._varint()
            self.at += size
        elif kind in (9, 10):  # a list or a set
            head = self._byte()
            for _ in range(head >> 4 if head >> 4 < 15 else self._varint()):
                self._skip(head & 15)
        elif kind == 12:
            self.struct()
        else:  # true and false are in the kind itself; a byte; a float
            self.at += {3: 1, 7: 8}.get(kind, 0)


def _batch_rows(file: pq.ParquetFile) -> int:
    """Return how many rows to decode at a time, so that they stay in the budget as far as the metadata tells.

    A column of a row group decodes to its own bytes; with a dictionary every row may be as large as all of them.
    """
    groups = [file.metadata.row_group(group) for group in range(file.num_row_groups)]
    rows = _BATCH
    for column in (group.column(i) for group in groups for i in range(group.num_columns)):
        share = _BUDGET / max(column.total_uncompressed_size, 1)
        rows = min(rows, int(share if column.has_dictionary_page else share * _BATCH))
    return max(rows, _LEAST)


def longest_text(values: pa.Array) -> int:
    """Return the bytes of the longest text in an array, however deep."""
    if isinstance(values, pa.StructArray):
        return max((longest_text(field) for field in values.flatten()), default=0)
    if isinstance(values, pa.ListArray | pa.LargeListArray):
        return longest_text(values.flatten())
    if pa.types.is_string(values.type) or pa.types.is_large_string(values.type):
        return pc.max(pc.binary_length(values)).as_py() or 0
    return 0
