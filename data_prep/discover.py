"""Which datasets can be prepared from a file or a folder? Every module of :mod:`data_prep.sources` looks for its own.

A sub-folder called like a recommendation dataset (``rec-music/``) says which one its files are, whatever their names.
Hidden files and folders are skipped. Every other file is read, or named as not read with the reason.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from data_prep.readers.opened import check_regular
from data_prep.readers.sniff import NotRead, RawFile, sniff
from data_prep.sources import FINDERS
from data_prep.sources.ranking_bench import fetch_from_hub
from data_prep.tasks import Source
from iranker_verl.errors import UserError

HUB = "hf://datasets/"


@dataclass(frozen=True)
class Found:
    """The sources in a folder, and why each of the other files is not read."""

    sources: list[Source]
    not_read: dict[Path, str]


def discover(raw: Path | str, wanted: Collection[str] = (), without: Path | None = None) -> Found:
    """Return the sources in ``raw`` that hold any of the ``wanted`` datasets (default: all of them).

    ``raw`` may be ``hf://datasets/…``, which is fetched first. What lies in ``without``, a folder to write to, is no raw data. Raise UserError where there is nothing, where one dataset has
    two sources, and where a source's files are broken.
    """
    raw = local_raw(raw)
    out = without and without.resolve()
    paths = [raw] if raw.is_file() else [p for p in _files(raw, set()) if not (out and p.resolve().is_relative_to(out))]
    files = [sniff(path) for path in paths]
    not_read = {file.path: file.unknown() for file in files}
    broken = [UserError(file.problem) for file in files if file.broken]
    broken += [
        UserError(f"{file.path}: a link to a file that is not there; mend or remove it")
        for file in files
        if not file.path.exists()
    ]
    found: dict[str, Source] = {}
    for one in _found(files, raw, broken):
        if isinstance(one, NotRead):
            not_read[one.path] = one.reason
            continue
        for dataset in one.datasets:
            if wanted and dataset not in wanted:
                not_read |= {path: f"of {', '.join(one.datasets)}, not asked for" for path in one.files}
                continue
            if dataset in found:
                raise UserError(
                    f"{raw}: {dataset} occurs twice, as {found[dataset].files[0]} and as {one.files[0]}; "
                    "give the path of the one that you want"
                )
            found[dataset] = one
    if broken and (not wanted or set(wanted) - set(found)):  # else they are of no concern
        raise broken[0]
    if not found:
        what = f" for {', '.join(wanted)}" if wanted else ""
        why = "".join(f"; {path}: {reason}" for path, reason in list(not_read.items())[:3])
        raise UserError(f"{raw}: nothing to prepare{what}; docs/data.md lists the raw files that are known{why}")
    sources = list({id(source): source for source in found.values()}.values())
    used = {path for source in sources for path in source.files}
    return Found(sources, {path: reason for path, reason in not_read.items() if path not in used})


def _found(files: list[RawFile], raw: Path, broken: list[UserError]) -> Iterator[Source | NotRead]:
    """Yield what the formats find; the error of one that is broken goes to ``broken``."""
    known = [file for file in files if not file.problem]
    for find in FINDERS:
        try:
            yield from find(known, raw)
        except UserError as error:
            broken.append(error)
        except OSError as error:
            broken.append(UserError(f"{error.filename}: cannot be read ({error.strerror}); check the path"))


def local_raw(raw: Path | str) -> Path:
    """Return the file or folder that ``raw`` names, fetched from the hub where it names one. Raise UserError for none."""
    if str(raw).startswith(HUB):
        return fetch_from_hub(str(raw).removeprefix(HUB), Path("data") / "hub")
    if not Path(raw).exists():
        raise UserError(
            f"{raw}: no such file or folder; docs/data.md says which raw files there are and where to get them"
        )
    if not Path(raw).is_dir():
        check_regular(Path(raw))
    return Path(raw)


def _files(folder: Path, seen: set[Path]) -> Iterator[Path]:
    """Yield all files below, links followed, in an order that does not depend on the file system."""
    if (real := folder.resolve()) in seen:
        return
    seen.add(real)
    try:
        entries = sorted(folder.iterdir())
    except OSError as error:
        raise UserError(f"{folder}: cannot be read ({error.strerror}); check the path") from error
    for path in entries:
        if path.name.startswith("."):
            continue
        if path.is_dir():
            yield from _files(path, seen)
        else:
            yield path
