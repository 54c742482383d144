"""``iranker prepare`` and ``iranker check``: raw files to ranking tasks in Parquet, and proof that they do not leak."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from data_prep.options import Options, as_public_code
from iranker_verl.cli.options import with_options_of
from iranker_verl.cli.tables import checks_part, show
from iranker_verl.errors import UserError

if TYPE_CHECKING:
    import pyarrow as pa


@with_options_of(Options)
def prepare(
    raw: Annotated[
        str | None,
        typer.Option(help="raw files: a folder, a file, or hf://datasets/… (docs/data.md lists the formats)"),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="folder to write train.parquet, test.parquet and manifest.json to")
    ] = None,
    former_check: Annotated[Path | None, typer.Option("--check", hidden=True)] = None,
    task: Annotated[
        list[str] | None, typer.Option(help="dataset, e.g. rec-movie; again for more (default: all that are found)")
    ] = None,
    template: Annotated[
        str | None, typer.Option(help="prompt template: an id or a .yaml file [default: label]")
    ] = None,
    tokenizer: Annotated[Path | None, typer.Option(help="model folder whose tokenizer measures prompts")] = None,
    max_prompt_tokens: Annotated[int | None, typer.Option(help="refuse longer prompts (needs --tokenizer)")] = None,
    processes: Annotated[int | None, typer.Option(help="[default: as many as are worth it]")] = None,
    published: Annotated[
        bool, typer.Option(help="as IRanker's public code, options and template (docs/reproduction.md)")
    ] = False,
    ray: Annotated[
        bool, typer.Option("--ray", help="share the work over a Ray cluster (OUT on a shared disk)")
    ] = False,
    *,
    options: Options,
) -> None:
    """Turn raw files into ranking tasks in Parquet, with a manifest."""
    from data_prep.prepare import prepare as run
    from data_prep.presets import missing
    from iranker_verl.ranking.templates import load

    if former_check is not None:
        print("`iranker prepare --check DIR` is now `iranker check DIR`", file=sys.stderr)
        check(former_check)
        return
    if raw is None or out is None:
        raise UserError("give --raw and --out; to check what was prepared: iranker check DIR")
    if (tokenizer is None) != (max_prompt_tokens is None):
        raise UserError("--tokenizer and --max-prompt-tokens belong together")
    if published:
        options = as_public_code(options)
        template = template or "published"
    chosen = load(template or ("direct-label" if options.rows == "direct" else "label"))
    asked = None if not task or "all" in task else task
    manifest = run(raw, out, chosen, options, asked, print, _refuse_long(tokenizer, max_prompt_tokens), processes, ray)
    if asked is None:
        for line in missing(set(manifest["tasks"])):
            print(f"not found   {line}")


def check(folder: Annotated[Path, typer.Argument(help="folder of `iranker prepare`")]) -> None:
    """Prove again, from its files, that prepared data does not leak; exit code 1 where it does."""
    from data_prep.checks.folder import check_folder
    from data_prep.schema import read_manifest

    found = check_folder(folder, read_manifest(folder, "options", "data_hash", "files"))
    show([checks_part([asdict(one) for one in found])])
    if not all(one.ok for one in found):
        raise typer.Exit(1)


def _refuse_long(tokenizer: Path | None, limit: int | None) -> Callable[[pa.Table], None] | None:
    """Return what refuses rows whose prompt has more tokens than ``limit``."""
    if tokenizer is None or limit is None:
        return None
    from data_prep.lengths import refuse_long_rows
    from iranker_verl.inference.engine import ChatTokenizer

    encode = ChatTokenizer(tokenizer).encode
    return lambda rows: refuse_long_rows(rows, lambda messages: len(encode(messages)), limit)
