"""What the baselines of routing share: what LLMs did on the training queries, and rankings from scores of (query, LLM).

The query is the ``Query:`` part of the context of a prepared task (:mod:`data_prep.scenarios.routing`); any other context
is the query as a whole. LLMs are known by their candidate ids. The rows of one task (elimination states, several orders)
count once, together. Relevance may be one positive, which is learned as a choice, or graded, which is learned as a score;
only its differences within a query say anything, so graded relevance is centred: each query's mean is taken off.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from iranker_verl.evaluation.baselines.base import Context, Ranking, by_score
from iranker_verl.ranking import RankingTask

if TYPE_CHECKING:
    import torch

_QUERY, _PREFERENCE = "Query: ", "\nPreference: "

# Scores, float of shape (queries, known LLMs + newcomers), of query texts and of the newcomers' texts by id: LLMs which
# training did not know. Columns are in the order of ``Outcomes.llms``, then of the newcomers.
Scorer = Callable[[Sequence[str], Mapping[str, str]], np.ndarray]


def query_text(context: str) -> str:
    """The query in a routing task's context."""
    query, found, _ = context.rpartition(_PREFERENCE)
    return query.removeprefix(_QUERY) if found and query.startswith(_QUERY) else context


@dataclass(frozen=True)
class Outcomes:
    """What training tells of one dataset. ``llms`` are ids in order, ``texts`` what tasks show of them; ``relevance`` is
    float64 of shape (queries, LLMs), NaN for an LLM that a query did not show. Where ``graded`` is False, one is 1."""

    queries: tuple[str, ...]
    llms: tuple[str, ...]
    texts: tuple[str, ...]
    relevance: np.ndarray
    graded: bool


def outcomes_of(train: Sequence[RankingTask]) -> dict[str, Outcomes]:
    """The outcomes of each routing dataset among the training tasks; queries are in the order of their tasks' ids."""
    groups: dict[str, list[RankingTask]] = defaultdict(list)
    for task in train:
        if task.scenario == "routing":
            groups[task.dataset].append(task)
    return {dataset: _outcomes(tasks) for dataset, tasks in groups.items()}


def _outcomes(tasks: Sequence[RankingTask]) -> Outcomes:
    texts = _texts(tasks)
    llms = {llm: place for place, llm in enumerate(texts)}
    queries = {task.id: query_text(task.context) for task in sorted(tasks, key=lambda task: task.id)}
    rows = {id: row for row, id in enumerate(queries)}
    relevance = np.full((len(queries), len(llms)), np.nan)
    for task in tasks:
        relevance[rows[task.id], [llms[c.id] for c in task.candidates]] = task.relevance
    graded = any(task.graded for task in tasks)
    if graded:
        relevance -= np.nanmean(relevance, axis=1, keepdims=True)
    return Outcomes(tuple(queries.values()), tuple(texts), tuple(texts.values()), relevance, graded)


def _texts(tasks: Sequence[RankingTask]) -> dict[str, str]:
    """What is shown of each LLM, by id in order; of several texts of one LLM the first in order, whatever the tasks' order."""
    texts: dict[str, str] = {}
    for id, text in sorted({(c.id, c.text) for task in tasks for c in task.candidates}):
        texts.setdefault(id, text)
    return texts


def loss(scores: torch.Tensor, relevance: torch.Tensor, graded: bool) -> torch.Tensor:
    """The mean loss of scores, shapes (queries, LLMs); an LLM whose relevance is NaN does not count.

    Graded: squared error. One positive: its cross entropy among the LLMs shown.
    """
    shown = ~relevance.isnan()
    if graded:
        return ((scores - relevance)[shown] ** 2).mean()
    chances = scores.masked_fill(~shown, -float("inf")).log_softmax(dim=1)
    return -chances[relevance == 1].mean()


def with_newcomers(scores: np.ndarray, newcomers: Mapping[str, str]) -> np.ndarray:
    """``scores`` of the known LLMs, and for LLMs of which a method knows nothing the mean of these."""
    return np.hstack([scores, np.repeat(scores.mean(axis=1, keepdims=True), len(newcomers), axis=1)])


class Router(ABC):
    """A baseline for routing: one scorer a dataset. A dataset without training tasks is not ranked: nothing is known of it."""

    name = ""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._learned: dict[str, tuple[Outcomes, Scorer]] = {}

    def fit(self, train: Sequence[RankingTask]) -> None:
        self._learned = {name: (known, self._learn(name, known)) for name, known in outcomes_of(train).items()}

    @abstractmethod
    def _learn(self, dataset: str, known: Outcomes) -> Scorer: ...

    def rank(self, tasks: Sequence[RankingTask]) -> list[Ranking | None]:
        rankings: list[Ranking | None] = [None] * len(tasks)
        places: dict[str, list[int]] = defaultdict(list)
        for place, task in enumerate(tasks):
            if task.scenario == "routing" and task.dataset in self._learned:
                places[task.dataset].append(place)
        for dataset, own in places.items():
            for place, ranking in zip(own, self._rank(dataset, [tasks[i] for i in own]), strict=True):
                rankings[place] = ranking
        return rankings

    def _rank(self, dataset: str, tasks: Sequence[RankingTask]) -> list[Ranking]:
        known, scorer = self._learned[dataset]
        newcomers = {id: text for id, text in _texts(tasks).items() if id not in set(known.llms)}
        column = {id: i for i, id in enumerate((*known.llms, *newcomers))}
        scores = scorer([query_text(task.context) for task in tasks], newcomers)
        return [
            by_score(task, [float(row[column[c.id]]) for c in task.candidates], self._context.seed)
            for task, row in zip(tasks, scores, strict=True)
        ]
