"""``iranker status`` and ``iranker export``: how far a run is, and a checkpoint of it as a Hugging Face model."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any

import typer

RunFolder = Annotated[Path, typer.Argument(help="folder of `iranker train`")]


def status(
    run: RunFolder,
    as_json: Annotated[bool, typer.Option("--json", help="for machines")] = False,
    serve: Annotated[
        int | None, typer.Option(min=1, max=65535, help="serve the numbers to Prometheus on this port")
    ] = None,
) -> None:
    """Show how far a run is: stage, step, MRR, tokens a second, last checkpoint, what it waits for."""
    from iranker_verl.job import status as job

    if serve is not None:
        job.serve(run, serve)
        return
    found = job.read_status(run)
    if as_json:
        print(json.dumps(found, indent=2))
        return
    _show(found)


def _show(found: dict[str, Any]) -> None:
    from rich.table import Table

    from iranker_verl.cli.tables import console

    table = Table(show_header=False, box=None, pad_edge=False)

    def row(name: str, text: str, *needed: Any) -> None:
        if all(value is not None for value in needed):
            table.add_row(name, text.format(*needed))

    def ago(seconds: float | None) -> str | None:
        return None if seconds is None else str(timedelta(seconds=round(seconds)))

    row("stage", "{}, log written {} ago", found["stage"], ago(found["written_s"]))
    row("stage", "{}", None if found["stage"] else "all done")
    row("doing", "{}", found["doing"])
    row("waiting for", "{}", found["waiting"])
    row("step", "{} of {}", found["step"], found["steps"])
    row("left", "{}, at {:.1f} s a step", ago(found["remaining_s"]), found["step_s"])
    row("tokens", "{:,.0f} a second", found["tokens_per_s"])
    row("validation MRR", "{:.3f} at step {}, best at step {}", found["val_mrr"], found["val_step"], found["best_step"])
    row("training RR", "{:.3f}, malformed {:.1%}", found["episode_rr"], found["malformed"])
    row("checkpoint", "step {}, {} ago", found["saved_step"], ago(found["saved_s"]))
    row("disk", "{:.1f} GiB free", found["disk_free_bytes"] / 2**30)
    row("starts", "{}", found["starts"])
    console().print(table)


def export(
    run: RunFolder,
    out: Annotated[Path, typer.Option(help="folder of the model: new, or one that an export made")],
    step: Annotated[str, typer.Option(help="a checkpoint's step, last, or best (by validation MRR)")] = "last",
    check: Annotated[
        str, typer.Option(help="what loads the model and ranks stored episodes again: transformers or vllm")
    ] = "transformers",
    license_name: Annotated[
        str | None, typer.Option("--license", help="of the model card, as the hub writes it [default: the base's]")
    ] = None,
    push: Annotated[
        str | None, typer.Option(help="also upload it to the Hugging Face hub, private, under this name")
    ] = None,
) -> None:
    """Write a checkpoint as a Hugging Face model with a card, and show that it is the trained policy."""
    from iranker_verl.job.export import export_run
    from iranker_verl.job.export import push as upload

    export_run(run, out, step, check, license_name)
    if push is not None:
        print(upload(out, push))
