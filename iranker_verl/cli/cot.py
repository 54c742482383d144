"""`iranker thoughts`: collect the thoughts of a training, and prove that none is of a test query."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from iranker_verl.errors import UserError

app = typer.Typer(no_args_is_help=True, help="Thoughts that emerged in training, as worked examples (IRanker-COT).")


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
    min_chars: Annotated[int, typer.Option(min=1, help="characters that a thought has at least")] = 80,
    per_context: Annotated[int, typer.Option(min=1, help="thoughts of one context, at most")] = 1,
    min_score: Annotated[
        float | None, typer.Option(help="reward that is good enough (default: the best of its data set and pool size)")
    ] = None,
    seed: Annotated[int, typer.Option(help="decides between thoughts that are equally good")] = 0,
) -> None:
    """Keep the well-formed, best rewarded thoughts of a training's rollouts."""
    from iranker_verl.evaluation.cot import collect as run
    from iranker_verl.evaluation.cot import write
    from iranker_verl.evaluation.cot.collect import template_of
    from iranker_verl.evaluation.cot.leaks import without
    from iranker_verl.evaluation.cot.prepared import side_of_test
    from iranker_verl.ranking.templates import load

    chosen = load(template or template_of(rollouts))
    store = run(rollouts, chosen, seed=seed, min_chars=min_chars, per_context=per_context, min_score=min_score)
    if test is not None:
        tasks, groups = side_of_test(test)
        store = without(store, tasks, groups=groups)
    counts = ", ".join(f"{count:,} {what}" for what, count in store.manifest["counts"].items())
    if not store.thoughts:
        raise UserError(f"{rollouts}: no thought is worth keeping ({counts})")
    write(store, out)
    print(f"{out}: {counts}")


@app.command()
def check(
    store: Annotated[Path, typer.Option(help="folder of `iranker thoughts collect`")],
    data: Annotated[Path, typer.Option(help="folder of `iranker prepare`: its test queries are compared")],
    near_duplicate: Annotated[float, typer.Option(help="contexts this alike are one (Jaccard of words)")] = 0.8,
) -> None:
    """Prove that no test query's thought is in a store; print what was compared."""
    from iranker_verl.evaluation.cot import read
    from iranker_verl.evaluation.cot.prepared import proved

    print(json.dumps(proved(read(store), data, near_duplicate).to_json()))
