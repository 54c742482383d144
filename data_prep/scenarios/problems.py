"""The prompts of the published benchmark (:mod:`data_prep.sources.ranking_bench`) taken apart: context and candidates.

The authors' evaluation finds the context in a prompt by the marks below, and so does this module (github.com/ulab-uiuc/
R1-Ranker: eval/eval_passage.py and eval_rec.py; for routing, where it takes all of the prompt as the query, the maker of
the prompts, examples/data_preprocess/dataset/data_router/process_router.py):

==============  =====================================================================================================
recommendation  the history between ``in order:`` and ``Now there are``, ``['0. Title', '1. Title', …]``
passage         the query between ``Here is a query:`` and ``and candidate passages``; then a line ``passage 0: …`` each
routing         lines ``# LLM: description``; then the query between ``Here is a query:`` and ``and LLM condidates``
==============  =====================================================================================================

The context is the text between the marks, so that a prompt's listing of the candidates and its instructions are gone.
It looks as it does in tasks made from raw data: titles joined by "; ", a routing query with the preference that the
dataset means, an LLM's description after its name. A routing prompt without marks is the query as a whole.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from data_prep.readers.text import without_html
from iranker_verl.ranking import DATASETS
from iranker_verl.ranking.text import clean

PREFERENCES = {
    "router-performance": "quality only",
    "router-cost": "quality 0.2, cost 0.8",
    "router-balance": "quality 0.5, cost 0.5",
}
_HISTORY = re.compile(r"in order:(.*?)\n\s*Now there are", re.DOTALL)
_NUMBERED = re.compile(r"""\[['"]\d+\. .*['"]\]""", re.DOTALL)
_BETWEEN_TITLES = re.compile(r"""['"],\s*['"](?=\d+\. )""")
_PASSAGES = re.compile(r"Here is a query:(.*?)and candidate passages:?(.*)", re.DOTALL)
_PASSAGE = re.compile(r"^(passage \d+):", re.MULTILINE)
_LLMS = re.compile(r"Here is a query:(.*)and LLM c[oa]ndidates", re.DOTALL)


@dataclass(frozen=True)
class Problem:
    """A prompt taken apart.

    ``group`` is what makes it one with other problems in a split. ``names`` are what the prompt calls the candidates, in
    their order; none where it does not name them, or not these. ``history`` are the titles that the context tells of.
    """

    context: str
    group: str
    candidates: list[str]
    names: list[str]
    history: Sequence[str] = ()


def read_problem(dataset: str, problem: str, candidates: Sequence[str]) -> Problem:
    """Take a prompt apart, with the candidates given with it. Raise ValueError where a mark is missing."""
    reader = {"recommendation": _recommendation, "passage": _passage, "routing": _routing}[DATASETS[dataset]]
    return reader(dataset, problem, candidates)


def _recommendation(dataset: str, problem: str, candidates: Sequence[str]) -> Problem:
    found = _HISTORY.search(problem)
    if found is None:
        raise ValueError("without a history between 'in order:' and 'Now there are'")
    listed = found[1].strip()
    titles = [listed]
    if _NUMBERED.fullmatch(listed):
        titles = [re.sub(r"^\d+\. ", "", title) for title in _BETWEEN_TITLES.split(listed[2:-2])]
    history = [without_html(clean(title)) for title in titles]
    context = "; ".join(history)
    return Problem(context, context, [without_html(clean(title)) for title in candidates], [], history)


def _passage(dataset: str, problem: str, candidates: Sequence[str]) -> Problem:
    """Take candidates that are texts, names (``passage 3``), or both (``passage 3: text``)."""
    found = _PASSAGES.search(problem)
    if found is None:
        raise ValueError("without a query between 'Here is a query:' and 'and candidate passages'")
    query, listing = clean(found[1]), found[2].rsplit("Please think step by step", 1)[0]
    _, *pieces = _PASSAGE.split(listing)
    listed = [(name, clean(text)) for name, text in zip(pieces[::2], pieces[1::2], strict=True)]
    texts = [clean(text) for text in candidates]
    forms = [[text for _, text in listed], [name for name, _ in listed], [f"{name}: {text}" for name, text in listed]]
    if texts in forms:
        return Problem(query, query, forms[0], forms[1])
    return Problem(query, query, texts, [])


def _routing(dataset: str, problem: str, candidates: Sequence[str]) -> Problem:
    found = _LLMS.search(problem)
    query = clean(found[1] if found else problem)
    described = problem[: found.start()] if found else ""
    texts = []
    for name in candidates:
        line = re.search(rf"^\s*# {re.escape(name)}:(.*)$", described, re.MULTILINE)
        texts.append(clean(f"{name}:{line[1]}" if line else name))
    return Problem(f"Query: {query}\nPreference: {PREFERENCES[dataset]}", query, texts, list(candidates))
