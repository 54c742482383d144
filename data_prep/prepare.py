"""Raw files to prepared data: ``train.parquet``, ``test.parquet`` and ``manifest.json`` in one folder.

One input, one set of options and one template give the same files, byte for byte. The folder is built beside its place
(``out.part``) and renamed, so that it is there whole or not at all; one that was made from the very same things is used
again. The manifest says what went in (files and their SHA-256, options, template, versions) and what came out (tasks of
each dataset and split, what was dropped and why).
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from data_prep.discover import Source, find
from data_prep.lengths import check_lengths
from data_prep.sampling import Options, TaskSet, shuffled
from data_prep.schema import SCHEMA_VERSION, SPLITS, read_manifest, read_tasks, tasks_hash, write_tasks
from iranker_verl.errors import UserError
from iranker_verl.ranking import DATASETS, RankingTask
from iranker_verl.ranking.templates import Message, Template

CountTokens = Callable[[list[Message]], int]


def prepare(
    raw: Path,
    out: Path,
    template: Template,
    options: Options | None = None,
    tasks: Sequence[str] | None = None,
    progress: Callable[[str], None] = lambda line: None,
    max_prompt_tokens: int | None = None,
    count_tokens: CountTokens | None = None,
) -> dict[str, Any]:
    """Prepare ``raw`` (a file or a folder) into ``out`` and return the manifest.

    ``tasks`` names the datasets wanted (default: all that are found). With ``max_prompt_tokens`` and ``count_tokens``
    an episode whose prompt is longer is refused. Raises UserError; ``out`` is then what it was before.
    """
    options = options or Options()
    sources = find(raw, _wanted(tasks))
    _check_places(raw, out)
    source_of = {name: source for source in sources for name in source.datasets}
    if missing := [name for name in tasks or () if name not in source_of]:
        raise UserError(f"{raw}: nothing to prepare {', '.join(missing)} from; found {', '.join(source_of)}")
    progress(f"found {', '.join(name for name in DATASETS if name in source_of)}")
    made_of = {
        "schema_version": SCHEMA_VERSION,
        "seed": options.seed,
        "options": asdict(options),
        "tasks": [name for name in DATASETS if name in source_of],
        "template_id": template.id,
        "template_hash": template.hash,
        "inputs": _inputs(raw, sources),
        "versions": {name: version(name) for name in ("iranker-verl", "pyarrow")}
        | {"python": platform.python_version()},
    }

    def check(splits: dict[str, list[RankingTask]]) -> None:
        if max_prompt_tokens is not None and count_tokens is not None:
            every = [task for split in SPLITS for task in splits[split]]
            progress(f"longest prompt: {check_lengths(every, template, count_tokens, max_prompt_tokens)} tokens")

    if manifest := _reusable(out, made_of):
        check({split: read_tasks(out / f"{split}.parquet", template) for split in SPLITS})
        progress(f"{out}: made from the same files, options and template before; used again")
        return manifest
    made: dict[str, TaskSet] = {}
    for source in sources:
        made |= source.load(options, source.datasets)
    made = {name: made[name] for name in DATASETS if name in made}
    _check_made(made, raw, tasks or ())
    splits = {
        "train": shuffled([task for m in made.values() for task in m.train], options, "train"),
        "test": [task for m in made.values() for task in m.test],
    }
    check(splits)
    manifest = {
        **made_of,
        "data_hash": tasks_hash(splits["train"] + splits["test"]),
        "datasets": {name: _summary(m) for name, m in made.items()},
    }
    for name, summary in manifest["datasets"].items():
        lost = "; ".join(f"{reason}: {n}" for reason, n in summary["dropped"].items()) or "nothing"
        progress(f"{name}: {summary['train']} train, {summary['test']} test; dropped {lost}")
    _write(out, splits, template, manifest)
    return manifest


def _wanted(tasks: Sequence[str] | None) -> list[str]:
    if unknown := [name for name in tasks or () if name not in DATASETS]:
        raise UserError(f"unknown dataset {unknown[0]!r}; choose from {', '.join(DATASETS)}")
    return [name for name in DATASETS if not tasks or name in tasks]


def _check_places(raw: Path, out: Path) -> None:
    """``out`` is replaced as a whole, so it must hold nothing but prepared data."""
    if raw.resolve().is_relative_to(out.resolve()):
        raise UserError(f"{out}: it holds the raw data {raw}, and would be replaced; choose another folder to write")
    if out.exists() and not out.is_dir():
        raise UserError(f"{out}: a file is in the way; choose a folder to write")
    if out.is_dir() and any(out.iterdir()) and not (out / "manifest.json").is_file():
        raise UserError(f"{out}: a folder with something else in it is in the way; remove it or choose another")


def _check_made(made: dict[str, TaskSet], raw: Path, asked: Sequence[str]) -> None:
    """UserError where a dataset that was asked for, or a whole split, came out empty."""
    empty = [name for name, m in made.items() if not m.train and not m.test]
    blamed = [name for name in empty if name in asked] or (empty if len(empty) == len(made) else [])
    if blamed:
        lost = "; ".join(f"{reason}: {n}" for reason, n in (+made[blamed[0]].dropped).items()) or "nothing was there"
        raise UserError(f"{raw}: no task of {blamed[0]} could be made ({lost}); give more data or other options")
    for split in SPLITS:
        if not any(getattr(m, split) for m in made.values()):
            raise UserError(
                f"{raw}: no {split} task could be made; give more users or queries, or one file to be split"
            )


def _summary(made: TaskSet) -> dict[str, Any]:
    sizes = {len(task.candidates) for task in [*made.train, *made.test]}
    return {
        "train": len(made.train),
        "test": len(made.test),
        "candidates": max(sizes, default=0),
        "dropped": dict(sorted((+made.dropped).items())),
    }


def _inputs(raw: Path, sources: list[Source]) -> dict[str, dict[str, Any]]:
    top = raw.parent if raw.is_file() else raw
    files = sorted({file for source in sources for file in source.files})
    return {file.relative_to(top).as_posix(): _fingerprint(file) for file in files}


def _fingerprint(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            return {"bytes": path.stat().st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); check the path") from error


def _reusable(out: Path, made_of: dict[str, Any]) -> dict[str, Any] | None:
    """The manifest of ``out``, if it was made of the same things and its files are still as they were written."""
    try:
        manifest = read_manifest(out)
        same = all(manifest.get(key) == value for key, value in made_of.items())
        whole = same and all(_fingerprint(out / name) == print for name, print in manifest["files"].items())
    except (UserError, KeyError, TypeError, AttributeError):
        return None
    return manifest if whole else None


def _write(out: Path, splits: dict[str, list[RankingTask]], template: Template, manifest: dict[str, Any]) -> None:
    out = out.resolve()
    part, old = out.with_name(out.name + ".part"), out.with_name(out.name + ".old")
    try:
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        for split, tasks in splits.items():
            write_tasks(part / f"{split}.parquet", tasks, template, split)
        manifest["files"] = {f"{split}.parquet": _fingerprint(part / f"{split}.parquet") for split in splits}
        text = json.dumps(manifest, indent=2, ensure_ascii=False) + "\n"
        (part / "manifest.json").write_text(text, encoding="utf-8")
        if out.exists():
            shutil.rmtree(old, ignore_errors=True)
            os.replace(out, old)
        os.replace(part, out)
        shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        raise UserError(
            f"{out}: cannot be written ({error.strerror}); choose another folder or free the space"
        ) from error
    finally:
        if old.exists() and not out.exists():
            os.replace(old, out)
        shutil.rmtree(part, ignore_errors=True)
