"""Read a response: which candidate does it exclude, or which order does it give?

The parser reads the *response* only, never the prompt (otherwise a prompt that has the answer format would be read as an answer,
fault 2 of the published code), and it never guesses: what it cannot read is a failure with a status.

A response is read in this order:

1. everything up to the last ``</think>`` is reasoning and is dropped; a ``<think>`` without an end leaves no answer;
2. if ``<answer>…</answer>`` occurs, its content is the answer; several blocks with different content, or another one
   without an end, are ``several``;
3. otherwise the whole rest is the answer, and it has to consist of names alone.

A name is a label (``[C]``, ``C``, ``(C)``, ``C.``), the text of a candidate, or a label with the text of the same
candidate: exact first, then normalised (:mod:`reward_fns.names`). A name that fits candidates of different texts is
``several``: a film called "B" with the label A can be excluded by ``[A]`` but not by ``B``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache, lru_cache
from typing import NamedTuple

from reward_fns.names import TAGS, Pool, cut, is_label, label, label_index, normalise, plain, pool

__all__ = [
    "MAX_ANSWER_CHARS",
    "NOT_A_CANDIDATE",
    "NO_ANSWER",
    "OK",
    "PARTIAL",
    "SEVERAL",
    "Exclusion",
    "Ranking",
    "answer_text",
    "exclusion_from",
    "label",
    "label_index",
    "normalise",
    "parse_exclusion",
    "parse_ranking",
    "tidy",
]

OK = "ok"
NO_ANSWER = "no_answer"
NOT_A_CANDIDATE = "not_a_candidate"
SEVERAL = "several"
# A ranking that names some candidate, but not every candidate once and nothing else.
PARTIAL = "partial"

# Separators of the items of a ranking: models also write arrows, and ">" as HTML does.
_LINE, _COMMA = re.compile("\n"), re.compile("[,\uff0c\u3001]")
_ABOVE = re.compile("[-=\u2013\u2014]{0,2}(?:[>\uff1e\u2192\u21d2]|&(?:gt|rarr|rArr);)")
_SEPARATORS = (_LINE, _ABOVE, _COMMA)

# Longer answers than this are not read, to bound the work on hostile input.
MAX_ANSWER_CHARS = 20_000

_ANSWER, _END_ANSWER, _THINK, _END_THINK = TAGS


@dataclass(frozen=True, slots=True)
class Exclusion:
    """The candidate that a response excludes.

    ``index`` is the candidate's (0-based), or None, for the reason ``status``. ``tidy`` is :func:`tidy` of a response that names
    one; it is not compared, since equal exclusions may be written differently.
    """

    index: int | None
    status: str
    tidy: bool = field(default=False, compare=False)

    @property
    def ok(self) -> bool:
        """Return whether the response was read without a fault."""
        return self.status == OK


@dataclass(frozen=True, slots=True)
class Ranking:
    """The order that a response gives.

    ``order`` has the candidates' indices (0-based), best first, each once, as far as the answer goes. ``repeated`` and ``unknown``
    count its other items: candidates named before, and items that name none. ``status`` is ``ok`` where every candidate is named
    once and nothing else is, ``partial`` for any other order, otherwise the reason why there is none. ``ranks`` is ``order`` with
    None at the rank of every item that names no candidate; it is not compared.
    """

    order: tuple[int, ...]
    status: str
    repeated: int = 0
    unknown: int = 0
    ranks: tuple[int | None, ...] = field(default=(), compare=False)

    @property
    def ok(self) -> bool:
        """Return whether the response was read without a fault."""
        return self.status == OK


def answer_text(response: str) -> tuple[str | None, str]:
    """Return the part of a response that is the answer, as ``(text, status)``; text is None where status is a failure."""
    return _read(response)[:2]


def tidy(response: str) -> bool:
    """Return whether a response has the form that prompts ask for, and nothing else.

    It is an optional ``<think>…</think>`` (or ``…</think>``, where the prompt opened it), and then one ``<answer>…</answer>``
    or an answer without tags.
    """
    return _read(response)[2]


def _read(response: str) -> tuple[str | None, str, bool]:
    """Return the answer, the status, and whether the response is tidy; by str.find alone, which is linear on hostile input."""
    if not isinstance(response, str):
        return None, NO_ANSWER, False
    closed, neat = response.rfind(_END_THINK), True
    if closed >= 0:
        begin = len(_THINK) if response.startswith(_THINK) else 0
        if response.find("<", begin, closed) >= 0:  # finding one letter is faster than finding a tag
            reasoning = response[:closed].lstrip().removeprefix(_THINK)
            neat = _THINK not in reasoning and _END_THINK not in reasoning
        response = response[closed + len(_END_THINK) :]
    marked = "<" in response
    if marked and _THINK in response:
        return None, NO_ANSWER, False
    at = response.find(_ANSWER) if marked else -1
    if at < 0:
        rest = response.strip()
        if not rest or len(rest) > MAX_ANSWER_CHARS:
            return None, NO_ANSWER, False
        return rest, OK, neat and not (marked and _END_ANSWER in rest)
    neat = neat and not response[:at].strip()
    answer: str | None = None
    while at >= 0:
        start = at + len(_ANSWER)
        end = response.find(_END_ANSWER, start)
        if end < 0:
            return None, NO_ANSWER if answer is None else SEVERAL, False
        block = response[start:end].strip()
        if answer is not None:
            if block != answer:
                return None, SEVERAL, False
            neat = False
        answer = block
        at = response.find(_ANSWER, end)
    if not answer or len(answer) > MAX_ANSWER_CHARS:
        return None, NO_ANSWER, False
    return answer, OK, neat and not response[end + len(_END_ANSWER) :].strip()


def parse_exclusion(response: str, candidates: Sequence[str]) -> Exclusion:
    """Return which of ``candidates`` (the i-th has the i-th label) ``response`` excludes.

    Of equal texts, the text means the first, and a label tells them apart.
    """
    return exclusion_from(response, pool(tuple(candidates)))


def exclusion_from(response: str, names: Pool) -> Exclusion:
    """Return :func:`parse_exclusion` for the names of a known pool."""
    text, status, neat = _read(response)
    readings = names.find(text) if text is not None else []
    if names.tagged and isinstance(response, str):
        spelt = [names.with_text(t) for t in names.tagged if _spells(response, t)]
        readings += [group for group in spelt if group not in readings]
    if len(readings) == 1:
        return _exclusion(readings[0][0], OK, neat)
    return _exclusion(None, SEVERAL if readings else NOT_A_CANDIDATE if text is not None else status)


_exclusion = lru_cache(maxsize=1024)(Exclusion)


def _spells(response: str, text: str) -> bool:
    """Return whether ``text``, which contains a tag itself, is the whole answer: bare or inside ``<answer>``, with reasoning or without."""
    bare = response.strip()
    forms = [(bare, "")]
    if bare.endswith(_END_ANSWER):
        forms.append((bare.removesuffix(_END_ANSWER).rstrip(), _ANSWER))
    for form, opening in forms:
        before = form.removesuffix(text).rstrip()
        if form.endswith(text) and before.endswith(opening):
            reasoning = before.removesuffix(opening).rstrip()
            if not reasoning or reasoning.endswith(_END_THINK):
                return True
    return False


def parse_ranking(response: str, candidates: Sequence[str]) -> Ranking:
    """Return the order that ``response`` gives to ``candidates`` (the i-th has the i-th label), best first.

    Names stand one a line, or in a row between ``>`` (or an arrow) or commas, numbered or not: ``[B] > [A]``, ``1. Heat``
    and ``2. Alien`` on two lines, ``C, A, B``. The separator is the one under which the whole answer is names, otherwise the
    one that finds most of them; where two find different orders, or texts that hold the separator can be cut in two
    ways, the answer is ``several``. A comma is trusted beside unknown items only where all are labels, since it is part of
    many titles. In an answer without tags every item has to be a name, if only a label that no candidate has: otherwise it is
    prose, or the prompt repeated. Equal texts are taken in the order of the prompt.
    """
    names = pool(tuple(candidates))
    text, status = answer_text(response)
    if text is None:
        return Ranking((), status)
    separators = [separator for separator in _SEPARATORS if separator.search(text)] or _SEPARATORS[:1]
    cuts = [way for separator in separators if (way := _cut(names, text, separator))]
    best = max(map(_understood, cuts), default=0.0)
    cuts = [way for way in cuts if _understood(way) == best]
    if not best or (cuts[0].prose and _ANSWER not in response):
        return Ranking((), NOT_A_CANDIDATE)
    if any(cut.ways > 1 for cut in cuts) or len({tuple(filter(None, cut.items)) for cut in cuts}) > 1:
        return Ranking((), SEVERAL)
    order: dict[int, None] = {}
    ranks: list[int | None] = []
    for equals in cuts[0].items:
        new = next((i for i in equals if i not in order), None)
        if new is not None:
            order[new] = None
        if new is not None or not equals:
            ranks.append(new)
    repeated, unknown = len(cuts[0].items) - len(ranks), len(ranks) - len(order)
    whole = len(order) == len(names.texts) and not repeated and not unknown
    return Ranking(tuple(order), OK if whole else PARTIAL, repeated, unknown, tuple(ranks))


class _Cut(NamedTuple):
    """An answer cut into items. An item has the candidates (of one text) that it names, and is empty where it names none.

    ``ways``: the number of equally good cuts. ``prose``: some item is not even a label.
    """

    items: tuple[tuple[int, ...], ...]
    ways: int
    prose: bool


def _understood(cut: _Cut) -> float:
    return math.inf if all(cut.items) else sum(map(bool, cut.items))


def _cut(names: Pool, text: str, separator: re.Pattern[str]) -> _Cut | None:
    """Return ``text`` cut at ``separator`` so that the fewest parts are unknown; None where that cannot be a ranking.

    An item is one part, or as many as the text of a candidate that contains the separator has.
    """
    spans = cut(text, separator)
    parts = [text[start:end] for start, end in spans]
    if not 0 < len(parts) <= 4 * names.parts(separator):  # more would be every candidate four times
        return None
    joints = names.joints(separator)
    find = cache(names.find)  # hostile answers repeat items
    inner = list(map(cache(plain), parts[1:])) if joints else []
    # for parts[at:]: how many are unknown, in how many ways that is so, the first item, and its number of parts
    tails: list[tuple[int, int, tuple[int, ...], int]] = [(0, 1, (), 0)] * (len(parts) + 1)
    for at in reversed(range(len(parts))):
        options: list[tuple[int, int, tuple[int, ...], int]] = [(tails[at + 1][0] + 1, tails[at + 1][1], (), 1)]
        whole = joints.get(inner[at], ()) if at < len(inner) else ()
        for length in (1, *{n for n, last in whole if inner[at + n - 2 : at + n - 1] == [last]}):
            unknown, ways = tails[at + length][:2]
            for item in find(text[spans[at][0] : spans[at + length - 1][1]]):
                options.append((unknown, ways, item, length))
        least = min(option[0] for option in options)
        best = [option for option in options if option[0] == least]
        tails[at] = (least, min(2, sum(option[1] for option in best)), *best[0][2:])
    items, prose, at = [], False, 0
    while at < len(parts):
        items.append(tails[at][2])
        prose = prose or not (items[-1] or is_label(parts[at]))
        at += tails[at][3]
    if separator is _COMMA and tails[0][0] and not all(map(is_label, parts)):
        return None
    return _Cut(tuple(items), tails[0][1], prose)
