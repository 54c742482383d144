"""``iranker reproduce``: the paper's words beside its public code, switch by switch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from iranker_verl.cli.options import MODEL
from iranker_verl.cli.tables import show, table


def reproduce(
    raw: Annotated[str, typer.Option(help="raw files: a folder or a file (docs/data.md lists the formats)")],
    out: Annotated[Path, typer.Option(help="folder for the data and results of every switch")],
    task: Annotated[
        list[str] | None, typer.Option(help="dataset, e.g. rec-movie; again for more (default: all that are found)")
    ] = None,
    model: Annotated[str | None, MODEL] = None,
    template: Annotated[str, typer.Option(help="prompt template of --model")] = "think-text",
    max_new_tokens: Annotated[int, typer.Option(min=1, help="most tokens of an answer of --model")] = 1024,
    seed: Annotated[int, typer.Option(min=0, help="of preparation, baselines and intervals")] = 1,
) -> None:
    """Rank with baselines (and a model) on data as the paper says, with each switch of its public code, and with all."""
    from iranker_verl.evaluation.reproduce import BASELINES, reproduce
    from iranker_verl.evaluation.systems import ModelSystem
    from iranker_verl.inference.models import model_folder
    from iranker_verl.ranking.templates import load

    models = []
    if model is not None:
        folder = model_folder(model)
        models = [ModelSystem("model", folder, load(template), max_new_tokens=max_new_tokens)]
    rows = reproduce(
        raw,
        out,
        tasks=task or (),
        systems=lambda: [*BASELINES, *models],
        template=template if model else "label",
        seed=seed,
    )
    parts = []
    for dataset in dict.fromkeys(row["dataset"] for row in rows):
        own = [row for row in rows if row["dataset"] == dataset]
        systems = list(dict.fromkeys(row["system"] for row in own))
        made = table("preparation", "tasks", *systems)
        for variant in dict.fromkeys(row["variant"] for row in own):
            numbers = {row["system"]: row for row in own if row["variant"] == variant}
            count = next(iter(numbers.values()))["tasks"]
            made.add_row(variant, str(count), *(f"{numbers[s]['rr']:.3f}" if s in numbers else "–" for s in systems))
        parts.append((f"MRR, {dataset}", made, ""))
    show(parts)
    print(out / "reproduction.json")
