"""Lines of TREC's run and qrels files, and of BEIR's qrels: columns separated by white space, plain or gzipped."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from data_prep.readers.lines import text_lines
from data_prep.readers.text import shown
from iranker_verl.errors import UserError

RUN_COLUMNS = ("query", "Q0", "document", "rank", "score", "tag")
QRELS_COLUMNS = ("query", "iteration", "document", "grade")
BEIR_COLUMNS = ("query-id", "corpus-id", "score")  # qrels with this header


def run_lines(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield the row number and the fields of :data:`RUN_COLUMNS`. Raise UserError for a line of other columns."""
    return _rows(path, RUN_COLUMNS)


def qrels_lines(path: Path) -> Iterator[tuple[int, tuple[str, str, str]]]:
    """Yield ``(row, (query, document, grade))`` of TREC's or BEIR's form. Raise UserError for a line of other columns."""
    for row, fields in _rows(path, QRELS_COLUMNS, BEIR_COLUMNS):
        yield row, (fields[0], fields[-2], fields[-1])


def _rows(path: Path, columns: Sequence[str], header: Sequence[str] = ()) -> Iterator[tuple[int, list[str]]]:
    """Yield row numbers and fields of ``columns``; of those of ``header`` where the first line has these names."""
    empty, separator = True, None
    for row, line in text_lines(path):
        fields = line.split(separator)
        if empty and header and _is_header(fields, header):
            columns, separator = header, "\t" if "\t" in line else None
            empty = False
            continue
        if len(fields) != len(columns):
            under = f", or BEIR's three under the header {' '.join(header)}" if header and columns is not header else ""
            raise UserError(
                f"{path} row {row}: {len(fields)} columns, {len(columns)} expected ({' '.join(columns)}{under}), "
                f"in {shown(' '.join(fields))}; correct or remove the row"
            )
        empty = False
        yield row, [field.strip() for field in fields]
    if empty:
        raise UserError(f"{path}: the file is empty; fetch it again")


def _is_header(fields: Sequence[str], header: Sequence[str]) -> bool:
    return [f.strip("\"' ").lower().replace("_", "-") for f in fields] == list(header)
