r"""Text files read line by line, plain or gzipped: every error names the file, the row (its line, 1-based) and the value.

Lines end at ``\n`` (or ``\r\n``) and nowhere else: U+2028, U+0085 and their like are text, also inside JSON strings.
Blank lines are skipped and counted as "lines: blank". Encodings and the limit of a line are those of
:mod:`data_prep.readers.opened`.
"""

from __future__ import annotations

import csv
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from data_prep.readers import opened
from data_prep.readers.opened import open_text, reading, too_long
from data_prep.readers.text import shown
from iranker_verl.errors import UserError
from iranker_verl.ranking.task import RELEVANCE_LIMIT
from iranker_verl.ranking.text import one_line

ParseHeader = Callable[[list[str], str], list[str]]
NAN = math.nan
_LOOKED_AT = 20  # lines, to tell what a file is
_MISSING = {"", "nan", "null", "none", "na", "n/a"}
NO_IDS = ("", "nan", "NaN", "<NA>", "NaT")
_TRUTH = {"true": 1.0, "false": 0.0}
SEPARATORS = {"\t": "tabs", "|": "'|'", "::": "'::'", ",": "commas", ";": "semicolons"}
_EXCEL = re.compile(r"sep=.\r?\n?", re.IGNORECASE)  # a first line by which Excel tells the separator


def lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yield ``(row, line)`` of each line, with its end. Raise UserError for a file or line that cannot be read."""
    blank = 0
    with reading(path) as at, open_text(path) as file:
        while line := file.readline(opened.MAX_TEXT + 1):
            at.row += 1
            blank = blank + len(line) if line.isspace() else 0
            if len(line) > opened.MAX_TEXT:
                raise too_long(path, at.row, "a line", line)
            if blank > opened.MAX_TEXT:
                raise too_long(path, at.row, "blank lines", line)
            yield at.row, line


def first_lines(path: Path) -> list[bytes]:
    """Return some lines that are not blank, cut short where one is too long, as far as they can be read.

    Reading the file tells what is wrong. Raise UserError where nothing can be read.
    """
    found: list[bytes] = []
    try:
        with reading(path), open_text(path) as file:
            while len(found) < _LOOKED_AT and sum(map(len, found)) <= opened.MAX_TEXT:
                line = file.readline(opened.MAX_TEXT)
                if line.strip():
                    found.append(line)
                if not line:
                    break
    except UserError:
        if not found:
            raise
    return found


def table_rows(
    path: Path, separator: str, columns: int | None, dropped: Counter[str], encoding: str = "utf-8"
) -> Iterator[tuple[int, list[str]]]:
    """Yield ``(row, fields)`` of each line; ``columns`` is how many fields a line has (None: as many as the first one).

    Separated by commas, a file is CSV: fields may be quoted, and then hold commas, doubled quotes and line ends; spaces
    after commas, and a first line ``sep=,``, are skipped. A line is blank where all its fields are. Raise UserError for a
    file without any other line, for bad quoting, and for a line with another number of fields.
    """
    table = _quoted_rows(path, encoding) if separator == "," else _split_rows(path, separator, encoding)
    empty = True
    for row, fields in table:
        if not "".join(fields).strip():
            dropped["lines: blank"] += 1
            continue
        empty = False
        columns = columns or len(fields)
        if len(fields) != columns:
            raise UserError(
                f"{path} row {row}: {len(fields)} fields separated by {SEPARATORS[separator]}, {columns} expected, "
                f"in {shown(separator.join(fields))}; correct or remove the row, or fetch the file again"
            )
        yield row, fields
    if empty:
        raise UserError(f"{path}: the file is empty; fetch it again")


def _split_rows(path: Path, separator: str, encoding: str) -> Iterator[tuple[int, list[str]]]:
    for row, line in lines(path):
        yield row, _decoded(line, path, row, encoding).rstrip("\r\n").split(separator)


def _quoted_rows(path: Path, encoding: str) -> Iterator[tuple[int, list[str]]]:
    csv.field_size_limit(opened.MAX_TEXT)  # how far a quote that is never closed is followed
    begun, size = 1, 0

    def texts() -> Iterator[str]:
        nonlocal size
        for row, line in lines(path):
            size += len(line)
            if size > opened.MAX_TEXT:
                raise UserError(
                    f"{path} row {begun}: not well-formed CSV (a record of more than {opened.MAX_TEXT >> 20} MB; is a quote "
                    "not closed?); double the quotes inside of fields"
                )
            text = _decoded(line, path, row, encoding)
            yield "\n" if row == 1 and _EXCEL.fullmatch(text) else text

    table = csv.reader(texts(), strict=True, skipinitialspace=True)
    while True:
        begun, size = table.line_num + 1, 0
        try:
            fields = next(table)
        except StopIteration:
            return
        except csv.Error as error:
            reason = str(error).partition(" - ")[0]
            raise UserError(
                f"{path} row {begun}: not well-formed CSV ({reason}); put fields with commas, quotes or line breaks in "
                "double quotes, and double the quotes inside"
            ) from error
        yield begun, fields


def _decoded(line: bytes, path: Path, row: int, encoding: str) -> str:
    try:
        return line.decode(encoding)
    except UnicodeDecodeError as error:
        raise UserError(f"{path} row {row}: byte {error.start + 1} of the row is not {encoding} text") from error


def text_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield ``(row, line)`` of each UTF-8 line without its end; blank ones are skipped."""
    for row, line in lines(path):
        text = _decoded(line, path, row, "utf-8").rstrip("\r\n")
        if text.strip():
            yield row, text


def plain_names(fields: list[str], where: str) -> list[str]:
    """Return a header's fields as its names."""
    return [field.strip().strip('"').strip() for field in fields]


def column_key(name: str) -> str:
    """Return what makes two column names one: case, quotes and blanks, also of no width, do not tell them apart."""
    return re.sub(r"\s+", "_", re.sub(r"""^[\s"'\u200b\ufeff]+|[\s"'\u200b\ufeff]+$""", "", name)).casefold()


def table_header(path: Path, separator: str, parse: ParseHeader = plain_names) -> tuple[int, list[str]]:
    """Return ``(row, names)`` of the first line that is not blank; ``parse(fields, "FILE row N")`` makes the names."""
    row, fields = next(table_rows(path, separator, None, Counter()))
    return row, parse(fields, f"{path} row {row}")


def places(path: Path, names: list[str], columns: Sequence[Sequence[str]], required: int) -> list[int]:
    """Return the index of each of ``columns``, given by the names that each may have; -1 for one that is absent.

    A name that is there as it is written goes before one that differs in case or blanks. Raise UserError where one of the
    first ``required`` is absent, or any occurs twice.
    """
    keys = [column_key(name) for name in names]
    found: list[int] = []
    for choices in columns:
        written = next((name for name in choices if name in names), None)
        alike = next((column_key(name) for name in choices if column_key(name) in keys), None)
        if alike is None and len(found) < required:
            raise UserError(f"{path}: no column {' or '.join(choices)}; its columns are {shown_names(names)}")
        known, name = (names, written) if written is not None else (keys, alike)
        if name is not None and known.count(name) > 1:
            raise UserError(f"{path}: the column {name} occurs twice; rename or remove one")
        found.append(-1 if name is None else known.index(name))
    return found


def check_columns(wanted: Iterable[str], names: Iterable[str], path: Path, hint: str) -> None:
    """Raise UserError where one of the columns is not among the names; ``hint`` describes the file's form."""
    keys = {column_key(name) for name in names}
    if missing := [column for column in wanted if column_key(column) not in keys]:
        raise UserError(f"{path}: no column {missing[0]!r}; {hint}, separated by commas")


def shown_names(names: Sequence[str]) -> str:
    """Return column names as an error message shows them: the first dozen, each cut short and on one line."""
    short = [name if len(name) <= 60 else name[:57] + "..." for name in map(one_line, names[:12])]
    return ", ".join(short) + ", …" * (len(names) > 12)


def table_columns(
    path: Path,
    separator: str,
    wanted: Sequence[Sequence[str]],
    required: int,
    dropped: Counter[str],
    parse: ParseHeader = plain_names,
) -> Iterator[tuple[int, list[str]]]:
    """Yield ``(row, values)`` of a table with a header, in the order of ``wanted``; "" for an optional column that is absent.

    See :func:`places` for ``wanted`` and ``required``, :func:`table_header` for ``parse``.
    """
    _, names = table_header(path, separator, parse)
    found = places(path, names, wanted, required)
    table = table_rows(path, separator, len(names), dropped)
    next(table)
    for row, fields in table:
        yield row, [fields[place] if place >= 0 else "" for place in found]


def number(given: object, path: Path, row: int, column: str) -> float:
    """Return a finite number, or raise UserError."""
    text = "NaN" if isinstance(given, float) and math.isnan(given) else str(given)
    try:
        value = math.nan if "_" in text else float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise UserError(f"{path} row {row}: {column} is {shown(text)}, not a number; correct or remove the row")
    return value


def limited_number(given: object, path: Path, row: int, column: str) -> float:
    """Return a number that rewards and evaluation can take, or raise UserError."""
    value = number(given, path, row, column)
    if not abs(value) < RELEVANCE_LIMIT:
        raise UserError(f"{path} row {row}: {column} is {value:g}; it has to be below {RELEVANCE_LIMIT:g}")
    return value


def optional_number(given: object, path: Path, row: int, column: str, least: float = -math.inf) -> float:
    """Return a :func:`limited_number`, true and false as 1 and 0, NaN where it is missing. Raise UserError below ``least``."""
    text = "" if given is None else str(given).strip()
    if text.casefold() in _MISSING:
        return NAN
    value = limited_number(_TRUTH.get(text.casefold(), text), path, row, column)
    if value < least:
        raise UserError(f"{path} row {row}: {column} is {shown(text)}, below {least:g}; correct or remove the row")
    return value


def plain_text(value: object, where: str, column: str) -> str:
    """Return a text, or raise UserError; ``where`` is file and row."""
    if not isinstance(value, str):
        raise UserError(f"{where}: {column} is {shown(str(value))}, not a text; correct or remove the row")
    return value


def identifier(value: Any, path: Path, row: int, column: str) -> str:
    """Return an id as text: a string, or a whole number (in JSON). Raise UserError for anything else, and for :data:`NO_IDS`."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str) or value in NO_IDS:
        what = "empty" if value in ("", None) else f"{shown(str(value))}, not a text"
        if isinstance(value, str) and value:
            what = f"{shown(value)}, a missing value as pandas writes it"
        raise UserError(f"{path} row {row}: the {column} is {what}; correct or remove the row")
    return value
