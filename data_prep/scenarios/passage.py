"""Passage tasks: from a query with its passages to the presets passage-5, -7 and -9 (arXiv 2506.21638, table 1).

Passage-N takes the queries with exactly N passages of which exactly one is relevant, whose passages together have
``max_chars`` characters at most; all others are dropped and counted. ``options.passages`` is another N.

Texts stand on one line and are otherwise left as they are: passages are plain text, and what looks like HTML in them may
be what the query asks about. Passages of a query that read alike stay apart, by their ids, and all have the best grade of
any of them, which is counted. In a preset that makes two relevant ones, so the query is dropped.
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


RAISED = "passages: graded as an equal one"


@dataclass(frozen=True)
class Query:
    """A query and its passages. ``id`` is unique in its dataset, e.g. file and row, ``train-00000:17``.

    ``raised`` passages have a better grade than their source gave them, that of an equal one.
    """

    id: str
    text: str
    passages: tuple[Candidate, ...]
    relevance: tuple[float, ...]
    raised: int = 0


def graded_query(id: str, text: str, passages: Iterable[tuple[str, str, float]]) -> Query:
    """Return a query made of a source's texts as they are; ``passages`` are ``(id, text, relevance)``."""
    rows = [(name, clean(passage), relevance) for name, passage, relevance in passages]
    best: dict[str, float] = {}
    for _, shown, relevance in rows:
        best[shown] = max(relevance, best.get(shown, relevance))
    return Query(
        id,
        clean(text),
        tuple(Candidate(name, shown) for name, shown, _ in rows),
        tuple(best[shown] for _, shown, _ in rows),
        sum(best[shown] != relevance for _, shown, relevance in rows),
    )


def passages_of(dataset: str, options: Options) -> int:
    """Return how many passages a query of the preset has."""
    passages = options.passages or PRESETS[dataset].passages
    assert passages is not None, dataset
    return passages


def preset_drafts(
    queries: Iterable[Query], datasets: Sequence[str], options: Options, side: str | None, dropped: Dropped
) -> Iterator[Draft]:
    """Yield the tasks of those of :data:`DATASETS` that are wanted."""
    for one in queries:
        for dataset in datasets:
            yield from draft_or_count(dataset, one, side, _unfit_preset(dataset, one, options), dropped)


def draft_or_count(dataset: str, one: Query, side: str | None, unfit: str | None, dropped: Dropped) -> Iterator[Draft]:
    """Yield the query as a task of any dataset, or count why it is ``unfit``.

    The query's text is what may not stand on both sides of a split.
    """
    if unfit:
        dropped[dataset][unfit] += 1
        return
    if one.raised:
        dropped[dataset][RAISED] += one.raised
    task = RankingTask(f"{dataset}:{one.id}", "passage", dataset, one.text, one.passages, one.relevance)
    yield Draft(task, query_key(one.text), side)


def not_of_size(passages: int) -> str:
    """Return why a query with another number of passages is dropped."""
    return f"queries: not {passages} passages"


def unfit_query(one: Query, noun: str = "candidates") -> str | None:
    """Return why a query cannot be ranked, whatever its source; None where it can."""
    if not one.text:
        return "queries: empty"
    if len(one.passages) < 2:
        return f"queries: fewer than 2 {noun}"
    if not all(passage.text for passage in one.passages):
        return "queries: an empty passage"
    if len(set(one.relevance)) == 1:
        return f"queries: all {noun} equally relevant"
    return None


def too_long(one: Query, options: Options) -> str | None:
    """Return why a query is dropped whose passages have too many characters together; None for one that has not."""
    if sum(len(passage.text) for passage in one.passages) > options.max_chars:
        return f"queries: passages longer than {options.max_chars} characters"
    return None


def _unfit_preset(dataset: str, one: Query, options: Options) -> str | None:
    passages = passages_of(dataset, options)
    if len(one.passages) != passages:
        return not_of_size(passages)
    if sum(one.relevance) != 1:
        return (
            "queries: equal passages, selected and not" if one.raised else "queries: not exactly one selected passage"
        )
    return unfit_query(one) or too_long(one, options)
