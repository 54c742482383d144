"""Keep work on many tasks line by line, so that it can be stopped at any moment and resumed.

Beside ``NAME.jsonl``, the whole result in the order of the tasks, which appears when all is done, lie

``NAME.header.json``       the fingerprint: what was done (evaluated, ranked), on what, with which options; and what it took
``NAME.jsonl.unfinished``  the lines so far, each written as its task ends; gone when all is done

An evaluation's are called ``episodes-<system>``.

A line reaches the operating system at once, so that it survives the death of this process, and the disk every few seconds.
The last line may be cut short by a kill; it is dropped, and its task ranked again.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from iranker_verl import provenance
from iranker_verl.errors import UserError
from iranker_verl.files import (
    check_replaceable,
    json_object,
    make_folder,
    marked,
    read_json,
    write_json,
    write_jsonl,
)

SYNC_S = 5.0
HEADER = ".header.json"
EPISODES = "episodes-"
_REMEDY = "remove the file and begin again"


@dataclass(frozen=True)
class Finished:
    """A system that is finished in a folder: what was evaluated, the summary of :meth:`Journal.finish`, and the file of its lines."""

    system: str
    fingerprint: Mapping[str, Any]
    summary: Mapping[str, Any]
    path: Path

    def lines(self) -> list[dict[str, Any]]:
        """Return the lines of the file."""
        return _lines(self.path)


def finished(run_dir: Path) -> Iterator[Finished]:
    """Yield the systems that are finished in a folder, by name."""
    for path in sorted(run_dir.glob(f"{EPISODES}*{HEADER}")):
        system = path.name.removeprefix(EPISODES).removesuffix(HEADER)
        header, lines = read_json(path, _REMEDY), of_system(run_dir, system)
        if header.get("took") is not None and lines.is_file():
            yield Finished(system, header.get("fingerprint") or {}, header["took"], lines)


def of_system(run_dir: Path, system: str) -> Path:
    """Return the file in which an evaluation keeps a system."""
    return run_dir / f"{EPISODES}{system}.jsonl"


class Journal:
    """The files of one result, ``path``. Raises UserError where they are of other work, naming the first difference.

    ``lines`` are those of before. ``append`` new ones within ``with``, then ``finish``.
    """

    def __init__(self, path: Path, fingerprint: Mapping[str, Any]) -> None:
        make_folder(path.parent)
        self.path = path
        self._part = path.with_name(path.name + ".unfinished")
        self._header = path.with_name(path.name.removesuffix(".jsonl") + HEADER)
        self._fingerprint = provenance.as_read_back(fingerprint)
        self.summary: dict[str, Any] | None = None  # what `finish` was given, where all is done
        self._file: IO[str] | None = None
        self._synced = 0.0
        self.lines = self._open()

    def _open(self) -> list[dict[str, Any]]:
        check_replaceable(self._header)
        header = read_json(self._header, _REMEDY) if self._header.is_file() else {}
        for path in (self.path, self._part):
            if path.is_symlink() or (not header and path.exists()):
                raise UserError(
                    f"{path} exists, and no {self._header.name} beside it says what made it; choose another"
                )
        done = header.get("took") is not None and self.path.is_file()
        begun = bool(header) and self._part.is_file() and self._part.stat().st_size > 0
        if not done and not begun:  # nothing is lost: it failed before its first task, say for want of an option
            write_json(self._header, marked({"fingerprint": self._fingerprint, "took": None}))
            return []
        before = header.get("fingerprint") or {}
        way_out = f"choose another place, or remove {' and '.join(map(str, self._files()))}"
        provenance.require_same(before, self._fingerprint, f"{self._header}: begun there", way_out)
        if done:
            self.summary = header["took"]
            return _lines(self.path)
        return _lines(self._part, cut=True)

    @classmethod
    def forget(cls, path: Path) -> None:
        """Remove what is kept at ``path``, if a journal keeps anything there."""
        header = path.with_name(path.name.removesuffix(".jsonl") + HEADER)
        check_replaceable(header)
        if header.is_file():
            path.with_name(path.name + ".unfinished").unlink(missing_ok=True)
            path.unlink(missing_ok=True)
            header.unlink()

    def _files(self) -> list[Path]:
        return [path for path in (self._header, self._part, self.path) if path.exists()]

    def __enter__(self) -> Journal:
        self._file = self._part.open("a", encoding="utf-8")
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._sync()
            self._file.close()
            self._file = None

    def append(self, line: Mapping[str, Any]) -> None:
        """Keep one line, now."""
        if self._file is None:
            raise RuntimeError("the journal is not open; use it within `with`")
        self._file.write(json.dumps(line, ensure_ascii=False) + "\n")
        self._file.flush()
        if time.monotonic() - self._synced > SYNC_S:
            self._sync()

    def _sync(self) -> None:
        assert self._file is not None
        os.fsync(self._file.fileno())
        self._synced = time.monotonic()

    def finish(self, lines: Sequence[Mapping[str, Any]], summary: Mapping[str, Any]) -> None:
        """Write all lines, in the order of the tasks, and a summary: the seconds that the work took, and more."""
        write_json(self._header, marked({"fingerprint": self._fingerprint, "took": dict(summary)}))
        write_jsonl(self.path, lines)  # last: it is done when this is there
        self._part.unlink(missing_ok=True)


def _lines(path: Path, *, cut: bool = False) -> list[dict[str, Any]]:
    """Return the objects of a file; with ``cut``, its last line may be unfinished and is then cut off, in the file too."""
    content = path.read_bytes()
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        if not cut:
            raise UserError(f"{path}: its last line is not finished; remove {path} and begin again")
        os.truncate(path, whole)
    rows = enumerate(content[:whole].split(b"\n")[:-1], 1)
    return [json_object(line, f"{path} row {row}", _REMEDY) for row, line in rows]
