"""Parquet files, streamed: every error names the file and, as far as it is known, the row (1-based)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from data_prep.readers import opened
from data_prep.readers.opened import BUFFER, check_regular
from iranker_verl.errors import UserError, first_line

_BATCH = 1024
_LEAST = 4
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
        try:
            for batch in file.iter_batches(_batch_rows(file), row_groups=groups, columns=list(columns)):
                for column in batch.columns:
                    if _longest(column) > opened.MAX_TEXT:
                        raise UserError(
                            f"{path} row {row} to {row + batch.num_rows - 1}: a text of more than "
                            f"{opened.MAX_TEXT >> 20} MB; remove it, or fetch the file again"
                        )
                yield row, batch
                row += batch.num_rows
        except (pa.ArrowException, OSError) as error:
            raise UserError(f"{path}: unreadable after row {row - 1} ({first_line(error)}); fetch it again") from error


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


def _longest(values: pa.Array) -> int:
    """Return the bytes of the longest text in an array, however deep."""
    if isinstance(values, pa.StructArray):
        return max((_longest(field) for field in values.flatten()), default=0)
    if isinstance(values, pa.ListArray | pa.LargeListArray):
        return _longest(values.flatten())
    if pa.types.is_string(values.type) or pa.types.is_large_string(values.type):
        return pc.max(pc.binary_length(values)).as_py() or 0
    return 0
