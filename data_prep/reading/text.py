"""Text as prompts show it."""

from __future__ import annotations

import html
import re

# A tag, or one that was cut off at the end of the text. "I <3 You" is no tag.
_TAG = re.compile(r"</?[a-zA-Z!][^<>]*(?:>|$)")


def one_line(text: str) -> str:
    """White space of every kind, line breaks included, becomes single spaces."""
    return " ".join(text.split())


def without_html(text: str) -> str:
    """Tags out, entities resolved (twice: shops escape what was escaped), on one line."""
    return one_line(_TAG.sub(" ", html.unescape(html.unescape(text))))


def query_key(text: str) -> str:
    """What makes two queries one in a split: case and white space do not tell them apart."""
    return one_line(text).casefold()


def shown(text: str) -> str:
    """A value as an error message shows it: quoted, on one line, 60 characters at most."""
    return repr(text if len(text) <= 60 else text[:57] + "...")
