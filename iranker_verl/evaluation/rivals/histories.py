"""What recommenders that learn from item ids share: the training users' sequences.

A training task gives one sequence: its history, oldest first, and then its positive (the first, where several are equally
good). A task without history ids, or of another scenario, says nothing that an id can carry and gives none.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from iranker_verl.ranking import RankingTask
from iranker_verl.ranking.task import by_dataset

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
