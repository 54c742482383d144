"""The interface of a baseline, which is fitted on training tasks and ranks others, and the rankings that scores give.

Ties are broken by a seeded shuffle and never by the order of the prompt, which would leak it. Ids of two datasets are
unrelated, so everything is learned within a dataset.
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
    """A baseline cannot run here, with the reason (missing weights or library), which stands in its row of a table."""


def default_device() -> str:
    """Return ``cuda`` where torch has one (also with ROCm) and ``VERL_PLATFORM`` is not ``cpu``, else ``cpu``."""
    from iranker_verl.training.cpu.detect import chosen

    on_cpu, _ = chosen()
    if on_cpu:
        return "cpu"
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


@dataclass(frozen=True)
class Context:
    """What a baseline is made with.

    ``models`` maps baselines to the Hugging Face folder or name of their weights; ``device`` is torch's; ``log`` gets a line of
    progress at least every ten seconds of long work.
    """

    seed: int = 0
    models: Mapping[str, str] = field(default_factory=dict)
    device: str = field(default_factory=default_device)
    log: Callable[[str], None] = print


class Baseline(Protocol):
    """A method that ranks tasks after it has seen the training tasks.

    It is deterministic for a seed (on a GPU up to rounding), and :meth:`rank` reads neither a task's relevance nor the order of
    its candidates.
    """

    @property
    def name(self) -> str:
        """The name in results."""

    def fit(self, train: Sequence[RankingTask]) -> None:
        """Learn from the training tasks of all datasets. Raise :class:`Unavailable` if the baseline cannot run."""

    def rank(self, tasks: Sequence[RankingTask]) -> list[Ranking | None]:
        """Return one ranking a task, in their order, or None where the method does not apply."""


@runtime_checkable
class PromptingBaseline(Protocol):
    """The further methods of a baseline that prompts a language model; its answers are judged as those of any model."""

    def episodes(self) -> Sequence[Episode | None]:
        """Return the episodes of the last ``rank``, one a task, in their order; None where the ranking is None."""

    def template(self) -> Template:
        """Return the template of its prompts. Needs no ``fit`` before it; raises what ``fit`` raises."""


def shorten(text: str, most: int) -> str:
    """Return ``text``, or as many of its words as fit in ``most`` characters, and ``…``. Only a first word may be cut."""
    if len(text) <= most:
        return text
    words, space, _ = text[: most - 1].rpartition(" ")
    return f"{words} …" if space else f"{text[: most - 1]}…"


def seeded_order(task: RankingTask, seed: int) -> list[int]:
    """Return the indices of the candidates in an order that depends on the seed and the task, not on the prompt's order."""
    order = sorted(range(len(task.candidates)), key=lambda i: task.candidates[i].id)
    random.Random(f"{seed}/{task.dataset}/{task.id}").shuffle(order)
    return order


def rank_by_score(task: RankingTask, scores: Sequence[float], seed: int) -> Ranking:
    """Return ids by ``scores`` (one a candidate, higher is better), ties in the order of :func:`seeded_order`."""
    # sorted() is stable: equal scores keep the seeded order.
    order = sorted(seeded_order(task, seed), key=lambda i: -round(scores[i], 6))
    return [task.candidates[i].id for i in order]
