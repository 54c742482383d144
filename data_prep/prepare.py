"""Raw files to prepared data: ``train.parquet``, ``test.parquet`` and ``manifest.json`` in one folder.

One input, one set of options and one template give the same files, byte for byte, on one process or many. The folder is
built beside its place (``out.part``) and renamed, so that it is there whole or not at all; one that was made from the
very same things is used again. What is done of an interrupted preparation is kept in ``out.work`` and not done again.

The manifest says what went in (files and their SHA-256, options, template, versions), what came out (tasks of each
dataset and split, what was dropped and why), how it was split, and what was checked (:mod:`data_prep.checks.folder`).
"""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from data_prep import spool
from data_prep.assemble import Inspect, Made, assemble
from data_prep.checks import folder as checks
from data_prep.discover import find, local
from data_prep.options import Options
from data_prep.schema import SCHEMA_VERSION, SPLITS, read_manifest
from data_prep.tasks import Dropped, Source
from data_prep.work import Interrupted, Job, Work, processes_for
from iranker_verl import provenance
from iranker_verl.errors import UserError
from iranker_verl.files import write_json
from iranker_verl.ranking import DATASETS
from iranker_verl.ranking.templates import Template

Progress = Callable[[str], None]
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
    share the work. Raises UserError; ``out`` is then what it was before.
    """
    options = options or Options()
    _check_kind(template, options)
    raw = local(raw)
    sources = find(raw, tasks or ())
    _check_places(raw, out)
    names = _in_order({name for source in sources for name in source.datasets if not tasks or name in tasks})
    if absent := [name for name in tasks or () if name not in names]:
        raise UserError(f"{raw}: nothing to prepare {', '.join(absent)} from; found {', '.join(names)}")
    progress(f"found {', '.join(names)}")
    made_of = {
        "schema_version": SCHEMA_VERSION,
        "seed": options.seed,
        "options": asdict(options),
        "tasks": names,
        "template_id": template.id,
        "template_hash": template.hash,
        "inputs": _inputs(raw, sources),
        "versions": {name: version(name) for name in ("iranker-verl", "pyarrow", "numpy", "pandas")}
        | {"python": platform.python_version()},
    }
    if manifest := _reusable(out, made_of):
        progress(f"{out}: made from the same files, options and template before; used again")
        return manifest
    work = _work(out, made_of, sources, processes, ray, progress)
    try:
        manifest = _prepare(raw, out, sources, names, made_of, template, options, tasks or (), work, inspect)
    except UserError as error:
        if not isinstance(error, Interrupted):  # a mistake: nothing to go on with
            _remove(work)
        raise
    _remove(work)
    for name, summary in manifest["datasets"].items():
        lost = "; ".join(f"{reason}: {n}" for reason, n in summary["dropped"].items()) or "nothing"
        progress(f"{name}: {summary['train']} train, {summary['test']} test; dropped {lost}")
    return manifest


def _prepare(
    raw: Path,
    out: Path,
    sources: list[Source],
    names: list[str],
    made_of: dict[str, Any],
    template: Template,
    options: Options,
    asked: Sequence[str],
    work: Work,
    inspect: Inspect | None,
) -> dict[str, Any]:
    ranges = max(1, sum(file.stat().st_size for source in sources for file in source.files) // RANGE_BYTES)
    units = [unit for source in sources for unit in source.units(options, _own(source, names), work)]
    folders = work.run([Job(unit.name, spool.fill, (unit, options.seed, ranges)) for unit in units])
    dropped = spool.dropped_in(folders)

    def fill(part: Path) -> dict[str, Any]:
        made = assemble(folders, ranges, part, template, options, dropped, inspect, work.progress)
        _check_made(made, dropped, raw, asked)
        manifest = made_of | _outcome(made, dropped, names)
        manifest["files"] = {f"{split}.parquet": provenance.file_digest(part / f"{split}.parquet") for split in SPLITS}
        found = checks.check(part, manifest)
        manifest["checks"] = [asdict(one) for one in found]
        if failed := [one for one in found if not one.ok]:
            raise UserError(f"{raw}: the prepared data fails the check {failed[0].name!r}: {failed[0].detail}")
        write_json(part / "manifest.json", manifest)
        return manifest

    return _publish(out, fill)


def _check_kind(template: Template, options: Options) -> None:
    wanted = "direct" if options.rows == "direct" else "exclusion"
    if template.kind != wanted:
        raise UserError(
            f"template {template.id} is for {template.kind} rows, not for {options.rows}; "
            f"choose one of the kind {wanted} (`iranker prompt list`)"
        )


def _in_order(names: set[str]) -> list[str]:
    """The paper's nine first, in its order; then the others by name."""
    return [name for name in DATASETS if name in names] + sorted(names - set(DATASETS))


def _own(source: Source, names: list[str]) -> tuple[str, ...]:
    return tuple(name for name in source.datasets if name in names)


def _check_places(raw: Path, out: Path) -> None:
    """``out`` is replaced as a whole, so it must hold nothing but prepared data."""
    if raw.resolve().is_relative_to(out.resolve()):
        raise UserError(f"{out}: it holds the raw data {raw}, and would be replaced; choose another folder to write")
    if out.exists() and not out.is_dir():
        raise UserError(f"{out}: a file is in the way; choose a folder to write")
    if out.is_dir() and any(out.iterdir()) and not (out / "manifest.json").is_file():
        raise UserError(f"{out}: a folder with something else in it is in the way; remove it or choose another")


def _check_made(made: Made, dropped: Dropped, raw: Path, asked: Sequence[str]) -> None:
    """UserError where a dataset that was asked for, or a whole split, came out empty."""
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


def _inputs(raw: Path, sources: list[Source]) -> dict[str, dict[str, Any]]:
    top = raw.parent if raw.is_file() else raw
    files = sorted({file for source in sources for file in source.files})
    return {file.relative_to(top).as_posix(): provenance.file_digest(file) for file in files}


def _reusable(out: Path, made_of: dict[str, Any]) -> dict[str, Any] | None:
    """The manifest of ``out``, if it was made of the same things and its files are still as they were written."""
    try:
        manifest = read_manifest(out)
        whole = provenance.is_same(manifest, made_of) and provenance.are_whole(out, manifest["files"])
    except (UserError, KeyError, TypeError, AttributeError):
        return None
    return manifest if whole else None


def _beside(out: Path, suffix: str) -> Path:
    out = out.resolve()
    return out.with_name(out.name + suffix)


def _work(
    out: Path, made_of: dict[str, Any], sources: list[Source], processes: int | None, ray: bool, progress: Progress
) -> Work:
    """Work in ``out.work/HASH``; what another preparation left there is removed."""
    top = _beside(out, ".work")
    own = provenance.digest(made_of)
    for other in top.iterdir() if top.is_dir() else ():
        if other.name != own:
            shutil.rmtree(other, ignore_errors=True)
    files = [file for source in sources for file in source.files]
    return Work(top / own, processes or processes_for(files), ray, progress)


def _remove(work: Work) -> None:
    shutil.rmtree(work.folder.parent, ignore_errors=True)


def _publish(out: Path, fill: Callable[[Path], dict[str, Any]]) -> dict[str, Any]:
    """Fill ``out.part`` and put it in the place of ``out``; on any error ``out`` stays what it was."""
    part, old, out = _beside(out, ".part"), _beside(out, ".old"), out.resolve()
    try:
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        content = fill(part)
        if out.exists():
            shutil.rmtree(old, ignore_errors=True)
            os.replace(out, old)
        os.replace(part, out)
        shutil.rmtree(old, ignore_errors=True)
        return content
    except OSError as error:
        raise UserError(
            f"{out}: cannot be written ({error.strerror}); choose another folder or free the space"
        ) from error
    finally:
        if old.exists() and not out.exists():
            os.replace(old, out)
        shutil.rmtree(part, ignore_errors=True)
