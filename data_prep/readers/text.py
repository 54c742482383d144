"""Texts of raw files, made ready for prompts; what a prompt shows is :mod:`iranker_verl.ranking.text`'s."""

from __future__ import annotations

import html
import re

from iranker_verl.ranking.text import one_line

# A tag, or one that was cut off at the end of the text. "I <3 You" is no tag.
_TAG = re.compile(r"</?[a-zA-Z!][^<>]*(?:>|$)")


def without_html(text: str) -> str:
    """Tags out, entities resolved (twice: shops escape what was escaped), on one line."""
    return one_line(_TAG.sub(" ", html.unescape(html.unescape(text))))


def query_key(text: str) -> str:
    """What makes two queries one in a split: case and white space do not tell them apart."""
    return one_line(text).casefold()


def shown(text: str) -> str:
    """A value as an error message shows it: quoted, on one line, 60 characters at most."""
    return repr(text if len(text) <= 60 else text[:57] + "...")
