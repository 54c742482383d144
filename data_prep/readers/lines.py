"""Text files read line by line, plain or gzipped: every error names the file, the row (its line, 1-based) and the value.

Lines end at ``\\n`` (or ``\\r\\n``) and nowhere else: U+2028, U+0085 and their like are text, also inside JSON strings. A
UTF-8 byte order mark at the beginning is skipped. Blank lines are skipped and counted as "lines: blank". Refused are
text in another encoding, gzip data that is cut off or damaged, and a line of more than 64 MB.
"""

from __future__ import annotations

import csv
import gzip
import json
import math
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, cast

import orjson

from data_prep.readers.text import shown
from iranker_verl.errors import UserError

MAX_LINE = 64 << 20
BOM = b"\xef\xbb\xbf"
PEEK = 1 << 20
_BUFFER = 1 << 20
_GZIP = b"\x1f\x8b"
ParseHeader = Callable[[list[str], str], list[str]]
_NAMES = {"\t": "tabs", "|": "'|'", "::": "'::'", ",": "commas"}


def opened(path: Path) -> BinaryIO:
    """The file's bytes, unpacked where it is gzipped (its first bytes say so, whatever it is called)."""
    with path.open("rb") as file:
        packed = file.read(len(_GZIP)) == _GZIP
    if packed:
        return cast(BinaryIO, gzip.open(path))
    return path.open("rb", buffering=_BUFFER)


def lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """``(row, line)`` of each line, with its end. UserError for a file or line that cannot be read."""
    row = 0
    try:
        with opened(path) as file:
            while line := file.readline(MAX_LINE + 1):
                row += 1
                if len(line) > MAX_LINE:
                    raise UserError(
                        f"{path} row {row}: a line of more than {MAX_LINE >> 20} MB, beginning with "
                        f"{shown(line[:60].decode(errors='replace'))}; remove it, or fetch the file again"
                    )
                yield row, line.removeprefix(BOM) if row == 1 else line
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise UserError(f"{path}: gzip data cut off or damaged; {row} rows were readable; fetch it again") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error}); check the path") from error


def first_line(path: Path) -> str:
    """The first line that is not blank, as far as it can be read; "" where it cannot. A peek, to tell whose file it is."""
    try:
        with opened(path) as file:
            while line := file.readline(PEEK).removeprefix(BOM):
                if text := line.decode(errors="replace").strip():
                    return text
    except (OSError, EOFError, zlib.error):
        pass
    return ""


def rows(
    path: Path, separator: str, columns: int | None, dropped: Counter[str], encoding: str = "utf-8"
) -> Iterator[tuple[int, list[str]]]:
    """``(row, fields)`` of each line; ``columns`` is how many fields a line has (None: as many as the first one).

    Separated by commas, a file is CSV: fields may be quoted, and then hold commas, doubled quotes and line ends. A line
    is blank where all its fields are. UserError for a file without any other line, for bad quoting, and for a line with
    another number of fields (cut off, or separated by something else).
    """
    table = _quoted(path, encoding) if separator == "," else _split(path, separator, encoding)
    empty = True
    for row, fields in table:
        if not "".join(fields).strip():
            dropped["lines: blank"] += 1
            continue
        empty = False
        columns = columns or len(fields)
        if len(fields) != columns:
            raise UserError(
                f"{path} row {row}: {len(fields)} fields separated by {_NAMES[separator]}, {columns} expected, "
                f"in {shown(separator.join(fields))}; correct or remove the row, or fetch the file again"
            )
        yield row, fields
    if empty:
        raise UserError(f"{path}: the file is empty; fetch it again")


def _split(path: Path, separator: str, encoding: str) -> Iterator[tuple[int, list[str]]]:
    for row, line in lines(path):
        yield row, _text(line, path, row, encoding).rstrip("\r\n").split(separator)


def _quoted(path: Path, encoding: str) -> Iterator[tuple[int, list[str]]]:
    csv.field_size_limit(MAX_LINE)  # how far a quote that is never closed is followed
    table = csv.reader((_text(line, path, row, encoding) for row, line in lines(path)), strict=True)
    while True:
        row = table.line_num + 1
        try:
            fields = next(table)
        except StopIteration:
            return
        except csv.Error as error:
            reason = str(error).partition(" - ")[0]
            raise UserError(
                f"{path} row {row}: not well-formed CSV ({reason}); put fields with commas, quotes or line breaks in "
                "double quotes, and double the quotes inside"
            ) from error
        yield row, fields


def _text(line: bytes, path: Path, row: int, encoding: str) -> str:
    try:
        return line.decode(encoding)
    except UnicodeDecodeError as error:
        raise UserError(f"{path} row {row}: byte {error.start + 1} of the row is not {encoding} text") from error


def text_lines(path: Path) -> Iterator[tuple[int, str]]:
    """``(row, line)`` of each UTF-8 line without its end; blank ones, which say nothing, are passed over."""
    for row, line in lines(path):
        text = _text(line, path, row, "utf-8").rstrip("\r\n")
        if text.strip():
            yield row, text


def plain_names(fields: list[str], where: str) -> list[str]:
    """A header's fields are its names."""
    return [field.strip() for field in fields]


def header(path: Path, separator: str, parse: ParseHeader = plain_names) -> tuple[int, list[str]]:
    """``(row, names)`` of the first line that is not blank; ``parse(fields, "FILE row N")`` makes names of its fields."""
    row, fields = next(rows(path, separator, None, Counter()))
    return row, parse(fields, f"{path} row {row}")


def places(path: Path, names: list[str], columns: Sequence[Sequence[str]], required: int) -> list[int]:
    """Where each of ``columns`` stands, every one given by the names it may have; -1 for one that is absent.

    UserError where one of the first ``required`` is absent, or any is there twice.
    """
    found: list[int] = []
    for choices in columns:
        name = next((name for name in choices if name in names), None)
        if name is None and len(found) < required:
            raise UserError(f"{path}: no column {' or '.join(choices)}; its columns are {', '.join(names)}")
        if name is not None and names.count(name) > 1:
            raise UserError(f"{path}: the column {name} is there twice; rename or remove one")
        found.append(-1 if name is None else names.index(name))
    return found


def columns(
    path: Path,
    separator: str,
    wanted: Sequence[Sequence[str]],
    required: int,
    dropped: Counter[str],
    parse: ParseHeader = plain_names,
) -> Iterator[tuple[int, list[str]]]:
    """``(row, values)`` of a table with a header, in the order of ``wanted``; "" for an optional column that is absent.

    See :func:`places` for ``wanted`` and ``required``, :func:`header` for ``parse``.
    """
    _, names = header(path, separator, parse)
    found = places(path, names, wanted, required)
    table = rows(path, separator, len(names), dropped)
    next(table)
    for row, fields in table:
        yield row, [fields[place] if place >= 0 else "" for place in found]


def parse_json(line: bytes) -> Any:
    """One line of JSON. ValueError where it is none."""
    try:
        return orjson.loads(line)
    except orjson.JSONDecodeError:
        # Half an emoji, escaped, where somebody cut a text: it becomes a question mark. All else fails again.
        text = json.dumps(json.loads(line.decode()), ensure_ascii=False)
        return orjson.loads(text.encode(errors="replace"))


def records(
    path: Path, dropped: Counter[str], parse: Callable[[bytes], Any] = parse_json
) -> Iterator[tuple[int, dict[str, Any]]]:
    """``(row, object)`` of each line of a JSON lines file. UserError for a line that ``parse`` makes no object of."""
    empty = True
    for row, line in lines(path):
        if not line.strip():
            dropped["lines: blank"] += 1
            continue
        empty = False
        try:
            record = parse(line)
        except (ValueError, RecursionError):
            record = None
        if not isinstance(record, dict):
            text = shown(line[:200].decode(errors="replace").rstrip("\r\n"))
            raise UserError(f"{path} row {row}: not a JSON object, but {text}; correct or remove the row")
        yield row, record
    if empty:
        raise UserError(f"{path}: the file is empty; fetch it again")


def number(text: str, path: Path, row: int, column: str) -> float:
    """A finite number, or UserError."""
    try:
        value = math.nan if "_" in text else float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise UserError(f"{path} row {row}: {column} is {shown(text)}, not a number; correct or remove the row")
    return value


def identifier(value: Any, path: Path, row: int, column: str) -> str:
    """An id as text: a string that is not empty, or a whole number (in JSON). UserError for anything else."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str) or not value:
        what = "empty" if value in ("", None) else f"{shown(str(value))}, not a text"
        raise UserError(f"{path} row {row}: the {column} is {what}; correct or remove the row")
    return value
