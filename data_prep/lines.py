"""Text tables read line by line: every error names the file, the row (its line, 1-based) and the value."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from iranker_verl.errors import UserError

_NAMES = {"\t": "tabs", "|": "'|'", "::": "'::'"}


def rows(
    path: Path, separator: str, columns: int | None, dropped: Counter[str], encoding: str = "utf-8"
) -> Iterator[tuple[int, list[str]]]:
    """``(row, fields)`` of each line; ``columns`` is how many fields a line has (None: as many as the first one).

    Blank lines are skipped and counted in ``dropped``. UserError for a file that is missing, unreadable, in another
    encoding or empty, and for a line with another number of fields (cut off, or separated by something else).
    """
    empty = True
    try:
        with path.open(encoding=encoding, newline="\n") as file:
            for row, line in enumerate(file, 1):
                line = line.rstrip("\r\n")
                if not line.strip():
                    dropped["lines: blank"] += 1
                    continue
                empty = False
                fields = line.split(separator)
                columns = columns or len(fields)
                if len(fields) != columns:
                    raise UserError(
                        f"{path} row {row}: {len(fields)} fields separated by {_NAMES[separator]}, {columns} expected, "
                        f"in {shown(line)}; correct or remove the row, or fetch the file again"
                    )
                yield row, fields
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: byte {error.start} is not {encoding} text; fetch it again") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); check the path") from error
    if empty:
        raise UserError(f"{path}: the file is empty; fetch it again")


def number(text: str, path: Path, row: int, column: str) -> float:
    """A finite number, or UserError."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise UserError(f"{path} row {row}: {column} is {shown(text)}, not a number; correct or remove the row")
    return value


def shown(text: str) -> str:
    """A value as an error message shows it: quoted, on one line, 60 characters at most."""
    return repr(text if len(text) <= 60 else text[:57] + "...")
