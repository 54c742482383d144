"""What every baseline is: something that learns from training tasks and then ranks others.

Ties are broken by a seeded shuffle and never by the order shown, which would leak it. Ids of two datasets have nothing to
do with each other, so everything is learned within a dataset.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from iranker_verl.ranking import RankingTask

if TYPE_CHECKING:
    from iranker_verl.inference.episode import Episode
    from iranker_verl.ranking.templates import Template

Ranking = list[str]  # all candidate ids of a task, best first


class Unavailable(Exception):
    """A baseline cannot run here, and why (weights or a library are missing): its row says so, and never a number."""


def default_device() -> str:
    """``cuda`` where torch has one (ROCm's bears that name too) and ``VERL_PLATFORM`` does not say ``cpu``, else ``cpu``."""
    from iranker_verl.training.cpu.detect import chosen

    on_cpu, _ = chosen()
    if on_cpu:
        return "cpu"
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


@dataclass(frozen=True)
class Context:
    """What a baseline is made with. ``models`` names, by baseline, a Hugging Face folder or name of the weights it needs;
    ``device`` is torch's; ``say`` gets a line of progress at least every ten seconds of long work."""

    seed: int = 0
    models: Mapping[str, str] = field(default_factory=dict)
    device: str = field(default_factory=default_device)
    say: Callable[[str], None] = print


class Baseline(Protocol):
    """``fit`` sees training tasks only, of all datasets; ``rank`` gives one ranking a task, in their order, or None where
    the method does not apply. Both are deterministic for a seed (on a GPU up to rounding); ``rank`` reads neither a task's
    relevance nor the order of its candidates. Raises :class:`Unavailable`, from ``fit`` at the latest."""

    @property
    def name(self) -> str: ...

    def fit(self, train: Sequence[RankingTask]) -> None: ...

    def rank(self, tasks: Sequence[RankingTask]) -> list[Ranking | None]: ...


@runtime_checkable
class Asking(Protocol):
    """What a baseline has besides where it asks a language model: its answers are then judged as those of any model."""

    def episodes(self) -> Sequence[Episode | None]:
        """How the tasks of the last ``rank`` were played, one a task, in their order; None where the ranking is None."""
        ...

    def template(self) -> Template:
        """What it asks with, and its answers are read with. Needs no ``fit`` before it; raises what ``fit`` raises."""
        ...


def brief(text: str, most: int) -> str:
    """``text``, or as many of its words as stand in ``most`` characters, and ``…``. Only a first word may be cut itself."""
    if len(text) <= most:
        return text
    words, space, _ = text[: most - 1].rpartition(" ")
    return f"{words} …" if space else f"{text[: most - 1]}…"


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
