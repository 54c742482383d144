"""What all loaders share: the options, the split and the making of a task.

Every random choice comes from ``random.Random`` seeded with the options' seed *and* the name of what is drawn (a
dataset, a task), so that it depends on nothing drawn before: one input and one seed give one result, byte for byte.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import TypeVar

from iranker_verl.errors import UserError
from iranker_verl.ranking import DATASETS, Candidate, RankingTask

T = TypeVar("T")


@dataclass(frozen=True)
class Options:
    """How tasks are made; the defaults are the paper's (arXiv 2506.21638). UserError for a value that makes no sense.

    ``history`` and ``candidates`` are recommendation's (the other scenarios bring their candidates); ``max_chars`` caps
    a query's passages together, and a routing query; ``max_train`` and ``max_test`` cap the tasks of each dataset.
    """

    history: int = 20
    candidates: int = 20
    test_fraction: float = 0.2
    max_chars: int = 6000
    max_train: int | None = None
    max_test: int | None = None
    seed: int = 1

    def __post_init__(self) -> None:
        if not 0 < self.test_fraction < 1:
            raise UserError(f"test fraction is {self.test_fraction}; it has to lie between 0 and 1, e.g. 0.2")
        for name, least in (("history", 1), ("candidates", 2), ("max_chars", 1), ("max_train", 1), ("max_test", 1)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise UserError(f"{name} is {value}; it has to be {least} or more")


@dataclass
class TaskSet:
    """What becomes of one dataset. ``dropped`` counts what was left out: ``{"users: fewer than 21 items": 3}``."""

    train: list[RankingTask] = field(default_factory=list)
    test: list[RankingTask] = field(default_factory=list)
    dropped: Counter[str] = field(default_factory=Counter)


def split(keys: Iterable[str], options: Options, name: str) -> tuple[list[str], list[str]]:
    """``(train, test)``: whole users or queries, shuffled; with two keys or more neither side is empty."""
    order = shuffled(sorted(set(keys)), options, name)
    tests = min(max(round(len(order) * options.test_fraction), 1), max(len(order) - 1, 0))
    return order[tests:], order[:tests]


def shuffled(values: Sequence[T], options: Options, name: str) -> list[T]:
    """A shuffled copy; ``name`` tells this shuffle from all others."""
    order = list(values)
    Random(f"{options.seed}:{name}").shuffle(order)
    return order


def make_task(
    id: str, dataset: str, context: str, candidates: Sequence[Candidate], positive: str, options: Options
) -> RankingTask:
    """A task whose candidates stand in random order."""
    order = tuple(shuffled(candidates, options, f"{id}:order"))
    return RankingTask.with_positive(id, DATASETS[dataset], dataset, context, order, positive)


def one_line(text: str) -> str:
    """White space of every kind, line breaks included, becomes single spaces."""
    return " ".join(text.split())


def query_key(text: str) -> str:
    """What makes two queries one in a split: case and white space do not tell them apart."""
    return one_line(text).casefold()
