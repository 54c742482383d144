"""Tell from the names of files what they hold, which split they are, and which copy of the data they belong to."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from pathlib import Path

TRAIN, VALIDATION, TEST = "train", "validation", "test"
_MEANING = {"valid": VALIDATION, "val": VALIDATION, "dev": VALIDATION, "eval": TEST}
_SPLIT = re.compile(r"(?<![a-z])(train|validation|valid|val|dev|test|eval)(?![a-z])")


def suffix_of(path: Path) -> str:
    """Return a file's suffix in lower case, of a gzipped one that of what is packed: ``.json`` for ``X.JSON.gz``."""
    return Path(path.name.lower().removesuffix(".gz")).suffix


def stem_of(path: Path) -> str:
    """Return a file's name without its suffix and ``.gz``, as it is written."""
    name = path.stem if path.suffix.lower() == ".gz" else path.name
    return name[: len(name) - len(suffix_of(path))]


def split_of(path: Path, raw: Path) -> str | None:
    """Return ``train``, ``validation`` or ``test``, by a word of the file's name or by its folder below ``raw``; else None."""
    if found := _SPLIT.search(path.name.lower()):
        return _MEANING.get(found[1], found[1])
    folder = path.parent.name.lower()
    return _MEANING.get(folder, folder) if path.parent != raw and _SPLIT.fullmatch(folder) else None


def home(path: Path, raw: Path, parts: Collection[str] = ()) -> Path:
    """Return the folder of the copy that a file belongs to: the one around folders called like a split or like ``parts``."""
    folder = path.parent
    while folder != raw and (_SPLIT.fullmatch(folder.name.lower()) or folder.name.lower() in parts):
        folder = folder.parent
    return folder


def sides(files: Iterable[Path], raw: Path) -> list[tuple[Path, str | None]]:
    """Return the files to use, each with its side of the split.

    Training files are ``train``; test files are ``test``, or validation files where there are no test files. Files of
    another split are then left out. Without files for both sides the names decide nothing: all files, with None.
    """
    split = {path: split_of(path, raw) for path in files}
    train = [path for path, name in split.items() if name == TRAIN]
    test = [path for path, name in split.items() if name == TEST]
    test = test or [path for path, name in split.items() if name == VALIDATION]
    if not (train and test):
        return [(path, None) for path in split]
    return [*((path, TRAIN) for path in train), *((path, TEST) for path in test)]
