"""The command line: each verb a thin line over the library. A user's mistake is one line and exit code 2."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from iranker_verl import __version__
from iranker_verl.errors import UserError

app = typer.Typer(
    no_args_is_help=True, add_completion=False, help="Train one LLM to rank anything by iterative elimination."
)
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
def prepare(
    raw: Annotated[Path, typer.Option(help="raw files: a folder or a file")],
    out: Annotated[Path, typer.Option(help="folder to write train.parquet, test.parquet and manifest.json to")],
    task: Annotated[
        list[str] | None, typer.Option(help="dataset, e.g. rec-movie; again for more (default: all found)")
    ] = None,
    template: Annotated[str, typer.Option(help="prompt template: an id or a .yaml file")] = "label",
    history: Annotated[int, typer.Option(help="recommendation: items of history")] = 20,
    candidates: Annotated[int, typer.Option(help="recommendation: candidates a task")] = 20,
    test_fraction: Annotated[float, typer.Option(help="share of users or queries that go to the test split")] = 0.2,
    max_chars: Annotated[int, typer.Option(help="cap of a query's passages together, in characters")] = 6000,
    max_train: Annotated[int | None, typer.Option(help="cap of training tasks a dataset")] = None,
    max_test: Annotated[int | None, typer.Option(help="cap of test tasks a dataset")] = None,
    tokenizer: Annotated[Path | None, typer.Option(help="model folder whose tokenizer measures prompts")] = None,
    max_prompt_tokens: Annotated[int | None, typer.Option(help="refuse longer prompts (needs --tokenizer)")] = None,
    seed: Annotated[int, typer.Option()] = 1,
) -> None:
    """Turn raw files into ranking tasks in Parquet, with a manifest."""
    from data_prep.prepare import prepare as run
    from data_prep.sampling import Options
    from iranker_verl.ranking.templates import load

    if (tokenizer is None) != (max_prompt_tokens is None):
        raise UserError("--tokenizer and --max-prompt-tokens belong together")
    count: Any = None
    if tokenizer is not None:
        from iranker_verl.inference.engine import ChatTokenizer

        encode = ChatTokenizer(tokenizer).encode
        count = lambda messages: len(encode(messages))  # noqa: E731
    options = Options(history, candidates, test_fraction, max_chars, max_train, max_test, seed)
    run(raw, out, load(template), options, task or None, print, max_prompt_tokens, count)


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


if __name__ == "__main__":
    main()
