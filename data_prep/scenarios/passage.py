"""Passage tasks: from a query with its passages to the presets passage-5, -7 and -9 (arXiv 2506.21638, table 1).

Passage-N takes the queries with exactly N passages of which exactly one is relevant, whose passages together have
``max_chars`` characters at most; all others are dropped and counted. ``options.passages`` is another N.

Texts stand on one line and are otherwise left as they are: passages are plain text, and what looks like HTML in them may
be what the query asks about. Passages with one text stay apart, by their ids.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from data_prep.options import Options
from data_prep.presets import PRESETS
from data_prep.readers.text import query_key
from data_prep.tasks import Draft, Dropped
from iranker_verl.ranking import Candidate, RankingTask
from iranker_verl.ranking.text import clean

DATASETS = tuple(name for name, preset in PRESETS.items() if preset.passages is not None)


@dataclass(frozen=True)
class Query:
    """A query and its passages. ``id`` is unique in its dataset, e.g. file and row, ``train-00000:17``."""

    id: str
    text: str
    passages: tuple[Candidate, ...]
    relevance: tuple[float, ...]


def query(id: str, text: str, passages: Iterable[tuple[str, str, float]]) -> Query:
    """From a source's texts as they are; ``passages`` are ``(id, text, relevance)``."""
    rows = list(passages)
    candidates = tuple(Candidate(name, clean(passage)) for name, passage, _ in rows)
    return Query(id, clean(text), candidates, tuple(relevance for *_, relevance in rows))


def size(dataset: str, options: Options) -> int:
    """How many passages a query of the preset has."""
    passages = options.passages or PRESETS[dataset].passages
    assert passages is not None, dataset
    return passages


def drafts(
    queries: Iterable[Query], datasets: Sequence[str], options: Options, side: str | None, dropped: Dropped
) -> Iterator[Draft]:
    """The tasks of those of :data:`DATASETS` that are wanted."""
    for one in queries:
        for dataset in datasets:
            if reason := _unfit(one, size(dataset, options), options):
                dropped[dataset][reason] += 1
            else:
                yield draft(dataset, one, side)


def draft(dataset: str, one: Query, side: str | None) -> Draft:
    """A task of any dataset; the query's text is what may not stand on both sides of a split."""
    name = f"{dataset}:{one.id}"
    return Draft(
        RankingTask(name, "passage", dataset, one.text, one.passages, one.relevance), query_key(one.text), side
    )


def not_of_size(passages: int) -> str:
    """Why a query with another number of passages is dropped."""
    return f"queries: not {passages} passages"


def too_long(one: Query, options: Options) -> str | None:
    """Why a query is dropped whose passages have too many characters together; None for one that has not."""
    if sum(len(passage.text) for passage in one.passages) > options.max_chars:
        return f"queries: passages longer than {options.max_chars} characters"
    return None


def _unfit(one: Query, passages: int, options: Options) -> str | None:
    if len(one.passages) != passages:
        return not_of_size(passages)
    if sum(one.relevance) != 1:
        return "queries: not exactly one selected passage"
    if not one.text:
        return "queries: empty"
    if not all(passage.text for passage in one.passages):
        return "queries: an empty passage"
    return too_long(one, options)
