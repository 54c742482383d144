"""What is a file? One function detects form, columns and delimiter; sources choose by them, and readers use them.

Nothing is refused here. A file that nothing can be told of has no ``columns``, and ``problem`` says why, so that discovery
names it as not read.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from data_prep.readers import opened
from data_prep.readers.documents import json_form
from data_prep.readers.filenames import suffix_of
from data_prep.readers.lines import column_key, first_lines, shown_names
from data_prep.readers.opened import TooLongError, check_regular, too_long
from data_prep.readers.parquet import parquet_file
from data_prep.readers.text import shown
from iranker_verl.errors import UserError, first_line

PARQUET, ARROW = "parquet", "arrow"
TABLE = "table"
JSON_SUFFIXES = (".json", ".jsonl", ".ndjson")
_DATA = (".csv", ".tsv", ".parquet", *JSON_SUFFIXES)
_SHEETS = (".xlsx", ".xlsm", ".ods", ".numbers")
_PACKED = {b"PK\x03\x04": "zip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd", b"7z\xbc\xaf": "7z"}


@dataclass(frozen=True)
class RawFile:
    """A raw file and what it is.

    ``form`` is ``parquet``, ``arrow``, one of JSON's (:mod:`data_prep.readers.documents`), ``table`` for all other text, or
    "" for what cannot be read. ``columns`` are a table's header, or the names of the first object. ``rows`` are a table's
    first rows as fields, ``first`` is the first JSON value, ``start`` a text's first line that is not blank. One with a ``problem`` is
    ``broken`` where its name is that of data, so that it must not be ignored.
    """

    path: Path
    form: str = ""
    columns: tuple[str, ...] = ()
    separator: str = ""
    rows: tuple[tuple[str, ...], ...] = ()
    first: Any = None
    start: bytes = b""
    problem: str = ""
    broken: bool = False
    keys: frozenset[str] = field(default=frozenset(), compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "keys", frozenset(map(column_key, self.columns)))

    @property
    def name(self) -> str:
        """The file's name without ``.gz``."""
        return self.path.stem if self.path.suffix.lower() == ".gz" else self.path.name

    @property
    def suffix(self) -> str:
        """The suffix, see :func:`~data_prep.readers.filenames.suffix_of`."""
        return suffix_of(self.path)

    @property
    def is_json(self) -> bool:
        """Whether it is JSON in any form."""
        return self.form not in (PARQUET, ARROW, TABLE, "")

    def has(self, *names: str) -> bool:
        """Return whether all of these are among the columns, whatever their case."""
        return self.keys >= {column_key(name) for name in names}

    def unknown(self) -> str:
        """Return why it is of no format that is known."""
        if self.problem:
            return self.problem.removeprefix(str(self.path)).lstrip(": ")
        if self.form == TABLE and b"\r" in self.start.rstrip(b"\r\n"):
            return "its lines end in carriage returns alone, as on old Macs; save it with line feeds"
        if self.form == "columns":
            return (
                "one JSON object of columns, as pandas writes it; write an object a row (orient='records', lines=True)"
            )
        if self.is_json and not self.columns:
            start = shown(self.start[:200].decode(errors="replace").strip())
            return f"no JSON objects, but {start}"
        if self.columns and (self.form != TABLE or self.suffix in (".csv", ".tsv")):
            return f"of no format that is known; it has {shown_names(self.columns)}"
        return "of no format that is known"


@dataclass(frozen=True)
class NotRead:
    """A file that a source recognises and does not read, and why."""

    path: Path
    reason: str


def sniff(path: Path) -> RawFile:
    """Return what a file is, by its bytes and, between JSON and tables, by its suffix."""
    suffix = suffix_of(path)
    try:
        check_regular(path)
        with path.open("rb") as file:
            magic = file.read(8)
        if packed := next((name for start, name in _PACKED.items() if magic.startswith(start)), ""):
            advice = "a spreadsheet; save it as CSV" if suffix in _SHEETS else f"packed as {packed}; unpack it"
            return RawFile(path, problem=advice)
        if suffix == ".parquet" or magic.startswith(b"PAR1"):
            with parquet_file(path) as parquet:
                return RawFile(path, PARQUET, tuple(parquet.schema_arrow.names))
        if suffix == ".arrow":
            with arrow_stream(path) as reader:
                return RawFile(path, ARROW, tuple(reader.schema.names))
        lines = first_lines(path)
        if suffix in JSON_SUFFIXES:
            form, first = json_form(path)
            names = tuple(first) if isinstance(first, dict) else ()
            return RawFile(path, form, names, first=first, start=lines[0] if lines else b"")
        return _table(path, suffix, lines)
    except UserError as error:
        foreign = isinstance(error, TooLongError) and suffix == ".json"  # one large object, such as a results file
        return RawFile(path, problem=str(error), broken=suffix in _DATA and path.is_file() and not foreign)
    except OSError as error:
        return RawFile(path, problem=f"{path}: cannot be read ({error.strerror}); check the path")


def arrow_stream(path: Path) -> pa.RecordBatchReader:
    """Return a reader of Arrow as ``datasets`` saves it, a stream. Raise UserError for another file."""
    try:
        return pa.ipc.open_stream(pa.memory_map(str(path)))
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{path}: not a whole Arrow file ({first_line(error)}); fetch it again") from error


def _table(path: Path, suffix: str, lines: list[bytes]) -> RawFile:
    """Return a text as a table; its header is the first row that is neither blank nor Excel's ``sep=``."""
    if lines and len(lines[0]) >= opened.MAX_TEXT:
        raise too_long(path, 1, "a line", lines[0])
    texts = [line.decode("utf-8", "replace") for line in lines]
    if texts and texts[0].strip().lower()[:4] == "sep=":
        texts = texts[1:]
    head = texts[0] if texts else ""
    tried = (",", "\t", ";", "|") if suffix == ".csv" else ("\t", ",", ";", "|")
    separator = next((one for one in tried if one in head), tried[0])
    rows = tuple(tuple(field.strip(' \t"') for field in row) for row in _fields(texts, separator))
    return RawFile(path, TABLE, rows[0] if rows else (), separator, rows, start=lines[0] if lines else b"")


def _fields(texts: list[str], separator: str) -> Iterator[list[str]]:
    """Yield rows of fields, as far as they can be parsed."""
    csv.field_size_limit(opened.MAX_TEXT)
    try:
        yield from csv.reader(texts, delimiter=separator, skipinitialspace=True)
    except csv.Error:
        return
