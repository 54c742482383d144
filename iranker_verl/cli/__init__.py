"""The command line: each verb a thin line over the library. A user's mistake is one line and exit code 2."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from iranker_verl import __version__
from iranker_verl.cli import data, inspect, prompt, reward
from iranker_verl.errors import UserError

app = typer.Typer(
    no_args_is_help=True, add_completion=False, help="Train one LLM to rank anything by iterative elimination."
)
for command in (data.prepare, inspect.inspect, inspect.validate, reward.audit_reward):
    app.command()(command)
app.add_typer(prompt.app, name="prompt")
OVERRIDES = {"ignore_unknown_options": True}


@app.command(context_settings=OVERRIDES)
def train(
    recipe: Annotated[str, typer.Argument(help="a folder of recipes/, or a YAML file")],
    overrides: Annotated[list[str] | None, typer.Argument(help="Hydra overrides, e.g. trainer.nnodes=4")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="compose and check the config, start nothing")] = False,
) -> None:
    """Run a recipe from raw data to report: prepare, base, reinforcement learning, evaluation."""
    from iranker_verl.job.pipeline import train as run

    if report := run(recipe, overrides or [], dry_run=dry_run):
        print(f"   report  {report}")


@app.command()
def evaluate(
    model: Annotated[Path, typer.Option(help="Hugging Face model folder")],
    data: Annotated[Path, typer.Option(help="folder of `iranker prepare`")],
    out: Annotated[Path, typer.Option(help="folder for results.json and the episodes")],
    template: Annotated[str | None, typer.Option(help="prompt template (default: the data's own)")] = None,
    max_new_tokens: Annotated[int, typer.Option()] = 1024,
    seed: Annotated[int, typer.Option()] = 1,
) -> None:
    """Rank every test task with a model, beside random, popularity and BM25."""
    from data_prep.schema import read_manifest, read_tasks
    from iranker_verl.doctor import versions
    from iranker_verl.evaluation.evaluate import collect, evaluate_model, evaluate_rivals
    from iranker_verl.files import write_json
    from iranker_verl.ranking.templates import load

    manifest = read_manifest(data)
    chosen = load(template or manifest["template_id"])
    train_tasks, test_tasks = (read_tasks(data / f"{s}.parquet", chosen) for s in ("train", "test"))
    out.mkdir(parents=True, exist_ok=True)
    results = evaluate_rivals(train_tasks, test_tasks, seed=seed, run_dir=out)
    results.append(
        evaluate_model(model, test_tasks, chosen, system="after", run_dir=out, max_new_tokens=max_new_tokens, seed=seed)
    )
    content = collect(results, seed=seed)
    content |= {"seed": seed, "versions": versions(), "data_hash": manifest["data_hash"], "template_hash": chosen.hash}
    write_json(out / "results.json", content)
    print(out / "results.json")


@app.command()
def report(run: Annotated[Path, typer.Argument(help="run folder with results.json")]) -> None:
    """Draw report.html of a run again."""
    from iranker_verl.evaluation.report import write_report

    print(write_report(run))


@app.command(context_settings=OVERRIDES)
def doctor(
    recipe: Annotated[str | None, typer.Argument(help="recipe to check against this machine")] = None,
    overrides: Annotated[list[str] | None, typer.Argument(help="Hydra overrides")] = None,
) -> None:
    """What is installed, which platform is chosen and why, and whether a recipe fits this machine."""
    from rich.console import Console
    from rich.table import Table

    from iranker_verl.doctor import check_fits, check_room, rows

    config = None
    if recipe is not None:
        from iranker_verl.training.main import compose_recipe

        config = compose_recipe(recipe, overrides or [])
    table = Table(show_header=False, box=None)
    for row in rows(config, Path.cwd()):
        table.add_row(*row)
    Console().print(table)
    check_room(Path.cwd())
    if config is not None:
        check_fits(config)


@app.callback(invoke_without_command=True)
def root(version: Annotated[bool, typer.Option("--version", help="print the version")] = False) -> None:
    if version:
        print(__version__)
        raise typer.Exit


def main() -> None:
    """Entry point of the console script."""
    try:
        app()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except (KeyboardInterrupt, SystemExit) as end:
        if isinstance(end, SystemExit) and end.code != 130:  # typer's code for a Ctrl-C
            raise
        print("\nstopped; the same command goes on from here", file=sys.stderr)
        sys.exit(130)
