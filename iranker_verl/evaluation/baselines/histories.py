"""The training users' sequences for recommenders that learn from item ids, and their base class.

A training task gives one sequence: its history, oldest first, and then its positive (the first, where several are equally
good). A task without history ids, or of another scenario, gives none.
"""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from iranker_verl.evaluation.baselines.base import Context, Ranking, rank_by_score
from iranker_verl.evaluation.baselines.loading import Progress
from iranker_verl.ranking import RankingTask
from iranker_verl.ranking.task import by_dataset

Model = TypeVar("Model")
Indices = tuple[int, ...]  # items of a sequence, oldest first, as their indices in Histories.items


@dataclass(frozen=True)
class Histories:
    """One dataset's training sequences, one a task, and the index (0, 1, …) of each of their items by its id."""

    items: Mapping[str, int]
    users: tuple[Indices, ...]

    def known(self, ids: Iterable[str]) -> list[int]:
        """Return the indices of ``ids``, without those that no sequence holds."""
        return [self.items[id] for id in ids if id in self.items]

    def split(self, share: float, seed: int) -> tuple[list[Indices], list[Indices]]:
        """Return ``(learned, held out)``: of two or more users a seeded ``share`` is held out, at least one."""
        order = list(self.users)
        random.Random(seed).shuffle(order)
        held = min(max(1, round(share * len(order))), len(order) - 1)
        return order[held:], order[:held]


def applies(task: RankingTask) -> bool:
    """Return whether a method that knows items by their ids can rank the task."""
    return task.scenario == "recommendation" and bool(task.history)


def histories(train: Iterable[RankingTask]) -> dict[str, Histories]:
    """Return the sequences of each dataset's training tasks, in the order of task ids."""
    found: dict[str, Histories] = {}
    for dataset, tasks in by_dataset(task for task in train if applies(task)).items():
        chosen = [(*t.history, t.candidates[t.target].id) for t in sorted(tasks, key=lambda t: t.id)]
        items = {id: index for index, id in enumerate(sorted({id for user in chosen for id in user}))}
        found[dataset] = Histories(items, tuple(tuple(items[id] for id in user) for user in chosen))
    return found


def scores(task: RankingTask, items: Mapping[str, int], of_items: Sequence[float]) -> list[float]:
    """Return one score a candidate, from one an item; -inf for a candidate that training never saw."""
    return [of_items[items[c.id]] if c.id in items else float("-inf") for c in task.candidates]


class Recommender(ABC, Generic[Model]):
    """A baseline for recommendation with one model a dataset; None for tasks without history ids or training."""

    name = ""

    def __init__(self, context: Context, epochs: int) -> None:
        self._context, self._epochs = context, epochs
        self._models: dict[str, tuple[Histories, Model]] = {}

    def fit(self, train: Sequence[RankingTask]) -> None:
        """Learn a model of each dataset."""
        self._models = {}
        for dataset, data in histories(train).items():
            progress = Progress(self._context.log, f"{self.name}: epochs on {dataset}", self._epochs)
            self._models[dataset] = (data, self._learn(data, progress))

    @abstractmethod
    def _learn(self, data: Histories, progress: Progress) -> Model: ...

    @abstractmethod
    def _scores(self, model: Model, history: list[int]) -> list[float]:
        """Return one score an item, by index, for a user who chose the items at the indices ``history``, oldest first."""

    def rank(self, tasks: Sequence[RankingTask]) -> list[Ranking | None]:
        """Rank the tasks that have history ids and a model."""
        progress = Progress(self._context.log, f"{self.name}: tasks", len(tasks))
        rankings: list[Ranking | None] = []
        for task in tasks:
            progress(len(rankings))
            rankings.append(self._rank(task) if applies(task) and task.dataset in self._models else None)
        return rankings

    def _rank(self, task: RankingTask) -> Ranking:
        data, model = self._models[task.dataset]
        of_items = self._scores(model, data.known(task.history))
        return rank_by_score(task, scores(task, data.items, of_items), self._context.seed)
