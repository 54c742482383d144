"""Open raw files: only regular ones, unpacked where they are gzipped, as UTF-8 where they are UTF-16.

Every reader of text opens its files here, so all of them take the same encodings and refuse the same things. No text may
have more than :data:`MAX_TEXT` bytes, whether it is a line, a JSON item, a CSV record, a Parquet cell or a run of blanks.
"""

from __future__ import annotations

import codecs
import gzip
import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

from data_prep.readers.text import shown
from iranker_verl.errors import UserError

MAX_TEXT = 16 << 20
BUFFER = 1 << 18
_GZIP = b"\x1f\x8b"
_BLOCK = 1 << 16  # bytes decoded at a time


def check_regular(path: Path) -> None:
    """Raise UserError for a pipe, a device, a folder, or a file that is not there."""
    if not path.is_file():
        what = "not a regular file" if path.exists() else "No such file or directory"
        raise UserError(f"{path}: cannot be read ({what}); check the path")


def open_text(path: Path) -> io.BufferedReader:
    """Return the file's bytes as UTF-8 without a byte order mark; its first bytes tell what it is, not its name."""
    check_regular(path)
    with path.open("rb") as file:
        packed = file.read(len(_GZIP)) == _GZIP
    opened = cast(io.BufferedReader, gzip.open(path) if packed else path.open("rb", buffering=BUFFER))  # noqa: SIM115
    try:
        start = opened.peek(4)[:4]
    except (OSError, EOFError, zlib.error):
        opened.close()
        raise
    if encoding := _wide_encoding(start):
        return io.BufferedReader(_Recoded(opened, encoding, path), BUFFER)
    if start.startswith(codecs.BOM_UTF8):
        opened.read(len(codecs.BOM_UTF8))
    return opened


def _wide_encoding(start: bytes) -> str:
    """Return the encoding of text with two or four bytes a character, "" for any other."""
    if start in (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE):
        return "utf-32"
    if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    zeros = [byte == 0 for byte in start]  # without a mark: the first two characters are ASCII in any table or JSON
    if zeros == [False, True, False, True]:
        return "utf-16-le"
    return "utf-16-be" if zeros == [True, False, True, False] else ""


class _Recoded(io.RawIOBase):
    """Read a file in another encoding as UTF-8."""

    def __init__(self, file: BinaryIO, encoding: str, path: Path) -> None:
        self._file, self._encoding, self._path = file, encoding, path
        self._decoder = codecs.getincrementaldecoder(encoding)()
        self._rest = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._rest:
            block = self._file.read(_BLOCK)
            try:
                self._rest = self._decoder.decode(block, final=not block).encode()
            except UnicodeError as error:
                raise UserError(f"{self._path}: not whole {self._encoding} text; save it as UTF-8") from error
            if not block:
                break
        size = min(len(buffer), len(self._rest))
        buffer[:size], self._rest = self._rest[:size], self._rest[size:]
        return size

    def close(self) -> None:
        self._file.close()
        super().close()


@dataclass
class Position:
    """How many rows of a file were read."""

    row: int = 0


@contextmanager
def reading(path: Path) -> Iterator[Position]:
    """Turn what goes wrong in reading a file into a UserError that tells how far it was readable."""
    at = Position()
    try:
        yield at
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise UserError(f"{path}: gzip data cut off or damaged; {at.row} rows were readable; fetch it again") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error}); check the path") from error


class TooLongError(UserError):
    """A text of more than :data:`MAX_TEXT` bytes."""


def too_long(path: Path, row: int, what: str, start: bytes) -> TooLongError:
    """Return the error for ``what`` ("a line") of more than :data:`MAX_TEXT` bytes, beginning with ``start``."""
    return TooLongError(
        f"{path} row {row}: {what} of more than {MAX_TEXT >> 20} MB, beginning with "
        f"{shown(start[:60].decode(errors='replace'))}; remove it, or fetch the file again"
    )
