"""`iranker audit-reward`: what a reward function pays policies whose value is known, and the faults that it has."""

from __future__ import annotations

import json
import sys
from contextlib import redirect_stdout, suppress
from pathlib import Path
from typing import Annotated, Any

import typer

from iranker_verl.errors import NOT_JSON, UserError


def audit_reward(
    reward: Annotated[str, typer.Option(help="as verl names it: pkg://module[:function] or file.py[:function]")],
    data: Annotated[Path, typer.Option(help="folder of `iranker prepare`, or one of its files")],
    kwargs: Annotated[list[str] | None, typer.Option(help="reward_kwargs, key=value; again for more")] = None,
    more: Annotated[list[str] | None, typer.Argument(metavar="KEY=VALUE", help="more reward_kwargs")] = None,
    answers: Annotated[
        str | None, typer.Option(help="exclusion or ranking: what an answer is (default: by the rows of the data)")
    ] = None,
    with_prompt: Annotated[
        bool, typer.Option("--with-prompt", help="give it prompt + response, as early verl did")
    ] = False,
    parser: Annotated[str | None, typer.Option(help="what reads answers at test time, named like --reward")] = None,
    requests: Annotated[
        Path | None, typer.Option(help="log of a test run: JSON lines of task, step, start and end (s)")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="tasks that the policies answer; all rows are examined")] = 100,
    seed: Annotated[int, typer.Option()] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="for machines")] = False,
) -> None:
    """Audit a reward function over prepared data. Exit code 1 where a fault is found."""
    from data_prep.schema import SPLITS, read_rows
    from iranker_verl.audit.audit import audit, load_function
    from iranker_verl.audit.policies import tasks_of

    if answers not in (None, "exclusion", "ranking"):
        raise UserError(f"--answers {answers}: exclusion or ranking")
    paths = [data] if data.is_file() else [p for split in SPLITS if (p := data / f"{split}.parquet").is_file()]
    rows: list[dict[str, Any]] = []
    for path in paths or [data / f"{SPLITS[0]}.parquet"]:
        of_file = list(read_rows(path))
        try:
            tasks_of(of_file)
        except ValueError as error:
            raise UserError(f"{path} {error}; `iranker validate` looks at every row") from error
        rows += of_file
    direct = any((row.get("extra_info") or {}).get("row_kind") == "direct" for row in rows)
    try:
        with redirect_stdout(sys.stderr):  # what a reward function prints is not part of the report
            report = audit(
                load_function(reward),
                rows,
                reward_kwargs=_settings([*(kwargs or []), *(more or [])]),
                ranking=answers == "ranking" or (answers is None and direct),
                sees_prompt=with_prompt,
                parser=load_function(parser) if parser else None,
                requests=_log(requests) if requests else None,
                limit=limit,
                seed=seed,
            )
    except ValueError as error:
        raise UserError(f"audit of {reward} on {data}: {error}") from error
    if as_json:
        print(json.dumps(report.as_dict(), indent=2))
    else:
        _show(report, reward, data)
    if report.flagged:
        raise typer.Exit(1)


def _settings(pairs: list[str]) -> dict[str, Any]:
    """Return ``key=value`` pairs, with values in JSON, or numbers as in Python (``.05``); anything else is a text."""
    settings: dict[str, Any] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key.isidentifier():
            raise UserError(f"--kwargs {pair}: give key=value, as in kind=graded")
        settings[key] = value
        for read in (float, json.loads):  # the later one counts: 2 is an int
            with suppress(*NOT_JSON):
                settings[key] = read(value)
    return settings


def _log(path: Path) -> list[dict[str, Any]]:
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not a readable text file ({error})") from error
    entries = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
            entries.append({"task": entry["task"], "step": int(entry["step"])})
            entries[-1] |= {field: float(entry[field]) for field in ("start", "end")}
        except (*NOT_JSON, KeyError, TypeError) as error:
            raise UserError(
                f"{path} line {number}: not an object with task, step, start and end ({type(error).__name__}: {error})"
            ) from error
    return entries


def _show(report: Any, reward: str, data: Path) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console()
    paid = Table("policy", "mean", "lowest", "highest", title=f"What {reward} pays", title_justify="left")
    for row in report.paid:
        paid.add_row(row.policy, *(f"{value:.3f}" for value in (row.mean, row.low, row.high)))
    verdicts = Table("verdict", "", "seen", title=f"On {report.tasks} tasks of {data}", title_justify="left")
    words = {True: "[bold red]flagged[/]", False: "[green]clean[/]", None: "[dim]not examined[/]"}
    for verdict in report.verdicts:
        verdicts.add_row(verdict.name, words[verdict.flagged], escape(verdict.evidence))
    console.print(paid, verdicts, f"Answers are written as {escape(report.dialect)}", sep="\n")
    if report.flagged:
        print(f"{len(report.flagged)} flagged: {', '.join(report.flagged)}", file=sys.stderr)
