"""A table of texts, which the page, LaTeX and Markdown show alike."""

from __future__ import annotations

from dataclasses import dataclass

# Row kinds: a heading over the rows that follow, the system that the table is about, what others published.
GROUP, OURS, PUBLISHED = "group", "ours", "published"


@dataclass(frozen=True)
class Row:
    """One text a column. Of a :data:`GROUP` row only the first is shown."""

    cells: tuple[str, ...]
    kind: str = ""


@dataclass(frozen=True)
class Table:
    """A table of texts. ``left`` columns are texts and the others numbers; ``note`` says what the numbers are."""

    name: str
    title: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...] = ()
    note: str = ""
    left: int = 1


def row(*cells: str, kind: str = "") -> Row:
    """Return a row of these cells."""
    return Row(cells, kind)
