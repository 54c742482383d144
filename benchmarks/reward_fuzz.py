"""A mutational fuzzer of answers: whatever is written, no exception, no wrong candidate, nothing paid above the perfect answer.

``python -m benchmarks.reward`` runs it a million times. Each answer begins as a good one, in one of many forms, and is then
cut, doubled, spliced and sprinkled with markup. What may be read from it is decided by :func:`named`, which is independent
of the parser and deliberately generous.
"""

from __future__ import annotations

import contextlib
import html
import random
import re
import unicodedata
from collections.abc import Iterator, Sequence

from reward_fns import direct, exclusion
from reward_fns.answers import label, parse_exclusion, parse_ranking
from reward_fns.names import TAGS

# Texts that are hard to tell apart or to read, and what is sprinkled over answers.
WORDS = re.split(
    r"\|",
    "Heat|Alien|Up|Fast 2 Furious|2. Fast|1984.|300: Rise|M|B|[A]|A. Heat|Tom &amp; Jerry|Tom & Jerry|Good, Bad, The|x > y|"
    "Am\u00e9lie|Ame\u0301lie|Schindler\u2019s|Schindler's|it's|TABOO|Taboo|...|\u00abQ\u00bb|\u6771\u4eac|\u0410lien|a\u200bb|"
    "ab|<answer>|</answer>|the </think> tag|<answer>A</answer>",
)
MARKS = re.split(
    r"\|",
    '<answer>|</answer>|<think>|</think>|[A]|[B]|[|]|A|B.|1. |- |\n| |, | > |&amp;|&#65;|&#|"|*|\u0301|\u200b|\ud800|\0|'
    "\uff08|\uff21|]]]]]]]]]|<answer><answer><answer>|not |\u3002",
)
FORMS = (
    "{}",
    "<answer>{}</answer>",
    "<think>hm</think>\n<answer>\n{}\n</answer>",
    "I say <answer>{}</answer>.",
    "so</think>{}",
)


def pool(draw: random.Random) -> list[str]:
    """Return candidates' texts that are hard to tell apart."""
    texts = draw.sample(WORDS, draw.randint(2, 8))
    return [f"{t} ({1990 + i})" if draw.random() < 0.3 else t for i, t in enumerate(texts)]


def answer(draw: random.Random, texts: Sequence[str]) -> str:
    """Return a good answer after up to four mutations."""
    indices = draw.sample(range(len(texts)), draw.choice([1, 1, 1, len(texts)]))
    written = draw.choice([" > ", ", ", "\n"]).join(
        draw.choice(
            [f"[{label(i)}]", label(i), texts[i], f"[{label(i)}] {texts[i]}", texts[i].upper(), f"2. {texts[i]}"]
        )
        for i in indices
    )
    made = draw.choice(FORMS).format(written)
    for _ in range(draw.randint(0, 4)):
        at, to = sorted((draw.randint(0, len(made)), draw.randint(0, len(made))))
        change = draw.randrange(5)
        if change == 0:
            made = made[:at] + draw.choice(MARKS) + made[at:]
        elif change == 1:
            made = made[:at] + made[to:]
        elif change == 2:
            made = made[:to] + made[at:]
        elif change == 3:
            made = made[:at] + draw.choice(texts) + made[at:]
        else:
            made = made[:at] + made[at:to].swapcase() + made[to:]
    return made


def named(response: str, texts: Sequence[str]) -> set[int]:
    """Return the candidates that a generous reader could take ``response`` to exclude."""
    rest = response.rpartition("</think>")[2]
    blocks = [piece.partition("</answer>")[0] for piece in rest.split("<answer>")[1:]] or [rest]
    forms = {form for block in blocks for form in _forms(block)}
    found = set()
    for i, text in enumerate(texts):
        mark = re.compile(rf"\W*(?:\d{{1,3}}\W+)?{label(i)}(\W.*|$)", re.DOTALL)
        behind = [match[1] for block in map(_one_form, blocks) if (match := mark.match(block))]
        names = _forms(text)
        tagged = any(tag in text for tag in TAGS) and _letters(text) in _letters(response)
        if any(not _letters(b) or _forms(b) & names for b in behind) or forms & names or tagged:
            found.add(i)
    return found


def _forms(text: str) -> set[str]:
    # an entity may stand for the number's digits, or for nothing before them ("&#5;2. Heat")
    return {_letters(text), _letters(_unnumbered(text)), _letters(_unnumbered(_one_form(text)))}


def _unnumbered(text: str) -> str:
    return re.sub(r"^\W*\d{1,3}\W+", "", text.strip())


def _letters(text: str) -> str:
    """Return letters and digits only, in one form: what no reader may overlook."""
    return "".join(c for c in _one_form(text).casefold() if c.isalnum())


def _one_form(text: str) -> str:
    with contextlib.suppress(ValueError):
        text = html.unescape(text)
    text = re.sub("[\u200b-\u200f]", "", text)  # invisible
    if max(map(len, re.findall(r"[\u0300-\u036f]+", text)), default=0) <= 30:
        text = unicodedata.normalize("NFKC", text)
    return text


def check(draw: random.Random) -> str | None:
    """Return what is wrong with one random case, or None."""
    texts = pool(draw)
    made = answer(draw, texts)
    target = draw.randrange(len(texts))
    truth = {"candidates": texts, "target": target}
    read, ranking = parse_exclusion(made, texts), parse_ranking(made, texts)
    where = f"{made!r} of {texts!r}"
    if read.index is not None and read.index not in named(made, texts):
        return f"a wrong candidate, {read.index}: {where}"
    if len(set(ranking.order)) < len(ranking.order) or not set(ranking.order) <= set(range(len(texts))):
        return f"no order, {ranking.order}: {where}"
    kind = draw.choice(exclusion.KINDS)
    paid = exclusion.compute_score("", made, truth, kind=kind)
    if (paid["malformed"] > 0) != (read.index is None):
        return f"exclusion and parser disagree, {paid}: {where}"
    worst = (target + 1) % len(texts)
    if read.ok and paid["score"] > max(
        exclusion.compute_score("", a, truth, kind=kind)["score"] for a in perfect_answers([worst], texts)
    ):
        return f"exclusion pays {paid}, more than a perfect answer: {where}"
    order = [target, *(i for i in range(len(texts)) if i != target)]
    paid = direct.compute_score("", made, truth)
    if (paid["malformed"] > 0) != (not ranking.order):
        return f"direct and parser disagree, {paid}: {where}"
    # no ranking of texts that contain tags can be written inside tags
    writable = not any(tag in text for tag in TAGS for text in texts)
    if ranking.order:
        most = (
            max(direct.compute_score("", a, truth)["score"] for a in perfect_answers(order, texts)) if writable else 1.0
        )
        if paid["score"] > most:
            return f"direct pays {paid}, a perfect answer {most}: {where}"
    return None


def perfect_answers(indices: Sequence[int], texts: Sequence[str]) -> Iterator[str]:
    """Yield a perfect answer in all its forms: where one is ambiguous, another is not."""
    forms = [lambda i: label(i), lambda i: f"[{label(i)}]", lambda i: texts[i], lambda i: f"[{label(i)}] {texts[i]}"]
    for form in forms:
        answer = "\n".join(map(form, indices))
        yield from (answer, f"<answer>{answer}</answer>")


def fuzz(cases: int, seed: int) -> list[str]:
    """Return what went wrong in ``cases`` random cases, exceptions too; a case depends on seed and number alone."""
    wrong = []
    for case in range(cases):
        try:
            found = check(random.Random(seed * 10**9 + case))
        except Exception as error:
            found = f"{type(error).__name__}: {error}"
        if found:
            wrong.append(f"case {case}: {found}")
    return wrong
