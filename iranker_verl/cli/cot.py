"""`iranker cot`: collect the reasoning traces of a training, and prove that none is of a test query."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from iranker_verl.errors import UserError

app = typer.Typer(no_args_is_help=True, help="Reasoning traces of a training, as worked examples (IRanker-COT).")
former = typer.Typer(hidden=True)  # the verb's name before it was renamed


@former.callback()
def _renamed() -> None:
    print("`iranker thoughts` is `iranker cot` now", file=sys.stderr)


@app.command()
def collect(
    rollouts: Annotated[Path, typer.Option(help="what training wrote to trainer.rollout_data_dir")],
    out: Annotated[Path, typer.Option(help="folder for the store")],
    template: Annotated[
        str | None, typer.Option(help="template of the training, if it is a .yaml file of your own")
    ] = None,
    test: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="folder of `iranker prepare`: leave out what is of its test queries"),
    ] = None,
    min_chars: Annotated[int, typer.Option(min=1, help="least characters of a trace")] = 80,
    per_context: Annotated[int, typer.Option(min=1, help="most traces of one context")] = 1,
    min_score: Annotated[
        float | None, typer.Option(help="least reward (default: the best of its dataset and pool size)")
    ] = None,
    seed: Annotated[int, typer.Option(help="decides between traces that are equally good")] = 0,
) -> None:
    """Keep the well-formed, best rewarded reasoning traces of a training's rollouts."""
    from iranker_verl.evaluation.cot.collect import collect_traces, read_template_id
    from iranker_verl.evaluation.cot.leaks import read_test_side, without_leaks
    from iranker_verl.evaluation.cot.store import write_traces
    from iranker_verl.ranking.templates import load

    chosen = load(template or read_template_id(rollouts))
    store = collect_traces(
        rollouts, chosen, seed=seed, min_chars=min_chars, per_context=per_context, min_score=min_score
    )
    if test is not None:
        tasks, groups = read_test_side(test)
        store = without_leaks(store, tasks, groups=groups)
    counts = ", ".join(f"{count:,} {what}" for what, count in store.manifest["counts"].items())
    if not store.traces:
        raise UserError(f"{rollouts}: no reasoning trace can be kept ({counts})")
    write_traces(store, out)
    print(f"{out}: {counts}")


@app.command()
def check(
    store: Annotated[Path, typer.Option(help="folder of `iranker cot collect`")],
    data: Annotated[Path, typer.Option(help="folder of `iranker prepare`: its test queries are compared")],
    near_duplicate: Annotated[float, typer.Option(help="contexts this alike are one (Jaccard of words)")] = 0.8,
) -> None:
    """Prove that no trace in a store is of a test query; print what was compared."""
    from iranker_verl.evaluation.cot.leaks import prove_for_data
    from iranker_verl.evaluation.cot.store import read_traces

    print(json.dumps(prove_for_data(read_traces(store), data, near_duplicate).to_json()))


former.command()(collect)
former.command()(check)
