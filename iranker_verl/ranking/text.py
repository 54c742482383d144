"""Text as prompts show it: in preparation and in serving, so that a model is asked as it was taught."""

from __future__ import annotations

import re

_SURROGATE = re.compile("[\ud800-\udfff]")


def one_line(text: str) -> str:
    """White space of every kind, line breaks included, becomes single spaces."""
    return " ".join(text.split())


def whole(text: str) -> str:
    """Without halves of characters, which JSON can hold and UTF-8 cannot: U+FFFD stands in their places."""
    return _SURROGATE.sub("\ufffd", text)


def clean(text: str) -> str:
    """:func:`whole`, and on one line."""
    return one_line(whole(text))
