"""Raw files to prepared data: ``train.parquet``, ``test.parquet`` and ``manifest.json`` in one folder.

One input, one set of options and one template give the same files, byte for byte, on one process or many. The folder is
built beside its place and renamed, so that it is there whole or not at all; one that was made from the very same things is
used again. What is done of an interrupted preparation is kept in a hidden folder beside it and not done again.

The manifest says what went in (files and their SHA-256, options, template, versions), what came out (tasks of each
dataset and split, what was dropped and why), how it was split, and what was checked (:mod:`data_prep.checks.folder`).
"""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from data_prep import spool
from data_prep.assemble import Inspect, Made, assemble
from data_prep.checks.folder import check_folder
from data_prep.discover import discover, local_raw
from data_prep.options import Options
from data_prep.schema import MANIFEST, SCHEMA_VERSION, SPLITS, read_manifest
from data_prep.tasks import Dropped, Source
from data_prep.work import Interrupted, Job, Work, processes_for
from iranker_verl import files
from iranker_verl.errors import UserError
from iranker_verl.provenance import are_whole, digest, file_digest, is_same
from iranker_verl.ranking import DATASETS
from iranker_verl.ranking.templates import Template
from iranker_verl.ranking.text import printable

Progress = Callable[[str], None]
NAMED = 20  # files that are not read, one line each
RANGE_BYTES = 48 << 20  # of raw files; what is sorted and rendered at a time


def prepare(
    raw: Path | str,
    out: Path,
    template: Template,
    options: Options | None = None,
    tasks: Sequence[str] | None = None,
    progress: Progress = lambda line: None,
    inspect: Inspect | None = None,
    processes: int | None = None,
    ray: bool = False,
) -> dict[str, Any]:
    """Prepare ``raw`` (a file, a folder, or ``hf://datasets/…``) into ``out`` and return the manifest.

    ``tasks`` names the datasets wanted (default: all that are found). ``inspect`` sees all rows before anything is
    published and may refuse them. ``processes`` (default: as many as are worth it) or, with ``ray``, the Ray cluster
    share the work. Raise UserError for a mistake in the raw files or options, where ``out`` holds what is not ours, and where
    another process prepares into it; ``out`` is then what it was before.
    """
    options, asked = options or Options(), tasks or ()
    _check_kind(template, options)
    raw = local_raw(raw)
    found = discover(raw, asked, without=None if out.resolve() in (raw.resolve(), *raw.resolve().parents) else out)
    _check_places(raw, found.sources, out)
    names = _in_order({name for source in found.sources for name in source.datasets if not asked or name in asked})
    if absent := [name for name in asked if name not in names]:
        raise UserError(f"{raw}: nothing to prepare {', '.join(absent)} from; found {', '.join(names)}")
    if refused := [source.refused for source in found.sources if source.refused]:
        raise UserError(refused[0])
    with files.locked(out):
        progress(f"found {', '.join(names)}")
        not_read = _not_read(raw, out, found.not_read, progress)
        made_of = _made_of(raw, found.sources, names, template, options)
        if manifest := _reusable(out, made_of):
            progress(f"{out}: made from the same files, options and template before; used again")
            return manifest
        files.check_folder_replaceable(out, _is_earlier)
        kept = files.kept_folder(out, digest(made_of))
        count = processes or processes_for([file for source in found.sources for file in source.files])
        work = Work(kept, count, ray, progress)
        try:
            folders, ranges = _spool(found.sources, names, options, work)
            dropped = spool.dropped_in(folders)
            with files.replacing_folder(out, _is_earlier) as part:
                made = assemble(folders, ranges, part, template, options, dropped, inspect, progress)
                _check_made(made, dropped, raw, asked)
                manifest = made_of | _outcome(made, dropped, names) | {"not_read": not_read}
                _prove(raw, part, manifest)
                files.write_json(part / MANIFEST, manifest)
        except UserError as error:
            if not isinstance(error, (Interrupted, files.CannotWriteError)):  # a mistake: nothing to continue
                files.remove_folder(kept)
            raise
        files.remove_folder(kept)
    for name, summary in manifest["datasets"].items():
        lost = "; ".join(f"{reason}: {n}" for reason, n in summary["dropped"].items()) or "nothing"
        progress(f"{name}: {summary['train']} train, {summary['test']} test; dropped {lost}")
    return manifest


def _made_of(
    raw: Path, sources: list[Source], names: list[str], template: Template, options: Options
) -> dict[str, Any]:
    top = raw.parent if raw.is_file() else raw
    read = sorted({file for source in sources for file in source.files})
    return {
        "schema_version": SCHEMA_VERSION,
        "seed": options.seed,
        "options": asdict(options),
        "tasks": names,
        "template_id": template.id,
        "template_hash": template.hash,
        "inputs": {file.relative_to(top).as_posix(): file_digest(file) for file in read},
        "versions": {name: version(name) for name in ("iranker-verl", "pyarrow", "numpy", "pandas")}
        | {"python": platform.python_version()},
    }


def _spool(sources: list[Source], names: list[str], options: Options, work: Work) -> tuple[list[Path], int]:
    """Run the units; return the folders that they filled, and in how many ranges of the final order each."""
    ranges = max(1, sum(file.stat().st_size for source in sources for file in source.files) // RANGE_BYTES)
    jobs = []
    for source in sources:
        own = [name for name in source.datasets if name in names]
        jobs += [Job(unit.name, spool.fill, (unit, options, own, ranges)) for unit in source.cut(options, work)]
    return work.run(jobs), ranges


def _prove(raw: Path, folder: Path, manifest: dict[str, Any]) -> None:
    """Add files and checks to the manifest of what was written. Raise UserError where a check fails."""
    manifest["files"] = {f"{split}.parquet": file_digest(folder / f"{split}.parquet") for split in SPLITS}
    found = check_folder(folder, manifest)
    manifest["checks"] = [asdict(one) for one in found]
    if failed := [one for one in found if not one.ok]:
        raise UserError(f"{raw}: the prepared data fails the check {failed[0].name!r}: {failed[0].detail}")


def _not_read(raw: Path, out: Path, reasons: dict[Path, str], progress: Progress) -> dict[str, str]:
    """Name the files that are not read, but those of ``out``; return why, by path below ``raw``."""
    out, top = out.resolve(), raw.parent if raw.is_file() else raw
    own = {path: why for path, why in reasons.items() if not path.resolve().is_relative_to(out)}
    for path, why in list(own.items())[:NAMED]:
        progress(printable(f"not read: {path}: {why}"))
    if len(own) > NAMED:
        progress(f"not read: {len(own) - NAMED} more files, named in {out / 'manifest.json'}")
    return {path.relative_to(top).as_posix(): why for path, why in own.items()}


def _check_kind(template: Template, options: Options) -> None:
    wanted = "direct" if options.rows == "direct" else "exclusion"
    if template.kind != wanted:
        raise UserError(
            f"template {template.id} is for {template.kind} rows, not for {options.rows}; "
            f"choose one of the kind {wanted} (`iranker prompt list`)"
        )


def _in_order(names: set[str]) -> list[str]:
    """Return the paper's nine first, in its order; then the others by name."""
    return [name for name in DATASETS if name in names] + sorted(names - set(DATASETS))


def _check_places(raw: Path, sources: list[Source], out: Path) -> None:
    """Raise UserError where a folder that is replaced or removed holds raw data."""
    read = [raw, *(file for source in sources for file in source.files)]
    for folder in (out.resolve(), *files.temporary_folders(out)):
        if held := next((path for path in read if path.resolve().is_relative_to(folder)), None):
            raise UserError(
                f"{folder}: it holds the raw data {held}, and would be replaced; choose another folder to write"
            )


def _is_earlier(folder: Path) -> bool:
    """Return whether a former version, which left no mark, made a folder.

    It then holds what its manifest lists, unchanged, and no more.
    """
    try:
        manifest = read_manifest(folder)
        listed, made_by = manifest["files"], manifest["versions"]["iranker-verl"]
    except (UserError, KeyError, TypeError):
        return False
    return bool(made_by) and {MANIFEST, *listed} == set(os.listdir(folder)) and are_whole(folder, listed)


def _check_made(made: Made, dropped: Dropped, raw: Path, asked: Sequence[str]) -> None:
    """Raise UserError where a dataset that was asked for, or a whole split, came out empty."""
    names = {*made.tasks, *dropped, *asked}
    empty = [name for name in _in_order(names) if not made.tasks[name].total()]
    blamed = [name for name in empty if name in asked] or (empty if len(empty) == len(names) else [])
    if blamed:
        lost = "; ".join(f"{reason}: {n}" for reason, n in (+dropped[blamed[0]]).items()) or "nothing was there"
        raise UserError(f"{raw}: no task of {blamed[0]} could be made ({lost}); give more data or other options")
    # a collection that is for testing has no training side
    only_test = all(side in ("all test", "by the source") for side in made.split.values()) and made.rows["test"]
    for split in SPLITS:
        if not made.rows[split] and not (split == "train" and only_test):
            raise UserError(
                f"{raw}: no {split} task could be made; give more users or queries, or one file to be split"
            )


def _outcome(made: Made, dropped: Dropped, names: list[str]) -> dict[str, Any]:
    return {
        "data_hash": made.data_hash,
        "rows": {split: made.rows[split] for split in SPLITS},
        "split": made.split,
        "datasets": {
            name: {
                "train": made.tasks[name]["train"],
                "test": made.tasks[name]["test"],
                "candidates": made.candidates[name],
                "dropped": dict(sorted((+dropped[name]).items())),
            }
            for name in names
        },
    }


def _reusable(out: Path, made_of: dict[str, Any]) -> dict[str, Any] | None:
    """Return the manifest of ``out``, if it was made of the same things and its files are still as they were written."""
    try:
        manifest = read_manifest(out)
        return manifest if is_same(manifest, made_of) and are_whole(out, manifest["files"]) else None
    except (UserError, KeyError, TypeError, AttributeError):
        return None
