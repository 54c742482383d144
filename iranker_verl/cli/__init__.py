"""The command line: each verb a thin line over the library. A user's mistake is one line and exit code 2."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Annotated

import typer

from iranker_verl import __version__
from iranker_verl.cli import (
    cot,
    data,
    evaluate,
    inspect,
    out_of_domain,
    plan,
    prompt,
    report,
    reproduce,
    reward,
    run,
    score,
    serving,
)
from iranker_verl.errors import UserError, user_error_of
from iranker_verl.files import DISK_ERRORS, cannot_write
from iranker_verl.ranking.text import printable

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    help="Train one LLM to rank anything by iterative elimination.",
)
for command in (
    *(data.prepare, data.check, inspect.inspect, inspect.validate, reward.audit_reward),
    *(
        evaluate.evaluate,
        score.score,
        reproduce.reproduce,
        out_of_domain.evaluate_out_of_domain,
        report.report,
        serving.rank,
        serving.serve,
    ),
    *(run.status, run.export),
):
    app.command()(command)
app.command("evaluate-generic", hidden=True)(out_of_domain.evaluate_generic)
app.add_typer(prompt.app, name="prompt")
app.add_typer(cot.app, name="cot")
app.add_typer(cot.former, name="thoughts")
OVERRIDES = {"ignore_unknown_options": True}
app.command(context_settings=OVERRIDES)(plan.plan)


@app.command(context_settings=OVERRIDES)
def train(
    recipe: Annotated[str, typer.Argument(help="a folder of recipes/, or a YAML file")],
    overrides: Annotated[list[str] | None, typer.Argument(help="Hydra overrides, e.g. trainer.nnodes=4")] = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", help="check the config, start nothing (the reward function, which is code, is loaded)"
        ),
    ] = False,
) -> None:
    """Run a recipe from raw data to report: prepare, base, reinforcement learning, evaluation."""
    from iranker_verl.job.pipeline import train as run_job

    if report := run_job(recipe, overrides or [], dry_run=dry_run):
        print(f"   report  {report}")


@app.command(context_settings=OVERRIDES)
def doctor(
    recipe: Annotated[str | None, typer.Argument(help="recipe to check against this machine")] = None,
    overrides: Annotated[list[str] | None, typer.Argument(help="Hydra overrides")] = None,
) -> None:
    """Show what is installed, which platform is chosen and why; check whether a recipe is right and fits this machine."""
    from rich.console import Console
    from rich.table import Table

    from iranker_verl.doctor import rows
    from iranker_verl.preflight import check, machine

    config = None
    if recipe is not None:
        from iranker_verl.training.main import compose_recipe, named_options

        config = compose_recipe(recipe, overrides or [])
    table = Table(show_header=False, box=None)
    for row in rows(config, Path.cwd()):
        table.add_row(*row)
    Console().print(table)
    machine.check_room(Path.cwd())
    if recipe is not None and config is not None:
        check(config, named_options(recipe, overrides or []))
        machine.check_attention(config)
        machine.check_fits(config)


@app.callback(invoke_without_command=True)
def root(version: Annotated[bool, typer.Option("--version", help="print the version")] = False) -> None:
    """Train one LLM to rank anything by iterative elimination."""
    if version:
        print(__version__)
        raise typer.Exit


def main() -> None:
    """Entry point of the console script."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # half an emoji, or a letter that the terminal's encoding lacks, ends nothing
            stream.reconfigure(errors="backslashreplace")
    try:
        app()
    except UserError as error:
        print(f"error: {printable(user_error_of(error) or '')}", file=sys.stderr)
        sys.exit(2)
    except OSError as error:
        if error.errno not in DISK_ERRORS:
            raise
        print(f"error: {printable(str(cannot_write(error.filename or 'the output', error)))}", file=sys.stderr)
        sys.exit(2)
    except (KeyboardInterrupt, SystemExit) as end:
        if isinstance(end, SystemExit) and end.code != 130:  # typer's code for a Ctrl-C
            raise
        print("\nstopped; the same command continues from here", file=sys.stderr)
        sys.exit(130)
