"""Tables of a user's own, CSV or JSON (docs/own-data.md), told apart by their columns and read alike."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from data_prep.readers.documents import json_records
from data_prep.readers.lines import identifier, plain_text, shown_names, table_columns
from data_prep.readers.sniff import TABLE, sniff
from data_prep.readers.text import shown
from iranker_verl.errors import UserError

SIDES = ("train", "test")


def own_rows(
    path: Path, wanted: Sequence[str], required: int, dropped: Counter[str]
) -> Iterator[tuple[int, list[Any]]]:
    """Yield ``(row, values)`` in the order of ``wanted``; "" for null, and for a column that is absent.

    Raise UserError where one of the first ``required`` is absent: from the header of a CSV file, or from an object.
    """
    if sniff(path).form == TABLE:
        yield from table_columns(path, ",", [(name,) for name in wanted], required, dropped)
        return
    for row, record in json_records(path, dropped):
        if missing := [name for name in wanted[:required] if name not in record]:
            raise UserError(f"{path} row {row}: no {missing[0]}; it has {shown_names([*record])}")
        yield row, ["" if record.get(name) is None else record[name] for name in wanted]


def text(value: Any, path: Path, row: int, column: str) -> str:
    """Return a text, or the digits of a whole number. Raise UserError for anything else that JSON can hold."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return plain_text(value, f"{path} row {row}", column)


def identified(value: Any, path: Path, row: int, column: str) -> str:
    """Return an optional id, "" where it is missing. Raise UserError for what is no id."""
    return "" if value in ("", None) else identifier(value, path, row, column)


class Side:
    """The side of the split that rows are on, by a column ``split``: for all of them, or for none."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._first: tuple[int, Any] | None = None

    def __call__(self, value: Any, row: int) -> str | None:
        """Return ``train``, ``test``, or None where the file decides nothing. Raise UserError for anything else."""
        if value not in ("", *SIDES):
            raise UserError(f"{self._path} row {row}: split is {shown(str(value))}; write train or test")
        self._first = self._first or (row, value)
        if (value == "") != (self._first[1] == ""):
            raise UserError(
                f"{self._path} row {row}: split is {shown(value)}, but {shown(self._first[1])} in row {self._first[0]}; "
                "write train or test in every row, or in none"
            )
        return value or None
