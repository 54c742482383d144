"""JSON of any form in a file, streamed: an item at a time is in memory, and time is linear in the bytes.

==========  ===============================================================================================
``lines``   JSON lines, one object a line
``array``   one array, its items anywhere
``objects`` objects one after the other, each over several lines ("pretty-printed")
``columns`` one object of columns, ``{"name": {"0": value, "1": …}, …}``, as pandas writes it
==========  ===============================================================================================

Errors name the file and the row: the line, or the place of the item, from 1.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any, cast

import orjson

from data_prep.readers import opened
from data_prep.readers.lines import first_lines, lines
from data_prep.readers.opened import TooLongError, open_text, reading, too_long
from data_prep.readers.text import shown
from iranker_verl.errors import NOT_JSON, UserError

Parse = Callable[[bytes], Any]
_IN_STRING = re.compile(rb'[^"\\]*+(?:\\.[^"\\]*+)*+', re.DOTALL)
_STRUCTURE = re.compile(rb'["\[\]{},]')
_NESTED = re.compile(rb'["\[\]{}]')
_KEY = re.compile(rb'\s*("(?:[^"\\]|\\.)*+")\s*:')
_CLOSES = {b"[": b"]", b"{": b"}"}
_BLOCK = 1 << 16


def parse_json(text: bytes) -> Any:
    """Return the value of a JSON text. Raise ValueError where it is invalid; the message names NaN and Infinity."""
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        # Half an emoji, escaped, where somebody cut a text: it becomes a question mark. All else fails again.
        value = json.dumps(json.loads(text.decode(), parse_constant=_no_constant), ensure_ascii=False)
        return orjson.loads(value.encode(errors="replace"))


class NotJson(ValueError):
    """Something that JSON does not have, named."""


def _no_constant(name: str) -> None:
    raise NotJson(f"it holds {name}, which JSON does not have; write null or a number")


def json_form(path: Path) -> tuple[str, Any]:
    """Return the form of a JSON file and its first value that can be parsed, None for none of the first lines.

    A file that is nothing else is ``lines``, so that reading it names the row that is wrong.
    """
    first = first_lines(path)
    value = _parsed(first[0]) if first else None
    if first and first[0].lstrip().startswith(b"["):
        return "array", next((_parsed(raw) for _, raw in json_parts(path, 1)), None)
    if value is None and first and first[0].lstrip().startswith(b"{"):
        try:
            keys, _ = next(json_parts(path, 2), ((), b""))
            if len(keys) == 2 and str(keys[1]).isdigit():
                return "columns", {keys[0]: {}}
            _, raw = next(json_parts(path, 0), ((), b""))
        except TooLongError as error:
            if len(first[0]) == opened.MAX_TEXT:
                next(row for row, line in lines(path) if line.strip())  # raises it with the line's row
            if not first[0].rstrip().endswith(b"}"):  # else a line that is no JSON, whose brackets tell nothing
                raise too_long(path, 1, "an item", first[0]) from error
            raw = b""
        except UserError:
            raw = b""
        if b"\n" in raw and (value := _parsed(raw)) is not None:
            return "objects", value
    if _is_columns(value):
        return "columns", value
    return "lines", next((own for line in first if (own := _parsed(line)) is not None), None)


def _is_columns(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and all(isinstance(own, dict) for own in value.values())
        and any("0" in own for own in value.values())
    )


def _parsed(text: bytes) -> Any:
    """Return the value of a text with faults that reading it will report; None where it cannot be parsed."""
    try:
        return json.loads(text.decode("utf-8", "replace").rstrip(", \r\n"), strict=False)
    except NOT_JSON:
        return None


def json_records(path: Path, dropped: Counter[str], parse: Parse = parse_json) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield ``(row, object)`` of the objects of a file. Raise UserError for what ``parse`` makes no object of."""
    form, _ = json_form(path)
    empty = True
    for row, text in lines(path) if form in ("lines", "columns") else json_texts(path, form):
        if not text.strip() and form == "lines":
            dropped["lines: blank"] += 1
            continue
        empty = False
        record, reason = None, "correct or remove the row"
        try:
            record = parse(text)
        except NotJson as error:
            reason = str(error)
        except NOT_JSON:
            pass
        if not isinstance(record, dict):
            start = shown(text[:200].decode(errors="replace").strip())
            raise UserError(f"{path} row {row}: not a JSON object, but {start}; {reason}")
        yield row, record
    if empty:
        raise UserError(f"{path}: the file is empty; fetch it again")


def json_texts(path: Path, form: str) -> Iterator[tuple[int, bytes]]:
    """Yield ``(place, text)`` of the items of an ``array``, or of ``objects`` one after the other."""
    for place, (_, text) in enumerate(json_parts(path, 1 if form == "array" else 0), 1):
        yield place, text


def json_columns(path: Path, names: Sequence[str]) -> Iterator[tuple[int, list[Any]]]:
    """Yield ``(row, values)`` of a JSON object of columns.

    Columns stand one after the other, so the file is read once for each name, side by side: a row at a time is in
    memory. Raise UserError where the columns do not have the same keys in the same order.
    """
    columns = [_column(path, name) for name in names]
    for row, cells in enumerate(zip_longest(*columns), 1):
        keys = [cell and cell[0] for cell in cells]
        if len(set(keys)) > 1:
            found = ", ".join(f"{name} has {shown(str(key))}" for name, key in zip(names, keys, strict=True))
            raise UserError(f"{path} row {row}: the columns do not have the same keys ({found}); fetch it again")
        yield row, [_parsed_in(path, row, cell[1]) for cell in cells]


def _column(path: Path, name: str) -> Iterator[tuple[Any, bytes]]:
    for keys, text in json_parts(path, 2):
        if keys[0] == name:
            yield keys[1], text


def _parsed_in(path: Path, row: int, text: bytes) -> Any:
    try:
        return parse_json(text)
    except NOT_JSON as error:
        raise _not_whole(path, row, str(error)) from error


def _not_whole(path: Path, row: int, why: str) -> UserError:
    return UserError(f"{path} row {row}: not a whole JSON file ({why}); fetch it again")


def json_parts(path: Path, depth: int) -> Iterator[tuple[tuple[Any, ...], bytes]]:
    """Yield ``(keys, text)`` of the values that lie ``depth`` containers deep (0: the file's own values).

    ``keys`` name the way to a value: names in objects, None in arrays. The texts are delimited and not parsed. Raise
    UserError for a file that ends within a value, for brackets that do not match above the values, and for a value longer
    than a text may be.
    """
    walked: list[bytes] = []  # brackets of the containers around the values
    keys: list[Any] = []
    found, empty = 0, False
    for byte, text in _pieces(path, depth):
        if found and depth and not walked:
            raise _not_whole(path, found, "there is more after its end")
        if byte and byte in b"[{":
            keys.append(_keyed(path, found + 1, text, walked)[0])
            walked.append(byte)
            empty = True
            continue
        if len(walked) == depth and (byte == b"," or text.strip() or not empty):
            found, empty = found + 1, False
            key, value = _keyed(path, found, text, walked)
            yield (*keys[1:], key), value
        if byte and byte in b"]}":
            if not walked or _CLOSES[walked.pop()] != byte:
                raise _not_whole(path, found + 1, f"{byte.decode()} closes nothing")
            keys.pop()


def _keyed(path: Path, row: int, text: bytes, walked: Sequence[bytes]) -> tuple[Any, bytes]:
    """Return the name that a text begins with, if it is in an object, and the rest of the text."""
    if not walked or walked[-1] == b"[":
        return None, text
    if not (key := _KEY.match(text)):
        raise _not_whole(path, row, f"no name before {shown(text[:60].decode(errors='replace').strip())}")
    return _parsed(key[1]), text[key.end() :]


def _pieces(path: Path, depth: int) -> Iterator[tuple[bytes, bytes]]:
    """Yield the brackets and commas that stand around the values ``depth`` deep, each with the text before it.

    The values of depth 0 have none around them: each is given after "" when its last bracket is closed.
    """
    block, place, mark, level, string, pieces = b"", 0, 0, 0, False, 0
    with reading(path), open_text(path) as file:
        while True:
            if string:
                place = cast(re.Match[bytes], _IN_STRING.match(block, place)).end()
                if block[place : place + 1] == b'"':
                    string, place = False, place + 1
                    continue
            elif hit := (_NESTED if level > depth else _STRUCTURE).search(block, place):
                byte, place = hit[0], hit.end()
                if byte == b'"':
                    string = True
                    continue
                level += (byte in b"[{") - (byte in b"]}")
                if level < depth + (byte not in b"]}") or (not depth and level <= 0 and byte in b"]}"):
                    yield (byte, block[mark : place - 1]) if depth else (b"", block[mark:place])
                    mark, pieces = place, pieces + 1
                continue
            else:
                place = len(block)
            if place - mark > opened.MAX_TEXT:
                raise too_long(path, pieces + (not depth), "an item", block[mark : mark + 60])
            new = file.read(max(_BLOCK, len(block) - mark))
            if not new:
                break
            block, place, mark = block[mark:] + new, place - mark, 0
        if level or string:
            raise _not_whole(path, pieces + (not depth), "it ends within a value")
        if block[mark:].strip():
            yield b"", block[mark:]
