"""Write outputs: whole or not at all, one process at a time, and only over what this package wrote itself.

A folder that this package makes holds a *mark*, the file ``.iranker``: one line of JSON that says so, then the names of the
files that were written there, each a JSON string on its own line. A single file (a data card, a journal's header)
records in its first bytes what made it. Nothing else is ever replaced or removed: a file that is in the way is named, and the
user decides.

======================  ==============================================================================================
:func:`write_text`      one file, also as JSON or JSON lines; :func:`replacing_file` for what writes it by itself
:func:`replacing_folder`  a folder that is replaced as a whole (prepared data, a model)
:func:`claim`           a folder that is written to file by file (a run); refused where it holds other things;
                        :func:`claimed` with its lock
:func:`mark`            the same, where other things may stay beside ours (``report`` in a folder made elsewhere)
:func:`kept_folder`     unfinished work beside its target, which the same command finds again
:func:`locked`          one process at a time for a target; a process that dies releases it
======================  ==============================================================================================

Temporary names are random, beside their target (so on its disk) and hidden, and are never opened through a link.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from iranker_verl.errors import NO_FILE, NOT_JSON, UserError, first_line
from iranker_verl.locks import lock, unlock
from iranker_verl.marks import (
    MADE_BY,
    MARK,
    Mark,
    beside,
    files_in,
    foreign,
    inside,
    is_listed,
    is_signed,
    left_by,
    list_in_mark,
    read_mark,
    whose,
    write_mark,
)

_SHOWN = 3
DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)


# ------------------------------------------------------------------------------------------------------------ files


def write_text(path: Path, text: str) -> None:
    """Write ``text`` as UTF-8; a reader sees the old file or the new one, never a part.

    Raise UserError where ``path`` is something that this package did not make, or cannot be written.
    """
    with replacing_file(path) as part:
        part.write_text(text, encoding="utf-8")


def write_json(path: Path, content: Any) -> None:
    """Write ``content`` as indented JSON."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def write_jsonl(path: Path, lines: Iterable[Any]) -> None:
    """Write one JSON value a line."""
    write_text(path, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))


def read_json(path: Path, remedy: str = "") -> dict[str, Any]:
    """Return the JSON object in a file. Raise UserError, with a ``remedy``, where there is no file or it holds something else."""
    try:
        return json_object(path.read_bytes(), str(path), remedy)
    except NO_FILE as error:
        raise UserError(f"{path}: no such file" + (remedy and f"; {remedy}")) from error


def json_object(text: bytes, where: str, remedy: str = "") -> dict[str, Any]:
    """Return the JSON object in a text. Raise UserError, with ``where`` the text is and a ``remedy``, for anything else."""
    remedy = remedy and f"; {remedy}"
    try:
        content = json.loads(text)
    except NOT_JSON as error:
        raise UserError(f"{where}: not valid JSON ({error}){remedy}") from error
    if not isinstance(content, dict):
        raise UserError(f"{where}: not a JSON object{remedy}")
    return content


def marked(content: dict[str, Any]) -> dict[str, Any]:
    """Return ``content`` with what made it, for a JSON file outside a marked folder."""
    return {"made_by": MADE_BY} | content


@contextmanager
def replacing_file(path: Path) -> Iterator[Path]:
    """Yield a new, empty file to write to; it takes the place of ``path`` when the block ends without an error.

    Raise UserError as :func:`write_text` does.
    """
    path = Path(path)
    check_replaceable(path)
    part = beside(path, "part")
    try:
        with _one_line(path):
            list_in_mark(path)
            os.close(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o666))
            yield part
            os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def check_replaceable(path: Path) -> None:
    """Raise UserError where something is at ``path`` that this package did not make."""
    if not os.path.lexists(path):
        return
    what = "a link" if path.is_symlink() else "a folder" if path.is_dir() else ""
    if not what and (is_listed(path) or is_signed(path)):
        return
    raise UserError(
        f"{path}: {what or 'a file'} that iranker did not make is in the way; move it or choose another name"
    )


class CannotWriteError(UserError):
    """Something cannot be written: the same command resumes when there is room."""


def cannot_write(path: Path | str, error: OSError) -> CannotWriteError:
    """Return the one line for a full disk, a missing permission, or a file where a folder has to be."""
    reason = os.strerror(error.errno) if error.errno else first_line(error)
    return CannotWriteError(f"{path}: cannot be written ({reason}); choose another place or free the space")


@contextmanager
def _one_line(path: Path, *numbers: int) -> Iterator[None]:
    """Raise :func:`cannot_write` for an OSError, of these error numbers only if some are given."""
    try:
        yield
    except OSError as error:
        if numbers and error.errno not in numbers:
            raise
        raise cannot_write(path, error) from error


# ---------------------------------------------------------------------------------------------------------- folders


def claim(folder: Path) -> None:
    """Make ``folder``, with those above it, to be written to file by file.

    Raise UserError where it holds things and no mark, or cannot be made.
    """
    make_folder(folder)
    with _one_line(folder):
        if read_mark(folder) is None and (names := sorted(os.listdir(folder))):
            raise UserError(
                f"{folder}: it holds {_few(names)}, which iranker did not write there; choose a new or an empty folder"
            )
        mark(folder)


def make_folder(folder: Path) -> None:
    """Make a folder and those above it, where they are not there. Raise UserError where that cannot be."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:  # a file stands in the way, or it may not be written there
        raise UserError(f"{folder}: the folder cannot be made ({error.strerror or error}); choose another") from error


def mark(folder: Path) -> None:
    """Mark an existing ``folder``: what is written there from now on is ours, what is there already is not."""
    if read_mark(folder) is None:
        write_mark(Mark(folder), replaces=False)


@contextmanager
def replacing_folder(target: Path, also_ours: Callable[[Path], bool] = lambda folder: False) -> Iterator[Path]:
    """Yield a new folder to fill; it takes the place of ``target`` when the block ends without an error.

    On any error ``target`` stays what it was. ``also_ours`` recognises a folder without a mark that an earlier version
    made. Use it with the lock of ``target`` held. Raise UserError where ``target`` holds what is not ours.
    """
    target = target.resolve()
    check_folder_replaceable(target, also_ours)
    part = beside(target, "part")
    try:
        with _one_line(target):
            _recover(target)
            part.mkdir(parents=True)
            write_mark(Mark(part, target=target.name, whole=True))
        with _one_line(target, *DISK_ERRORS):  # other errors of the block are not of the writing
            yield part
        check_folder_replaceable(target, also_ours)
        with _one_line(target):
            write_mark(Mark(part, files_in(part)))
            _exchange(part, target)
    finally:
        with suppress(OSError):
            remove_folder(part)


def _exchange(part: Path, target: Path) -> None:
    """Put ``part`` in the place of ``target``, whose content is ours, and remove that."""
    old = beside(target, "old")
    if target.exists() and any(target.iterdir()):
        found = read_mark(target) or Mark(target, files_in(target))
        write_mark(replace(found, target=target.name))  # so that what a kill leaves is found again
        os.rename(target, old)
    try:
        os.rename(part, target)  # also over an empty folder
    except BaseException:
        if old.exists():
            os.rename(old, target)
        raise
    with suppress(OSError):
        remove_folder(old)


def check_folder_replaceable(target: Path, also_ours: Callable[[Path], bool] = lambda folder: False) -> None:
    """Raise UserError where ``target`` is a file, or a folder with anything in it that this package did not make."""
    if os.path.lexists(target) and not target.is_dir():
        raise UserError(f"{target}: a file is in the way; choose a folder to write")
    if not target.is_dir() or not any(target.iterdir()) or (read_mark(target) is None and also_ours(target)):
        return
    if names := foreign(target):
        raise UserError(
            f"{target}: it would be replaced, but holds {_few(names)}, which iranker did not make; "
            "move that away or choose another folder"
        )


def kept_folder(target: Path, key: str) -> Path:
    """Return the folder, beside ``target``, of unfinished work that is known by ``key``; it is made where there is none.

    Work for the same target by another key is removed. Remove the folder with :func:`remove_folder` when the work is done.
    Use it with the lock of ``target`` held.
    """
    target = target.resolve()
    own = None
    for found in left_by(target, "work"):
        if found.key == key and own is None:
            own = found.folder
        else:
            remove_folder(found.folder)
    if own is None:
        own, part = beside(target, "work"), beside(target, "part")
        with _one_line(own):
            part.mkdir(parents=True)
            write_mark(Mark(part, target=target.name, whole=True, key=key))
            os.rename(part, own)  # so that no kill leaves one without a mark
    return own


def temporary_folders(target: Path) -> list[Path]:
    """Return the folders beside ``target`` that earlier commands left; the next one may remove them."""
    target = target.resolve()
    return [found.folder for suffix in ("part", "old", "work") for found in left_by(target, suffix)]


def remove_folder(folder: Path) -> None:
    """Remove a marked folder: all of a temporary one, of others what their mark lists. What is not ours stays."""
    found = read_mark(folder)
    if found is None or folder.is_symlink():
        return
    if found.whole:
        for path in folder.iterdir():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            elif path.name != MARK:  # the mark goes last: what a kill leaves is ours still
                path.unlink()
    else:
        for name in sorted(inside(folder), reverse=True):  # what is in a folder before the folder
            with suppress(OSError):
                if name in found.names or whose(name) in {MARK, *found.names}:
                    (folder / name).unlink()
                elif name != MARK:
                    (folder / name).rmdir()
    if set(os.listdir(folder)) == {MARK}:
        (folder / MARK).unlink()
        folder.rmdir()


@contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder that is written to file by file, and :func:`claim` it."""
    with locked(folder):
        claim(folder)
        yield


# ------------------------------------------------------------------------------------------------------------- lock


@contextmanager
def locked(target: Path, *, wait: bool = False) -> Iterator[None]:
    """Hold the lock of ``target``: a file beside it, or where none may be made there, the folder itself.

    Where another process holds it, ``wait`` for it or raise UserError. A disk without locks (some network folders) is used without one.
    """
    target = target.resolve()
    if not target.name:
        raise UserError(f"{target}: choose a folder in it")
    path = target.with_name(f".{target.name}.iranker-lock")
    make_folder(path.parent)
    try:
        descriptor = lock(path, target, wait=wait)
    except BlockingIOError as error:
        raise UserError(f"{target}: another iranker is writing there; wait for it or choose another place") from error
    except OSError as error:
        raise cannot_write(path, error) from error
    try:
        yield
    finally:
        unlock(path, descriptor)


def _recover(target: Path) -> None:
    """Put back or remove what a killed :func:`replacing_folder` left."""
    for found in left_by(target, "old"):
        if target.exists():
            remove_folder(found.folder)
        else:
            os.rename(found.folder, target)
    for found in left_by(target, "part"):
        remove_folder(found.folder)


def _few(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
