"""What recommenders that learn from item ids share: the training users' sequences, and a model of them for each dataset.

A training task gives one sequence: its history, oldest first, and then its positive (the first, where several are equally
good). A task without history ids, or of another scenario, says nothing that an id can carry and gives none.
"""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from iranker_verl.evaluation.baselines.base import Context, Ranking, by_score
from iranker_verl.evaluation.baselines.loading import Progress
from iranker_verl.ranking import RankingTask
from iranker_verl.ranking.task import by_dataset

Model = TypeVar("Model")
Places = tuple[int, ...]  # items of a sequence, oldest first, as their places in Histories.items


@dataclass(frozen=True)
class Histories:
    """One dataset's training sequences: the place (0, 1, …) of each item in any of them, by its id; and the sequences, one a task."""

    items: Mapping[str, int]
    users: tuple[Places, ...]

    def known(self, ids: Iterable[str]) -> list[int]:
        """The places of ``ids``; an id that no sequence holds is left out."""
        return [self.items[id] for id in ids if id in self.items]

    def split(self, share: float, seed: int) -> tuple[list[Places], list[Places]]:
        """``(learned, held out)``: a seeded part of the users, ``share`` of them and one at least, is held out where there
        are two or more."""
        order = list(self.users)
        random.Random(seed).shuffle(order)
        held = min(max(1, round(share * len(order))), len(order) - 1)
        return order[held:], order[:held]


def applies(task: RankingTask) -> bool:
    """Is there anything here for a method that knows items by their ids?"""
    return task.scenario == "recommendation" and bool(task.history)


def histories(train: Iterable[RankingTask]) -> dict[str, Histories]:
    """The sequences of each dataset's training tasks, in an order that is the ids' own, whatever the tasks'."""
    found: dict[str, Histories] = {}
    for dataset, tasks in by_dataset(task for task in train if applies(task)).items():
        chosen = [(*t.history, t.candidates[t.target].id) for t in sorted(tasks, key=lambda t: t.id)]
        items = {id: place for place, id in enumerate(sorted({id for user in chosen for id in user}))}
        found[dataset] = Histories(items, tuple(tuple(items[id] for id in user) for user in chosen))
    return found


def scores(task: RankingTask, items: Mapping[str, int], of_items: Sequence[float]) -> list[float]:
    """One score a candidate, from one an item; a candidate that training never saw gets the lowest of all, -inf."""
    return [of_items[items[c.id]] if c.id in items else float("-inf") for c in task.candidates]


class Recommender(ABC, Generic[Model]):
    """A baseline for recommendation: a model a dataset. Tasks without history ids, and datasets without training, get None."""

    name = ""

    def __init__(self, context: Context, epochs: int) -> None:
        self._context, self._epochs = context, epochs
        self._models: dict[str, tuple[Histories, Model]] = {}

    def fit(self, train: Sequence[RankingTask]) -> None:
        self._models = {}
        for dataset, data in histories(train).items():
            progress = Progress(self._context.say, f"{self.name}: epochs on {dataset}", self._epochs)
            self._models[dataset] = (data, self._learn(data, progress))

    @abstractmethod
    def _learn(self, data: Histories, progress: Progress) -> Model: ...

    @abstractmethod
    def _scores(self, model: Model, history: list[int]) -> list[float]:
        """One score an item, by place, for who chose the items at the places ``history``, oldest first."""

    def rank(self, tasks: Sequence[RankingTask]) -> list[Ranking | None]:
        progress = Progress(self._context.say, f"{self.name}: tasks", len(tasks))
        rankings: list[Ranking | None] = []
        for task in tasks:
            progress(len(rankings))
            rankings.append(self._rank(task) if applies(task) and task.dataset in self._models else None)
        return rankings

    def _rank(self, task: RankingTask) -> Ranking:
        data, model = self._models[task.dataset]
        of_items = self._scores(model, data.known(task.history))
        return by_score(task, scores(task, data.items, of_items), self._context.seed)
