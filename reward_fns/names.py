"""How an answer may name a candidate: by its label, by its text, or by both, exactly or normalised.

Normalising removes what a model changes without intent: HTML entities, Unicode compatibility forms (NFKC), invisible
characters, curly quotes and long dashes, case, white space, quotes and bullets around, a full stop at the end, and the
number of a list's line. It never chooses: texts that it makes equal are all found, and the caller has to
tell them apart or give up.
"""

from __future__ import annotations

import contextlib
import html
import re
import unicodedata
from collections.abc import Sequence
from functools import cached_property, lru_cache

# The tags that give a response its structure.
TAGS = ("<answer>", "</answer>", "<think>", "</think>")

_LABEL = re.compile(r"[\[(]?\s?([A-Z]{1,3})\s?[\])]?[.:]?")
_LONGEST_LABEL = 9  # characters that _LABEL can match
_LONGEST_WRITTEN_LABEL = 60  # with entities, quotes and the number of a list's line
_LABELLED_TEXT = re.compile(r"[\[(]?([A-Z]{1,3})(?:[\])][.:]?|[.:])\s+(\S.*)", re.DOTALL)
_BULLET = re.compile(r"[-\u2022] ")
_NUMBER = re.compile(r"\(?\d{1,3}[.)\]:] ")
_LISTED = re.compile(r"(?:[-\u2022]\s+)?(?:\(?\d{1,3}[.)\]:]\s+)?")
_QUOTES = "\"'`\u201c\u201d\u2018\u2019\u00ab\u00bb*_"
_AROUND = _QUOTES + " "
# Characters that look alike become equal; None deletes invisible ones (soft hyphen, zero width, direction, variation, byte order mark).
_ALIKE: dict[int, str | None] = {
    **dict.fromkeys(map(ord, "\u2018\u2019\u201b\u02bc\u00b4\u1ffd"), "'"),
    **dict.fromkeys(map(ord, "\u201c\u201d\u201e\u201f"), '"'),
    **dict.fromkeys(map(ord, "\u2010\u2011\u2012\u2013\u2014\u2212"), "-"),
    **dict.fromkeys((0xAD, 0x34F, 0x61C, 0x180E, 0xFEFF, *range(0x200B, 0x2010), *range(0x202A, 0x202F)), None),
    **dict.fromkeys((*range(0x2060, 0x2070), *range(0xFE00, 0xFE10)), None),
}
# Numerals of one character are numbers and no labels, though NFKC writes them with letters.
_NUMERALS = dict.fromkeys(range(0x2160, 0x2170), "#")
# NFKC sorts a run of combining marks in quadratic time; a "stream-safe" text (UAX #15) has at most this many in a row.
_MOST_MARKS = 30


def label(index: int) -> str:
    """Return the label of the ``index``-th candidate (0-based): A, B, …, Z, AA, AB, … Raise ValueError below 0.

    >>> label(0), label(25), label(26)
    ('A', 'Z', 'AA')
    """
    if index < 0:
        raise ValueError(f"a candidate's index is 0 or more, got {index}")
    letters = ""
    index += 1
    while index:
        index, rest = divmod(index - 1, 26)
        letters = chr(ord("A") + rest) + letters
    return letters


def label_index(text: str) -> int:
    """Return the index of a label, as :func:`label` writes it. Raise ValueError for anything but capital letters A to Z."""
    if not text or any(not "A" <= c <= "Z" for c in text):
        raise ValueError(f"a label is made of the letters A to Z, got {text!r}")
    value = 0
    for c in text:
        value = value * 26 + ord(c) - ord("A") + 1
    return value - 1


def plain(text: str) -> str:
    """Return ``text`` normalised, but with the number of a list's line: "2. Fast 2 Furious" may be a title."""
    return _fold(_clean(text))


def _clean(text: str) -> str:
    """Return ``text`` with entities, Unicode forms and white space normalised; case, and so labels, stay."""
    return _even(_unescape(text))


def _unescape(text: str) -> str:
    with contextlib.suppress(ValueError):  # "&#999…;" with more digits than int() takes
        return html.unescape(text)
    return text


def _even(text: str) -> str:
    if not text.isascii():
        # NFKC makes some of what looks alike (as in "\u0149"), and makes a space and a mark of an accent by itself
        text = _compatible(text.translate(_ALIKE)).translate(_ALIKE)
    return " ".join(text.split())


def _fold(cleaned: str) -> str:
    text = cleaned.casefold().lstrip(_AROUND)
    return _strip_end(_BULLET.sub("", text, count=1) if _BULLET.match(text) else text)


def bare(plain_text: str) -> str:
    """Return a :func:`plain` text without the number of a list's line."""
    found = _NUMBER.match(plain_text)
    return _strip_end(plain_text[found.end() :]) if found else plain_text


def normalise(text: str) -> str:
    """Return ``text`` reduced to what identifies a candidate, without the number of a list's line.

    >>> normalise("2.  &quot;The Film&quot;.")
    'the film'
    """
    return bare(plain(text))


def _strip_end(text: str) -> str:
    return text.lstrip(_AROUND).rstrip(_AROUND + ".")


def _compatible(text: str) -> str:
    """Return ``text`` in NFKC, in linear time: a text with an absurd run of combining marks stays as it is."""
    marks = {c for c in set(text) if not c.isascii() and unicodedata.combining(unicodedata.normalize("NFKD", c)[0])}
    if marks:
        run = 0
        for c in text:
            run = run + 1 if c in marks else 0
            if run > _MOST_MARKS:
                return text
    return unicodedata.normalize("NFKC", text)


class Pool:
    """The candidates of one prompt, and every name that they have; :func:`pool` makes and caches it.

    ``texts`` are theirs, stripped; the i-th has the i-th label. ``tagged`` are the texts that contain a tag themselves, which
    may not be taken for the response's own.
    """

    def __init__(self, texts: Sequence[str]) -> None:
        """Index the candidates' ``texts``."""
        self.texts = tuple(map(str.strip, texts))  # as an answer is
        self._index = dict(zip(self.texts, range(len(self.texts)), strict=True))
        # A name is not much longer than any candidate; this bounds the work.
        self._longest = 4 * max(map(len, self.texts), default=0) + 100
        marked = "<" in "".join(self.texts)
        self.tagged = tuple(t for t in self._index if any(tag in t for tag in TAGS)) if marked else ()
        self._cut: dict[re.Pattern[str], tuple[int, dict[str, set[tuple[int, str]]]]] = {}

    def with_text(self, text: str) -> tuple[int, ...]:
        """Return the candidates whose text is exactly ``text``."""
        if len(self._index) < len(self.texts):
            return tuple(i for i, other in enumerate(self.texts) if other == text)
        return (self._index[text],) if text in self._index else ()

    @cached_property
    def _normal(self) -> tuple[dict[str, set[str]], dict[str, set[str]]]:
        """Return candidates' texts by their plain and by their bare form."""
        by_plain: dict[str, set[str]] = {}
        by_bare: dict[str, set[str]] = {}
        for text in self._index:
            form = _plain(text)
            by_plain.setdefault(form, set()).add(text)
            by_bare.setdefault(bare(form), set()).add(text)
        return by_plain, by_bare

    @cached_property
    def _hold_labels(self) -> bool:
        """Return whether a normalised text begins like a label ("B." may mean the film "B")."""
        return any(_label(form.upper())[0] >= 0 for form in self._normal[1])

    def find(self, name: str) -> list[tuple[int, ...]]:
        """Return the readings of ``name``, each a tuple of one candidate, or of several of one text.

        It names no candidate where there is none, and is ambiguous where there is more than one. An exact reading goes before a
        normalised one, except that of a label and a full stop: normalised, it is a text without one.
        """
        name = name.strip()
        if not name or len(name) > self._longest:
            return []
        exact = self._with_label([self.with_text(name)] if name in self._index else [], name, near=False)
        dotted = name.endswith(".") and not _label(name)[1]
        if exact and (name in self._index or not dotted or not self._hold_labels):
            return exact
        name = _unescape(name)
        cleaned = _even(name)
        similar = [self.with_text(text) for text in self._similar(cleaned)]
        return similar if _numbered(name) else self._with_label(similar, _unlisted(cleaned), near=True)

    def _with_label(self, readings: list[tuple[int, ...]], name: str, near: bool) -> list[tuple[int, ...]]:
        """Return ``readings`` of a name as a text, and that as a label, alone or before the text of the same candidate."""
        index, rest = _label(name)
        if not 0 <= index < len(self.texts):
            return readings
        if rest and self.texts[index] not in (self._similar(rest) if near else (rest,)):
            return readings
        # a label tells candidates of one text apart
        return [group for group in readings if index not in group] + [(index,)]

    def _similar(self, cleaned: str) -> set[str]:
        """Return the candidates' texts that a cleaned text equals once normalised.

        A list's number may be on one side only: "3. Heat" is "Heat", and so is "Heat" for "3. Heat", but not "2. Heat".
        """
        whole = _fold(cleaned)
        by_plain, by_bare = self._normal
        found = set[str]()
        for name, forms in ((whole, by_plain), (bare(whole), by_plain), (whole, by_bare)):
            found |= forms.get(name, found) if name else found
        return found

    def parts(self, separator: re.Pattern[str]) -> int:
        """Return how many parts ``separator`` cuts all texts into."""
        return self._cut_at(separator)[0]

    def joints(self, separator: re.Pattern[str]) -> dict[str, set[tuple[int, str]]]:
        """Return, for texts with ``separator``, by their second part, their number of parts and the last; normalised."""
        return self._cut_at(separator)[1]

    def _cut_at(self, separator: re.Pattern[str]) -> tuple[int, dict[str, set[tuple[int, str]]]]:
        if separator not in self._cut:
            count, found = 0, dict[str, set[tuple[int, str]]]()
            for text in self.texts:
                parts = [text[start:end] for start, end in cut(text, separator)]
                count += max(1, len(parts))
                if len(parts) > 1:
                    found.setdefault(_plain(parts[1]), set()).add((len(parts), _plain(parts[-1])))
            self._cut[separator] = count, found
        return self._cut[separator]


def cut(text: str, separator: re.Pattern[str]) -> list[tuple[int, int]]:
    """Return where the parts of ``text`` between separators begin and end, without blank ones."""
    edges = [0, *(edge for found in separator.finditer(text) for edge in found.span()), len(text)]
    return [(start, end) for start, end in zip(edges[::2], edges[1::2], strict=True) if text[start:end].strip()]


@lru_cache(maxsize=2048)
def pool(texts: tuple[str, ...]) -> Pool:
    """Return the :class:`Pool` of candidates' texts, cached, since rollouts answer the same prompt many times."""
    return Pool(texts)


_plain = lru_cache(maxsize=16_384)(plain)


def is_label(name: str) -> bool:
    """Return whether ``name`` is a label and nothing else, whether or not a candidate has it."""
    if len(name) > _LONGEST_WRITTEN_LABEL:
        return False
    name = _unescape(name)
    index, rest = _label(_unlisted(_even(name)))
    return index >= 0 and not rest and not _numbered(name)


def _numbered(unescaped: str) -> bool:
    """Return whether a numeral of one character is in a label's position."""
    if unescaped.isascii():
        return False
    without = unescaped.translate(_NUMERALS)
    return without != unescaped and _label(_unlisted(_even(without)))[0] < 0


def _unlisted(cleaned: str) -> str:
    """Return a cleaned name without the number, the bullet and the quotes of a list's line."""
    name = cleaned.strip(_AROUND)
    return name[len(_LISTED.match(name)[0]) :].strip(_AROUND)  # type: ignore[index]  # it matches the empty text too


def _label(name: str) -> tuple[int, str]:
    """Return the index of the label that ``name`` is, or begins with, and the text behind it; -1 where it has none."""
    if len(name) <= _LONGEST_LABEL and (index := _label_alone(name)) >= 0:
        return index, ""
    match = _LABELLED_TEXT.fullmatch(name)
    return (label_index(match[1]), match[2]) if match else (-1, "")


@lru_cache(maxsize=4096)
def _label_alone(name: str) -> int:
    match = _LABEL.fullmatch(name)
    return label_index(match[1]) if match else -1
