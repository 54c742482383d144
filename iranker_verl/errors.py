"""The one exception for a user's mistake, and the one line that says what a program ended of."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

# A line of a traceback or log that names an exception; what Ray puts before a worker's lines is not part of it.
_RAISED = re.compile(
    r"^\s*(?:\([^()]*\bpid=[^()]*\)\s*)?((?:[A-Za-z_]\w*\.)*[A-Za-z_]\w*(?:Error|Exception|Killed))(?:\(\w+\))?(?:: (.*))?$"
)
# Exceptions that hand on another one and say nothing by themselves.
_WRAPPERS = ("RayTaskError", "CalledProcessError", "EngineDeadError", "ActorDiedError", "ActorUnavailableError")


# What parsers of JSON raise for a text that is none; of thousands of brackets in each other it is a RecursionError.
NOT_JSON = (ValueError, RecursionError)
# What opening a file raises where there is none: a folder of its name is none either.
NO_FILE = (FileNotFoundError, NotADirectoryError, IsADirectoryError)


class UserError(Exception):
    """Says what is wrong (file, row, value) and what to do about it, in one line."""


def first_line(error: BaseException, most: int = 200) -> str:
    """Return the first line of an exception's message, at most ``most`` characters; the type's name where it is empty."""
    message = error.args[0] if error.args else ""
    text = message.decode("utf-8", "replace") if isinstance(message, bytes) else str(error)  # of some parsers, bytes
    return next(iter(text.strip().splitlines()), type(error).__name__)[:most]


def chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an exception and what it was raised from, the innermost last: Ray's causes, groups, and ``raise … from``."""
    seen: set[int] = set()
    todo = [error]
    while todo:
        one = todo.pop(0)
        if id(one) in seen:
            continue
        seen.add(id(one))
        yield one
        inner = [getattr(one, "cause", None), *getattr(one, "exceptions", ()), one.__cause__]
        todo += [other for other in inner if isinstance(other, BaseException)]


def user_error_of(error: BaseException) -> str | None:
    """Return the message of the :class:`UserError` that an exception comes from, in any process.

    Ray raises an instance of both its own class and ``UserError``, whose message is a traceback: its cause counts, or, where
    the exception itself could not travel, what the traceback says.
    """
    told = None
    for one in chain(error):
        if isinstance(one, UserError) and not _is_wrapper(type(one).__name__):
            return str(one)
        if (said := last_raised(str(one).splitlines())) and said[0] == "UserError" and said[1]:
            told = said[1]
    return told


def described(error: BaseException) -> str:
    """Return ``Type: first line`` of an exception; of one of Ray's, that of its cause."""
    while _is_wrapper(type(error).__name__) and isinstance(inner := getattr(error, "cause", None), BaseException):
        error = inner
    return f"{type(error).__name__}: {first_line(error)}"


def _is_wrapper(name: str) -> bool:
    return name.rpartition(".")[2].partition("(")[0] in _WRAPPERS


def last_raised(lines: Iterable[str]) -> tuple[str, str] | None:
    """Return ``(type without its module, message)`` of the exception that lines of a traceback or log tell of.

    The last ``UserError`` if there is one; else the last exception that is no mere wrapper of another; else the last.
    """
    user = own = wrapper = None
    for line in lines:
        if not (match := _RAISED.match(line)):
            continue
        name, said = match[1], (match[1].rpartition(".")[2], match[2] or "")
        if said[0] == "UserError" and said[1]:
            user = said
        elif _is_wrapper(name) or "root cause above" in said[1]:  # as vLLM says of its engine
            wrapper = (name, said[1])
        else:
            own = (name, said[1])
    return user or own or wrapper
