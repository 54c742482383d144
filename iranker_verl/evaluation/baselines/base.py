"""The interface of a baseline, which is fitted on training tasks and ranks others, and the rankings that scores give.

Ties are broken by a seeded shuffle and never by the order of the prompt, which would leak it. Ids of two datasets are
unrelated, so everything is learned within a dataset.
"""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Protocol, TypeVar, runtime_checkable

from iranker_verl.ranking import RankingTask

if TYPE_CHECKING:
    from iranker_verl.evaluation.systems import ModelSystem

Ranking = list[str]  # all candidate ids of a task, best first
Data = TypeVar("Data")
Model = TypeVar("Model")


class Unavailable(Exception):
    """A baseline cannot run here, with the reason (missing weights or library), which its row of a table shows."""


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
    """The interface of a baseline: it ranks tasks after it has seen the training tasks.

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
    """A baseline that is a language model; it is evaluated, and its answers are judged, as any other model's."""

    @property
    def name(self) -> str:
        """The name in results."""

    def system(self) -> ModelSystem:
        """Return the model, and how it is asked. Raise :class:`Unavailable` where none is named."""


class ScoringBaseline(ABC):
    """A baseline that gives each candidate a score, and the base class of nearly all.

    ``scenario`` is the only one that it applies to, None for all; ``settings`` say how it learns, if it does.
    """

    name: ClassVar[str]
    scenario: ClassVar[str | None] = None
    settings: Any = None

    def __init__(self, context: Context, settings: Any = None) -> None:
        self.context = context
        if settings is not None:
            self.settings = settings

    @abstractmethod
    def fit(self, train: Sequence[RankingTask]) -> None:
        """Learn from the training tasks. Raise :class:`Unavailable` if the baseline cannot run."""

    def applies(self, task: RankingTask) -> bool:
        """Return whether the method can rank the task."""
        return self.scenario in (None, task.scenario)

    @abstractmethod
    def scores(self, tasks: Sequence[RankingTask]) -> Iterable[Sequence[float]]:
        """Return one score a candidate of each task, all of which it applies to; higher is better."""

    def rank(self, tasks: Sequence[RankingTask]) -> list[Ranking | None]:
        """Return one ranking a task, in their order, or None where the method does not apply."""
        chosen = [index for index, task in enumerate(tasks) if self.applies(task)]
        rankings: list[Ranking | None] = [None] * len(tasks)
        for index, scores in zip(chosen, self.scores([tasks[i] for i in chosen]) if chosen else (), strict=True):
            rankings[index] = rank_by_score(tasks[index], scores, self.context.seed)
        return rankings


class LearnedByDataset(ScoringBaseline, Generic[Data, Model]):
    """A baseline with one model a dataset; it applies to the tasks of the datasets that it has learned."""

    def __init__(self, context: Context, settings: Any = None) -> None:
        super().__init__(context, settings)
        self.learned: dict[str, tuple[Data, Model]] = {}

    def fit(self, train: Sequence[RankingTask]) -> None:
        """Learn a model of each dataset."""
        self.learned = {dataset: (data, self.learn(dataset, data)) for dataset, data in self.data_of(train).items()}

    def applies(self, task: RankingTask) -> bool:
        """Return whether the task is of the scenario, and of a dataset with training tasks."""
        return super().applies(task) and task.dataset in self.learned

    @abstractmethod
    def data_of(self, train: Sequence[RankingTask]) -> Mapping[str, Data]:
        """Return what is learned from, by dataset."""

    @abstractmethod
    def learn(self, dataset: str, data: Data) -> Model:
        """Return the model of one dataset."""


def rank_by_score(task: RankingTask, scores: Sequence[float], seed: int) -> Ranking:
    """Return ids by ``scores`` (one a candidate, higher is better); ties in an order that depends on seed and task alone."""
    order = sorted(range(len(task.candidates)), key=lambda i: task.candidates[i].id)
    random.Random(f"{seed}/{task.dataset}/{task.id}").shuffle(order)
    order.sort(key=lambda i: -round(scores[i], 6))  # stable: equal scores keep the shuffled order
    return [task.candidates[i].id for i in order]
