"""Tables on the console, for more than one verb."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

Part = tuple[str, "Table", str]  # a title, a table, a note below it


def console() -> Console:
    """Return a console that prints texts as they are."""
    from rich.console import Console

    return Console(markup=False, emoji=False, highlight=False)  # texts are texts


def table(*columns: str, left: int = 1) -> Table:
    """Return an empty table; the first ``left`` columns are texts, the others numbers."""
    from rich.table import Table

    made = Table(box=None, pad_edge=False)
    for i, column in enumerate(columns):
        made.add_column(column, justify="left" if i < left else "right")
    return made


def show(parts: Iterable[Part]) -> None:
    """Print tables with their titles and notes."""
    terminal = console()
    for title, shown, note in parts:
        terminal.print(title, style="bold")
        terminal.print(shown)
        terminal.print(f"{note}\n" if note else "", style="dim")


def checks_part(checks: Iterable[dict[str, Any]]) -> Part:
    """Return what :func:`data_prep.checks.folder.check_folder` found."""
    made = table("check", "", "looked at", "finding")
    made.columns[3].justify = "left"
    for one in checks:
        made.add_row(one["name"], "ok" if one["ok"] else "FAILS", f"{one['counted']:,}", one["detail"])
    return "Checks", made, ""
