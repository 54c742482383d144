"""The one exception for a user's mistake: the command line prints its message as one line and exits with code 2."""

from __future__ import annotations


class UserError(Exception):
    """Says what is wrong (file, row, value) and what to do about it, in one line."""


def first_line(error: BaseException, most: int = 200) -> str:
    """Return the first line of an exception's message, at most ``most`` characters; the type's name where it is empty."""
    message = error.args[0] if error.args else ""
    text = message.decode("utf-8", "replace") if isinstance(message, bytes) else str(error)  # ijson's may be bytes
    return next(iter(text.strip().splitlines()), type(error).__name__)[:most]
