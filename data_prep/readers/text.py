"""Texts of raw files, made ready for prompts; what a prompt shows is :mod:`iranker_verl.ranking.text`'s."""

from __future__ import annotations

import html
import re

from iranker_verl.ranking.text import one_line

# A comment, a script or a style sheet with what is in it, or a tag; each may be cut off at the end of the text. "I <3 You"
# is no tag.
_HTML = re.compile(
    r"<!--.*?(?:-->|\Z)|<(script|style)\b.*?(?:</\1\s*>|\Z)|</?[a-zA-Z!][^<>]*(?:>|\Z)", re.DOTALL | re.IGNORECASE
)


def without_html(text: str) -> str:
    """Return the text without HTML, on one line: tags out, entities resolved twice (shops escape what was escaped)."""
    return one_line(_HTML.sub(" ", html.unescape(html.unescape(text))))


def readable(text: str) -> str:
    """Return a text without white space around it; half of a surrogate pair, which no Parquet file can hold, becomes "?"."""
    return text.strip().encode("utf-8", "replace").decode("utf-8")


def query_key(text: str) -> str:
    """Return what makes two queries one in a split: case and white space do not tell them apart."""
    return one_line(text).casefold()


def shown(text: str) -> str:
    """Return a value as an error message shows it: quoted, on one line, 60 characters at most."""
    return repr(text if len(text) <= 60 else text[:57] + "...")
