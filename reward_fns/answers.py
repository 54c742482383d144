"""Reading an answer: which candidate does a response name?

The parser sees the *response* only, never the prompt (a prompt that shows the answer format would otherwise be read as an
answer, see fault 2 of the published code), and it never guesses: what it cannot read is a reported failure.

A response is read in this order:

1. everything up to the last ``</think>`` is thought and is dropped; a ``<think>`` that never closes leaves no answer;
2. if ``<answer>…</answer>`` occurs, its content is the answer; several blocks with different content are ``several``,
   and so is a text that, normalised, fits candidates of different texts;
3. otherwise the whole rest is the answer, and it has to be nothing but a label or a candidate's text.

An answer is a label (``[C]``, ``C``) or the text of a candidate, exact first, then normalised
(Unicode NFKC, HTML entities, case, white space, outer quotes, list numbering).
"""

from __future__ import annotations

import contextlib
import html
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

OK = "ok"
NO_ANSWER = "no_answer"
NOT_A_CANDIDATE = "not_a_candidate"
SEVERAL = "several"

# Longer answers than this name nothing: it bounds the work on hostile input.
MAX_ANSWER_CHARS = 20_000

_LABEL = re.compile(r"\[?\s?([A-Z]{1,3})\s?\]?[.:]?")
_LABELLED_TEXT = re.compile(r"\[([A-Z]{1,3})\]\s+(\S.*)", re.DOTALL)
_NUMBERING = re.compile(r"\A(?:[-\u2022] )?(?:\(?\d{1,3}[.)\]:] )?")
_QUOTES = "\"'`\u201c\u201d\u2018\u2019\u00ab\u00bb*_"


@dataclass(frozen=True)
class Answer:
    """What a response names. ``index`` is the candidate's place (0-based) or None; ``status`` says why."""

    index: int | None
    status: str

    @property
    def ok(self) -> bool:
        return self.status == OK


def label(index: int) -> str:
    """The label of the ``index``-th candidate (0-based): A, B, …, Z, AA, AB, … Raises ValueError below 0."""
    if index < 0:
        raise ValueError(f"a candidate's index is 0 or more, got {index}")
    letters = ""
    index += 1
    while index:
        index, rest = divmod(index - 1, 26)
        letters = chr(ord("A") + rest) + letters
    return letters


def label_index(text: str) -> int:
    """The inverse of :func:`label`. Raises ValueError for anything but capital letters A to Z."""
    if not text or any(not "A" <= c <= "Z" for c in text):
        raise ValueError(f"a label is made of the letters A to Z, got {text!r}")
    value = 0
    for c in text:
        value = value * 26 + ord(c) - ord("A") + 1
    return value - 1


def normalise(text: str) -> str:
    """Text reduced to what identifies a candidate: entities, Unicode form, case, white space, numbering and quotes."""
    with contextlib.suppress(ValueError):  # "&#999…;" with more digits than int() takes
        text = html.unescape(text)
    text = " ".join(unicodedata.normalize("NFKC", text).casefold().split())
    text = _NUMBERING.sub("", text.lstrip(_QUOTES + " "), count=1)
    return text.lstrip(_QUOTES + " ").rstrip(_QUOTES + " .")


def answer_text(response: str) -> tuple[str | None, str]:
    """The part of a response that is the answer, as ``(text, status)``; text is None where status is a failure."""
    if not isinstance(response, str):
        return None, NO_ANSWER
    closed = response.rfind("</think>")
    if closed >= 0:
        response = response[closed + len("</think>") :]
    if "<think>" in response:
        return None, NO_ANSWER
    blocks: list[str] = []
    at = response.find("<answer>")
    if at < 0:
        rest = response.strip()
        return (rest, OK) if rest and len(rest) <= MAX_ANSWER_CHARS else (None, NO_ANSWER)
    while at >= 0:  # str.find, not a lazy regex: linear on hostile input
        start = at + len("<answer>")
        end = response.find("</answer>", start)
        if end < 0:
            break
        block = response[start:end].strip()
        if block not in blocks:
            blocks.append(block)
        if len(blocks) > 1:
            return None, SEVERAL
        at = response.find("<answer>", end)
    if not blocks or not blocks[0] or len(blocks[0]) > MAX_ANSWER_CHARS:
        return None, NO_ANSWER
    return blocks[0], OK


def parse_exclusion(response: str, candidates: Sequence[str]) -> Answer:
    """Which of ``candidates`` (the i-th bears the i-th label) does ``response`` exclude?

    A candidate whose whole text is a label (a film called "M") is found by ``[M]`` as a label only where that label
    exists; an exact candidate text goes before a bare label. Equal texts: the first of them is meant (they are told
    apart by label).
    """
    text, status = answer_text(response)
    if text is None:
        return Answer(None, status)
    texts = [t.strip() for t in candidates]  # as the answer is
    if text in texts:
        return Answer(texts.index(text), OK)
    if len(text) <= 9 and (match := _LABEL.fullmatch(text)):
        index = label_index(match.group(1))
        if index < len(texts):
            return Answer(index, OK)
    wanted = normalise(text)
    if wanted:
        normal = [normalise(t) for t in texts]
        if wanted in normal:
            if len({t for t, n in zip(texts, normal, strict=True) if n == wanted}) > 1:
                return Answer(None, SEVERAL)
            return Answer(normal.index(wanted), OK)
        # "[C] the candidate's text": the label and the text must name the same candidate.
        if match := _LABELLED_TEXT.fullmatch(text):
            index = label_index(match.group(1))
            if index < len(texts) and normalise(match.group(2)) == normal[index]:
                return Answer(index, OK)
    return Answer(None, NOT_A_CANDIDATE)
