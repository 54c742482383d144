"""The base class of the routing baselines: outcomes of LLMs on training queries, and rankings from (query, LLM) scores.

The query is the ``Query:`` part of the context of a prepared task (:mod:`data_prep.scenarios.routing`), or the whole of any
other context. LLMs are identified by their candidate ids. All rows of one task (elimination states, orders) count as one
query. Relevance is one positive, learned as a choice, or graded, learned as a score; graded relevance is centred (less each
query's mean), because only its differences within a query matter.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from iranker_verl.evaluation.baselines.base import LearnedByDataset
from iranker_verl.ranking import RankingTask, by_dataset

if TYPE_CHECKING:
    import torch

_QUERY, _PREFERENCE = "Query: ", "\nPreference: "

# Scores, float of shape (queries, known LLMs + newcomers), of query texts and of the newcomers' texts by id. Newcomers are
# LLMs without training queries. Columns are in the order of ``Outcomes.llms``, then of the newcomers.
Scorer = Callable[[Sequence[str], Mapping[str, str]], np.ndarray]


def query_text(context: str) -> str:
    """Return the query in a routing task's context."""
    query, found, _ = context.rpartition(_PREFERENCE)
    return query.removeprefix(_QUERY) if found and query.startswith(_QUERY) else context


@dataclass(frozen=True)
class Outcomes:
    """The training outcomes of one dataset.

    ``llms`` are ids in order, ``texts`` their descriptions; ``relevance`` is float of shape (queries, LLMs), NaN where an LLM
    was not a candidate, and centred if ``graded``.
    """

    queries: tuple[str, ...]
    llms: tuple[str, ...]
    texts: tuple[str, ...]
    relevance: np.ndarray
    graded: bool


def outcomes_of(train: Sequence[RankingTask]) -> dict[str, Outcomes]:
    """Return the outcomes of each routing dataset among the training tasks; queries are in the order of task ids."""
    routing = by_dataset(task for task in train if task.scenario == "routing")
    return {dataset: _outcomes(tasks) for dataset, tasks in routing.items()}


def _outcomes(tasks: Sequence[RankingTask]) -> Outcomes:
    texts = _texts(tasks)
    columns = {llm: column for column, llm in enumerate(texts)}
    queries = {task.id: query_text(task.context) for task in sorted(tasks, key=lambda task: task.id)}
    rows = {id: row for row, id in enumerate(queries)}
    relevance = np.full((len(queries), len(columns)), np.nan)
    for task in tasks:
        relevance[rows[task.id], [columns[c.id] for c in task.candidates]] = task.relevance
    graded = any(task.graded for task in tasks)
    if graded:
        relevance -= np.nanmean(relevance, axis=1, keepdims=True)
    return Outcomes(tuple(queries.values()), tuple(texts), tuple(texts.values()), relevance, graded)


def _texts(tasks: Sequence[RankingTask]) -> dict[str, str]:
    """Return the description of each LLM, by id in order; of several the first in order."""
    texts: dict[str, str] = {}
    for id, text in sorted({(c.id, c.text) for task in tasks for c in task.candidates}):
        texts.setdefault(id, text)
    return texts


def loss(scores: torch.Tensor, relevance: torch.Tensor, graded: bool) -> torch.Tensor:
    """Return the mean loss of scores, shapes (queries, LLMs), over the entries whose relevance is not NaN.

    Graded: squared error. One positive: its cross entropy among the candidates.
    """
    shown = ~relevance.isnan()
    if graded:
        return ((scores - relevance)[shown] ** 2).mean()
    log_probabilities = scores.masked_fill(~shown, -float("inf")).log_softmax(dim=1)
    return -log_probabilities[relevance == 1].mean()


def with_newcomers(scores: np.ndarray, newcomers: Mapping[str, str]) -> np.ndarray:
    """Return ``scores`` of the known LLMs with a column of their mean for each newcomer."""
    return np.hstack([scores, np.repeat(scores.mean(axis=1, keepdims=True), len(newcomers), axis=1)])


class Router(LearnedByDataset[Outcomes, Scorer]):
    """A baseline for routing, with one scorer a dataset."""

    scenario = "routing"

    def data_of(self, train: Sequence[RankingTask]) -> dict[str, Outcomes]:
        """Return the outcomes of training queries."""
        return outcomes_of(train)

    def scores(self, tasks: Sequence[RankingTask]) -> list[list[float]]:
        """Return the scores of LLMs; all queries of a dataset are scored at once."""
        found: dict[int, list[float]] = {}
        indices: dict[str, list[int]] = defaultdict(list)
        for index, task in enumerate(tasks):
            indices[task.dataset].append(index)
        for dataset, own in indices.items():
            known, scorer = self.learned[dataset]
            newcomers = {id: text for id, text in _texts([tasks[i] for i in own]).items() if id not in set(known.llms)}
            column = {id: i for i, id in enumerate((*known.llms, *newcomers))}
            scores = scorer([query_text(tasks[i].context) for i in own], newcomers)
            for index, row in zip(own, scores, strict=True):
                found[index] = [float(row[column[c.id]]) for c in tasks[index].candidates]
        return [found[index] for index in range(len(tasks))]
