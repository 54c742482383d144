"""``iranker prepare``: raw files to ranking tasks in Parquet, and proof that they do not leak."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from iranker_verl.cli.tables import checks_part, show
from iranker_verl.errors import UserError

if TYPE_CHECKING:
    import pyarrow as pa


def prepare(
    raw: Annotated[
        str | None,
        typer.Option(help="raw files: a folder, a file, or hf://datasets/… (docs/data.md lists the formats)"),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="folder to write train.parquet, test.parquet and manifest.json to")
    ] = None,
    check: Annotated[
        Path | None, typer.Option(metavar="DIR", help="prove again, from its files, that prepared data does not leak")
    ] = None,
    task: Annotated[
        list[str] | None, typer.Option(help="dataset, e.g. rec-movie; again for more (default: all that are found)")
    ] = None,
    rows: Annotated[str, typer.Option(help="episodes, states (as published) or direct (for DRanker)")] = "episodes",
    template: Annotated[
        str | None, typer.Option(help="prompt template: an id or a .yaml file [default: label]")
    ] = None,
    orders: Annotated[int, typer.Option(help="candidate orders of each task")] = 1,
    history: Annotated[int, typer.Option(help="recommendation: items of history")] = 20,
    candidates: Annotated[int, typer.Option(help="recommendation: candidates a task")] = 20,
    negatives: Annotated[str, typer.Option(help="recommendation: uniform, popularity or bm25")] = "uniform",
    effect_weight: Annotated[float | None, typer.Option(help="routing: weight of effect [default: the task's]")] = None,
    cost_weight: Annotated[float | None, typer.Option(help="routing: weight of cost [default: the task's]")] = None,
    routing_relevance: Annotated[
        str, typer.Option(help="routing: best (1 for the best LLM, as published) or score (every LLM's)")
    ] = "best",
    passages: Annotated[int | None, typer.Option(help="passages a query [default: the task's]")] = None,
    max_chars: Annotated[int, typer.Option(help="cap of a query's passages together, in characters")] = 2600,
    max_query_chars: Annotated[int, typer.Option(help="routing: cap of a query, in characters")] = 6000,
    split: Annotated[str, typer.Option(help="group (user, query), time (recommendation) or test (all)")] = "group",
    test_fraction: Annotated[float, typer.Option(help="share of users or queries that go to the test split")] = 0.2,
    near_duplicate: Annotated[float, typer.Option(help="queries this alike stay on one side (Jaccard of words)")] = 0.8,
    max_train: Annotated[int | None, typer.Option(help="cap of training tasks a dataset")] = None,
    max_test: Annotated[int | None, typer.Option(help="cap of test tasks a dataset")] = None,
    tokenizer: Annotated[Path | None, typer.Option(help="model folder whose tokenizer measures prompts")] = None,
    max_prompt_tokens: Annotated[int | None, typer.Option(help="refuse longer prompts (needs --tokenizer)")] = None,
    processes: Annotated[int | None, typer.Option(help="[default: as many as are worth it]")] = None,
    ray: Annotated[
        bool, typer.Option("--ray", help="share the work over a Ray cluster (OUT on a shared disk)")
    ] = False,
    seed: Annotated[int, typer.Option()] = 1,
) -> None:
    """Turn raw files into ranking tasks in Parquet, with a manifest; or check what was prepared."""
    from data_prep.options import Options
    from data_prep.prepare import prepare as run
    from data_prep.presets import missing
    from iranker_verl.ranking.templates import load

    if check is not None:
        _check(check)
        return
    if raw is None or out is None:
        raise UserError("give --raw and --out to prepare, or --check DIR to check what was prepared")
    if (tokenizer is None) != (max_prompt_tokens is None):
        raise UserError("--tokenizer and --max-prompt-tokens belong together")
    options = Options(
        history=history,
        candidates=candidates,
        test_fraction=test_fraction,
        max_chars=max_chars,
        max_query_chars=max_query_chars,
        max_train=max_train,
        max_test=max_test,
        seed=seed,
        negatives=negatives,
        passages=passages,
        effect_weight=effect_weight,
        cost_weight=cost_weight,
        routing_relevance=routing_relevance,
        split=split,
        near_duplicate=near_duplicate,
        rows=rows,
        orders=orders,
    )
    chosen = load(template or ("direct-label" if rows == "direct" else "label"))
    asked = None if not task or "all" in task else task
    manifest = run(raw, out, chosen, options, asked, print, _refuse_long(tokenizer, max_prompt_tokens), processes, ray)
    if asked is None:
        for line in missing(set(manifest["tasks"])):
            print(f"not found   {line}")


def _check(folder: Path) -> None:
    from data_prep.checks.folder import check
    from data_prep.schema import read_manifest

    found = check(folder, read_manifest(folder))
    show([checks_part([asdict(one) for one in found])])
    if not all(one.ok for one in found):
        raise typer.Exit(1)


def _refuse_long(tokenizer: Path | None, limit: int | None) -> Callable[[pa.Table], None] | None:
    """What refuses rows whose prompt has more tokens than ``limit``."""
    if tokenizer is None or limit is None:
        return None
    from data_prep.lengths import refuse_long_rows
    from iranker_verl.inference.engine import ChatTokenizer

    encode = ChatTokenizer(tokenizer).encode
    return lambda rows: refuse_long_rows(rows, lambda messages: len(encode(messages)), limit)
