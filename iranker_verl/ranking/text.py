"""Text as prompts show it, the same in preparation and in serving."""

from __future__ import annotations

import re
from unicodedata import normalize

_SURROGATE = re.compile("[\ud800-\udfff]")


def one_line(text: str) -> str:
    """Return ``text`` with single spaces for white space of every kind, line breaks included."""
    return " ".join(text.split())


def whole(text: str) -> str:
    """Return ``text`` with U+FFFD for halves of characters, which JSON can hold and UTF-8 cannot."""
    return _SURROGATE.sub("\ufffd", text)


def printable(text: str) -> str:
    """Return ``text`` with a space for every character that is no printable one: what a terminal or a log may be given."""
    return "".join(c if c.isprintable() else " " for c in text)


def clean(text: str) -> str:
    """Return ``text`` as :func:`whole` does, on one line, and composed (NFC): what reads alike is one text."""
    return normalize("NFC", one_line(whole(text)))


def shorten(text: str, most: int) -> str:
    """Return ``text``, or as many of its words as fit in ``most`` characters, and ``…``. Only a first word may be cut."""
    if len(text) <= most:
        return text
    words, space, _ = text[: most - 1].rpartition(" ")
    return f"{words} …" if space else f"{text[: most - 1]}…"
