"""``iranker report``: draw a run's page again, its tables for a paper, or several runs side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from iranker_verl.errors import UserError


def report(
    runs: Annotated[list[Path], typer.Argument(help="run folder with results.json; several with --compare")],
    compare: Annotated[
        bool, typer.Option("--compare", help="one page of several runs, the first is the reference")
    ] = False,
    out: Annotated[Path | None, typer.Option(help="with --compare: the page's file (default: compare.html)")] = None,
    system: Annotated[
        str | None, typer.Option(help="with --compare: the system of each run [default: after, else the model]")
    ] = None,
    against: Annotated[
        str | None, typer.Option(help="the system that all others are tested against [default: after, else the model]")
    ] = None,
    tables: Annotated[
        bool, typer.Option("--tables", help="also write tables.tex, tables.md and tables.csv there")
    ] = False,
) -> None:
    """Draw report.html of a run again, or put several runs side by side (--compare A B … --out FILE)."""
    if compare:
        if tables or against:
            raise UserError(f"{'--tables' if tables else '--against'} is of one run; leave it out with --compare")
        from iranker_verl.evaluation.report.compare import write_comparison

        print(write_comparison(runs, out or Path("compare.html"), system))
        return
    if len(runs) > 1:
        raise UserError(f"{len(runs)} run folders; to put them side by side, add --compare")
    if system is not None:
        raise UserError(
            "--system is of --compare; --against names the system that others are tested against in one run"
        )
    if out is not None:
        raise UserError("--out is of --compare; a run's report is report.html in its folder")
    from iranker_verl.evaluation.report.page import write_report, write_tables

    print(write_report(runs[0], against))
    for path in write_tables(runs[0], against) if tables else []:
        print(path)
