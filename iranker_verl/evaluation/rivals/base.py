"""What every rival is: something that learns from training tasks and then ranks others.

Ties are broken by a seeded shuffle and never by the order shown, which would leak it. Ids of two datasets have nothing to
do with each other, so everything is learned within a dataset.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from iranker_verl.ranking import RankingTask

Ranking = list[str]  # all candidate ids of a task, best first


class Unavailable(Exception):
    """A rival cannot run here, and why (weights or a library are missing): its row says so, and never a number."""


@dataclass(frozen=True)
class Context:
    """What a rival is made with. ``models`` names, by rival, a Hugging Face folder or name of the weights it needs;
    ``device`` is torch's; ``say`` gets a line of progress at least every ten seconds of long work."""

    seed: int = 0
    models: Mapping[str, str] = field(default_factory=dict)
    device: str = "cpu"
    say: Callable[[str], None] = print


class Rival(Protocol):
    """``fit`` sees training tasks only, of all datasets; ``rank`` gives one ranking a task, in their order, or None where
    the method does not apply. Both are deterministic for a seed; ``rank`` reads neither a task's relevance nor the order
    of its candidates. Raises :class:`Unavailable`, from ``fit`` at the latest."""

    @property
    def name(self) -> str: ...

    def fit(self, train: Sequence[RankingTask]) -> None: ...

    def rank(self, tasks: Sequence[RankingTask]) -> list[Ranking | None]: ...


def shuffled(task: RankingTask, seed: int) -> list[int]:
    """The places of the candidates in an order of the seed's and the task's own, whatever the order shown."""
    order = sorted(range(len(task.candidates)), key=lambda i: task.candidates[i].id)
    random.Random(f"{seed}/{task.dataset}/{task.id}").shuffle(order)
    return order


def by_score(task: RankingTask, scores: Sequence[float], seed: int) -> Ranking:
    """Ids by ``scores`` (one a candidate, higher is better), ties in the order of :func:`shuffled`."""
    # sorted() is stable: among equal scores the shuffle's order stays.
    order = sorted(shuffled(task, seed), key=lambda i: -round(scores[i], 6))
    return [task.candidates[i].id for i in order]
