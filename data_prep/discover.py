"""Which datasets can be prepared from a file or a folder? Every module of :mod:`data_prep.sources` looks for its own.

A sub-folder called like a recommendation dataset (``rec-music/``) says which one its files are, whatever their names.
Hidden files and folders are skipped.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path

from data_prep.sources import FORMATS, ranking_bench
from data_prep.tasks import Source
from iranker_verl.errors import UserError

HUB = "hf://datasets/"


def find(raw: Path | str, wanted: Collection[str] = ()) -> list[Source]:
    """The sources in ``raw`` that hold any of the ``wanted`` datasets (default: all of them).

    ``raw`` may be ``hf://datasets/…``, which is fetched first. UserError where there is nothing, where one dataset has
    two sources, and where a source's files are broken.
    """
    raw = local(raw)
    files = [raw] if raw.is_file() else list(_files(raw, set()))
    found: dict[str, Source] = {}
    broken = [
        UserError(f"{file}: a link to a file that is not there; mend or remove it")
        for file in files
        if not file.exists()
    ]
    for source in _sources([file for file in files if file.exists()], raw, broken):
        for dataset in source.datasets:
            if wanted and dataset not in wanted:
                continue
            if dataset in found:
                raise UserError(
                    f"{raw}: {dataset} is there twice, as {found[dataset].files[0]} and as {source.files[0]}; "
                    "give the path of the one that you want"
                )
            found[dataset] = source
    if broken and (not wanted or set(wanted) - set(found)):  # else they are of no concern
        raise broken[0]
    if not found:
        what = f" for {', '.join(wanted)}" if wanted else ""
        raise UserError(f"{raw}: nothing to prepare{what}; docs/data.md lists the raw files that are known")
    return list({id(source): source for source in found.values()}.values())


def _sources(files: list[Path], raw: Path, broken: list[UserError]) -> Iterator[Source]:
    """What the formats find; the error of one that is broken goes to ``broken``."""
    for module in FORMATS:
        try:
            yield from module.find(files, raw)
        except UserError as error:
            broken.append(error)
        except OSError as error:
            broken.append(UserError(f"{error.filename}: cannot be read ({error.strerror}); check the path"))


def local(raw: Path | str) -> Path:
    """The file or folder that ``raw`` names, fetched from the hub where it names one. UserError where there is none."""
    if str(raw).startswith(HUB):
        return ranking_bench.fetch(str(raw).removeprefix(HUB), Path("data") / "hub")
    if not Path(raw).exists():
        raise UserError(
            f"{raw}: no such file or folder; docs/data.md says which raw files there are and where to get them"
        )
    return Path(raw)


def _files(folder: Path, seen: set[Path]) -> Iterator[Path]:
    """All files below, links followed, in an order that does not depend on the file system."""
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
