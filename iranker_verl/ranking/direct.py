"""Direct ranking as a pure state machine: DRanker's form, the whole ranking in one answer.

    state = DirectRanking(task)
    state.step(model(template.messages(state)))
    state.ranking()      # ids, best first

It has the interface of :class:`~iranker_verl.ranking.elimination.Elimination`, with one step. Of a partial answer, the candidates
that it does not name come last, in the prompt's order (candidate orders are random, so this favours none); a candidate that is
named again counts where it was named first; an item that names no candidate is ignored. An answer without any order leaves the
prompt's order. All but a whole ranking is counted as malformed, and the step says how much it names.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from iranker_verl.ranking.task import Candidate, RankingTask
from reward_fns.answers import parse_ranking


@dataclass(frozen=True)
class DirectStep:
    """The one answer.

    ``pool`` holds the ids of the prompt and ``named`` those that the answer names, best first; ``status`` is :mod:`reward_fns.answers`'s
    ("ok" or why not), ``repeated`` and ``unknown`` count the answer's other items.
    """

    pool: tuple[str, ...]
    named: tuple[str, ...]
    status: str
    repeated: int
    unknown: int
    response: str

    @property
    def malformed(self) -> bool:
        """Whether the answer is anything but every candidate once; a partial ranking is malformed too."""
        return self.status != "ok"

    @property
    def missing(self) -> int:
        """How many candidates the answer does not name."""
        return len(self.pool) - len(self.named)


class DirectRanking:
    """The state of one direct ranking. ``step`` raises ValueError once ``done``."""

    def __init__(self, task: RankingTask) -> None:
        self.task = task
        self.steps: list[DirectStep] = []

    @property
    def pool(self) -> tuple[Candidate, ...]:
        """All candidates, in the task's order."""
        return self.task.candidates

    @property
    def done(self) -> bool:
        """Whether the answer was given."""
        return bool(self.steps)

    def ground_truth(self) -> dict[str, Any]:
        """Return what the answer is scored against, in the shape that all reward functions of ours read."""
        return self.task.ground_truth()

    def step(self, response: str) -> DirectStep:
        """Rank by ``response``; candidates that it does not name come last, in the task's order. ValueError once ``done``."""
        if self.done:
            raise ValueError(f"task {self.task.id!r} is ranked: a direct ranking is one answer")
        answer = parse_ranking(response, [c.text for c in self.pool])
        ids = tuple(c.id for c in self.pool)
        named = tuple(ids[index] for index in answer.order)
        step = DirectStep(ids, named, answer.status, answer.repeated, answer.unknown, response)
        self.steps.append(step)
        return step

    def ranking(self) -> list[str]:
        """Return all ids, best first; before the answer, in the task's order."""
        named = self.steps[0].named if self.steps else ()
        return [*named, *(c.id for c in self.pool if c.id not in named)]
