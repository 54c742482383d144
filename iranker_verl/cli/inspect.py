"""``iranker inspect`` and ``iranker validate``: what is in prepared data, and whether a Parquet file is fit for training."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from iranker_verl.cli.tables import Part, checks_part, console, show, table
from iranker_verl.errors import UserError

if TYPE_CHECKING:
    from rich.console import Console

    from data_prep.card.lengths import CountTokens
    from data_prep.checks.validate import Report


def inspect(
    folder: Annotated[Path, typer.Argument(help="folder of `iranker prepare`")],
    tokenizer: Annotated[
        Path | None, typer.Option(help="model folder whose tokenizer measures prompts (default: characters)")
    ] = None,
    max_prompt_length: Annotated[
        int | None, typer.Option(min=1, help="the recipe's limit, in tokens (needs --tokenizer)")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="the data card [default: card.html in the folder]; its numbers go beside it, as JSON"),
    ] = None,
) -> None:
    """Show numbers and figures of prepared data, on the console and as an HTML data card."""
    from data_prep.card.card import inspect as look
    from data_prep.card.card import write_card

    if max_prompt_length is not None and tokenizer is None:
        raise UserError("--max-prompt-length is in tokens; give --tokenizer MODEL_FOLDER too")
    content = look(folder, _counter(tokenizer), max_prompt_length)
    path = out or folder / "card.html"
    beside = write_card(path, content)
    show(_tables(content))
    print(f"{path}\n{beside}")


def validate(
    files: Annotated[list[Path], typer.Argument(help="Parquet files, or folders of some")],
    template: Annotated[
        str | None, typer.Option(help="an id or a .yaml file (default: the one that a row names)")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="look at this many rows of each file (default: all)")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="for machines")] = False,
) -> None:
    """Look at every row of a Parquet file for verl, ours or another's; exit code 1 where there are errors."""
    from data_prep.checks.validate import validate as look
    from iranker_verl.ranking.templates import load

    chosen = load(template) if template else None
    reports = [look(path, chosen, limit) for path in _parquet(files)]
    if as_json:
        print(json.dumps([_as_json(report) for report in reports], indent=2, ensure_ascii=False))
    else:
        terminal = console()
        for report in reports:
            _print(report, terminal)
    if not all(report.ok for report in reports):
        raise typer.Exit(1)


def _counter(tokenizer: Path | None) -> CountTokens | None:
    if tokenizer is None:
        return None
    from iranker_verl.inference.engine import ChatTokenizer

    encode = ChatTokenizer(tokenizer).encode

    def count(messages: list[dict[str, str]]) -> int:
        try:
            return len(encode(messages))
        except Exception as error:  # whatever a chat template refuses, e.g. a system message
            reason = next(iter(str(error).splitlines()), type(error).__name__)
            raise UserError(f"{tokenizer}: its chat template does not take these prompts ({reason})") from error

    return count


# --------------------------------------------------------------------------------------------------------------- inspect


def _tables(content: dict[str, Any]) -> Iterator[Part]:
    yield _datasets(content["datasets"])
    yield _lengths(content["lengths"])
    if content["popularity"]:
        yield _popularity(content["popularity"])
    if content["routers"]:
        yield _routers(content["routers"])
    if any(found["dropped"] for found in content["datasets"].values()):
        yield _dropped(content["datasets"])
    yield checks_part(content["checks"])


def _datasets(found: dict[str, Any]) -> Part:
    shown = table("dataset", "tasks train", "test", "rows train", "test", "candidates", "context", "candidate")
    for name, one in found.items():
        numbers = [one[what][split] for what in ("tasks", "rows") for split in ("train", "test")]
        spreads = (one["candidates"], one["characters"]["context"], one["characters"]["candidates"])
        shown.add_row(name, *(f"{number:,}" for number in numbers + [spread.get("p50", 0) for spread in spreads]))
    return "Datasets", shown, "the last three are medians, of texts in characters"


def _lengths(found: dict[str, Any]) -> Part:
    shown = table("split", "counted", "median", "95 %", "longest")
    for split, one in found["splits"].items():
        if "n" in one:
            shown.add_row(split, *(f"{one[key]:,}" for key in ("n", "p50", "p95", "max")))
    note = ""
    if found["longest"]:
        note = "longest: {length:,}, row {row} of {file}".format(**found["longest"])
        if found["limit"] is not None:
            note += f"; over the limit of {found['limit']:,}: {found['over']:,} of the {found['counted']:,} counted"
    return f"Prompts, in {found['unit']}", shown, note


def _popularity(found: dict[str, Any]) -> Part:
    shown = table("dataset", "items", "Gini positives", "negatives", "top 10 % positives", "negatives", "AUC")
    for name, one in found.items():
        both = [one["positives"], one["negatives"]]
        gini = [f"{spread['gini']:.2f}" if spread else "–" for spread in both]
        top = [f"{spread['top']['10%']:.0%}" if spread else "–" for spread in both]
        shown.add_row(name, f"{one['items']:,}", *gini, *top, f"{one['auc']:.2f}" if one["auc"] is not None else "–")
    return "Popularity", shown, "AUC: how far popularity in training tells a test row's positive; 0.5: not at all"


def _routers(found: dict[str, Any]) -> Part:
    shown = table("LLM", *found)
    shares: dict[str, dict[str, float]] = {}
    for name, llms in found.items():
        total = sum(one["train"] + one["test"] for one in llms) or 1
        for one in llms:
            shares.setdefault(one["llm"], {})[name] = (one["train"] + one["test"]) / total
    for llm, of in shares.items():
        shown.add_row(llm, *(f"{of[name]:.1%}" if name in of else "–" for name in found))
    return "How often each LLM is the best", shown, ""


def _dropped(datasets: dict[str, Any]) -> Part:
    shown = table("dataset", "why", "number", "share", left=2)
    for name, found in datasets.items():
        for reason, count, share in found["dropped"]:
            shown.add_row(name, reason, f"{count:,}", f"{share:.1%}" if share is not None else "")
    return "Left out", shown, "shares are of the users or queries that could have become a task"


# -------------------------------------------------------------------------------------------------------------- validate


def _parquet(paths: list[Path]) -> Iterator[Path]:
    for path in paths:
        if not path.is_dir():
            yield path
        elif found := sorted(path.glob("*.parquet")):
            yield from found
        else:
            raise UserError(f"{path}: no Parquet file (*.parquet) in this folder; give a file")


def _as_json(report: Report) -> dict[str, Any]:
    problems = [asdict(problem) for problem in report.problems.values()]
    return {
        "file": str(report.path),
        "rows": report.rows,
        "ok": report.ok,
        "problems": problems,
        "notes": report.notes,
    }


def _print(report: Report, console: Console) -> None:
    print(f"{report.path}: {report.rows:,} rows, {'ok' if report.ok else 'not fit for training'}")
    for note in report.notes:
        print(f"  {note}")
    if not report.problems:
        return
    shown = table("", "rows", "problem", "for example", left=4)
    shown.columns[1].justify = "right"
    for problem in sorted(report.problems.values(), key=lambda one: (not one.error, -one.count)):
        rows = "\n".join(f"row {row}: {value}" for row, value in problem.first)
        shown.add_row("error" if problem.error else "warning", f"{problem.count:,}", problem.what, rows)
    console.print(shown)
