"""Marks: which folder is this package's, and which files in it are (see :mod:`iranker_verl.files`)."""

from __future__ import annotations

import json
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from iranker_verl.errors import NOT_JSON

MARK = ".iranker"
MADE_BY = "iranker-verl"
# How a single file records what made it: `files.marked` puts it into JSON, the page's template into HTML.
_SIGNATURES = (f'"made_by": "{MADE_BY}"'.encode(), f'<meta name="generator" content="{MADE_BY}">'.encode())
_SIGNED_BYTES = 1024
_PART = re.compile(r"((?:.*/)?)\.(.+)\.[0-9a-f]{16}\.part")


@dataclass(frozen=True)
class Mark:
    """What ``folder``'s mark says: which files in it are ours, and for temporary folders (``whole``) that all are.

    ``target`` is the name of what the folder was made for, ``key`` what unfinished work is known by.
    """

    folder: Path
    names: frozenset[str] = frozenset()
    target: str = ""
    whole: bool = False
    key: str = ""


def read_mark(folder: Path) -> Mark | None:
    """Return the mark of ``folder``; None where it has none."""
    try:
        with open(os.open(folder / MARK, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), encoding="utf-8") as file:
            first, *names = file.read().split("\n")
        head = json.loads(first)
        if head["made_by"] != MADE_BY:
            return None
        return Mark(
            folder,
            frozenset(_listed(names[:-1])),
            head.get("target", ""),
            head.get("whole", False),
            head.get("key", ""),
        )
    except (OSError, *NOT_JSON, KeyError, TypeError):
        return None


def _listed(lines: list[str]) -> Iterator[str]:
    """Yield the names in the lines of a mark; one that a kill or a full disk cut short is skipped."""
    for line in lines:
        with suppress(*NOT_JSON):
            yield str(json.loads(line))


def foreign(folder: Path) -> list[str]:
    """Return what is in ``folder`` (paths relative to it, sorted) and not listed in its mark; a link counts as itself."""
    found = read_mark(folder)
    if found is None:  # then a file of the mark's name is no mark of ours
        return sorted(inside(folder))
    if found.whole:
        return []
    ours = {MARK, *found.names} | {parent.as_posix() for name in found.names for parent in Path(name).parents}
    return sorted(name for name in inside(folder) if name not in ours and whose(name) not in ours)


def files_in(folder: Path) -> frozenset[str]:
    """Return the files and links below ``folder``, but its mark."""
    return frozenset(name for name in inside(folder, folders=False) if name != MARK)


def beside(target: Path, suffix: str) -> Path:
    """Return a hidden, random name beside ``target``."""
    return target.with_name(f".{target.name[:80]}.{secrets.token_hex(8)}.{suffix}")


def whose(name: str) -> str | None:
    """Return the file of which ``name`` is an unfinished copy, if :func:`beside` could have made that name."""
    return found[1] + found[2] if (found := _PART.fullmatch(name)) else None


def left_by(target: Path, suffix: str) -> list[Mark]:
    """Return the marked folders that :func:`beside` named for ``target``."""
    named = re.compile(rf"\.{re.escape(target.name[:80])}\.[0-9a-f]{{16}}\.{suffix}")
    with suppress(OSError):
        folders = sorted(path for path in target.parent.iterdir() if named.fullmatch(path.name))
        marks = [read_mark(folder) for folder in folders if not folder.is_symlink()]
        return [found for found in marks if found is not None and found.target in ("", target.name)]
    return []


def write_mark(content: Mark, *, replaces: bool = True) -> None:
    """Write a mark into its folder, in place of one that is there, or only where none is, so that two processes may do it at once."""
    head: dict[str, Any] = {"made_by": MADE_BY}
    head |= {name: value for name in ("target", "whole", "key") if (value := getattr(content, name))}
    lines = [json.dumps(line) + "\n" for line in (head, *sorted(content.names))]
    part = beside(content.folder / MARK, "part")
    with open(
        os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o666), "w", encoding="utf-8"
    ) as file:
        file.write("".join(lines))
    try:
        if replaces:
            os.replace(part, content.folder / MARK)
        else:
            os.link(part, content.folder / MARK)
    except FileExistsError:
        pass
    except OSError:  # a disk without hard links
        os.replace(part, content.folder / MARK)
    finally:
        part.unlink(missing_ok=True)


def _mark_over(path: Path) -> Mark | None:
    """Return the mark of the nearest folder above ``path`` that has one."""
    return next((found for folder in Path(os.path.abspath(path)).parents if (found := read_mark(folder))), None)


def _name_in(found: Mark, path: Path) -> str:
    return Path(os.path.abspath(path)).relative_to(found.folder).as_posix()


def is_listed(path: Path) -> bool:
    """Return whether the mark above ``path`` says that it is ours."""
    found = _mark_over(path)
    return found is not None and (found.whole or _name_in(found, path) in found.names)


def is_signed(path: Path) -> bool:
    """Return whether a file says itself, in its first bytes, that this package made it."""
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as file:
            start = file.read(_SIGNED_BYTES)
    except OSError:
        return False
    return any(signature in start for signature in _SIGNATURES)


def list_in_mark(path: Path) -> None:
    """Add ``path`` to the mark above it, if there is one: in one write, so that two processes may do it at once."""
    found = _mark_over(path)
    if found is None or found.whole or (name := _name_in(found, path)) in found.names:
        return
    descriptor = os.open(found.folder / MARK, os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW)
    try:
        os.write(descriptor, f"\n{json.dumps(name)}\n".encode())  # on a line of its own, whatever precedes it
    finally:
        os.close(descriptor)


def inside(folder: Path, *, folders: bool = True) -> Iterator[str]:
    """Yield everything below ``folder``, relative to it; links are not followed."""
    for path, below, files in os.walk(folder):
        links = [name for name in below if os.path.islink(os.path.join(path, name))]
        for name in files + (below if folders else links):
            yield Path(path, name).relative_to(folder).as_posix()
