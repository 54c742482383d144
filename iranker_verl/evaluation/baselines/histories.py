"""The training users' sequences for recommenders that learn from item ids, and their base class.

A training task gives one sequence: its history, oldest first, and then its positive (the first, where several are equally
good). A task without history ids, or of another scenario, gives none.
"""

from __future__ import annotations

import random
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from iranker_verl.evaluation.baselines.base import LearnedByDataset, Model
from iranker_verl.evaluation.baselines.loading import Progress
from iranker_verl.ranking import RankingTask
from iranker_verl.ranking.task import by_dataset

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


def histories(train: Iterable[RankingTask]) -> dict[str, Histories]:
    """Return the sequences of each dataset's training tasks, in the order of task ids."""
    found: dict[str, Histories] = {}
    for dataset, tasks in by_dataset(t for t in train if t.scenario == "recommendation" and t.history).items():
        chosen = [(*t.history, t.candidates[t.target].id) for t in sorted(tasks, key=lambda t: t.id)]
        items = {id: index for index, id in enumerate(sorted({id for user in chosen for id in user}))}
        found[dataset] = Histories(items, tuple(tuple(items[id] for id in user) for user in chosen))
    return found


class Recommender(LearnedByDataset[Histories, Model]):
    """A baseline for recommendation that knows items by their ids; it applies to tasks with history ids."""

    scenario = "recommendation"

    def data_of(self, train: Sequence[RankingTask]) -> dict[str, Histories]:
        """Return the training sequences."""
        return histories(train)

    def applies(self, task: RankingTask) -> bool:
        """Return whether the task has history ids, and its dataset training tasks."""
        return super().applies(task) and bool(task.history)

    @abstractmethod
    def of_items(self, model: Model, history: list[int]) -> list[float]:
        """Return one score an item, by index, for a user who chose the items at the indices ``history``, oldest first."""

    def scores(self, tasks: Sequence[RankingTask]) -> Iterator[list[float]]:
        """Yield one score a candidate of each task; -inf for a candidate that training never saw."""
        progress = Progress(self.context.log, f"{self.name}: tasks", len(tasks))
        for done, task in enumerate(tasks):
            progress(done)
            data, model = self.learned[task.dataset]
            found = self.of_items(model, data.known(task.history))
            yield [found[data.items[c.id]] if c.id in data.items else float("-inf") for c in task.candidates]
