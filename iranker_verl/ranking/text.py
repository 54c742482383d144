"""Text as prompts show it: in preparation and in serving, so that a model is asked as it was taught."""

from __future__ import annotations

import re

_SURROGATE = re.compile("[\ud800-\udfff]")


def one_line(text: str) -> str:
    """White space of every kind, line breaks included, becomes single spaces."""
    return " ".join(text.split())


def clean(text: str) -> str:
    """On one line, and without halves of characters (a JSON file can hold them, Parquet cannot)."""
    return one_line(_SURROGATE.sub("\ufffd", text))
