"""Direct ranking as a pure state machine: DRanker's form, the whole ranking in one answer.

    state = DirectRanking(task)
    state.step(model(template.messages(state)))
    state.ranking()      # ids, best first

It looks like :class:`~iranker_verl.ranking.elimination.Elimination` with one step. A partial answer is kept as far as it
goes: what it does not name comes last, in the order shown (candidate orders are random, so this favours nobody); a
candidate that it names again counts where it was named first; and an item that names nobody is passed over. An answer
without any order leaves the order shown. None of this is hidden: all but a whole ranking is counted as malformed, and the
step says how far it goes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from iranker_verl.ranking.task import Candidate, RankingTask
from reward_fns.answers import parse_ranking


@dataclass(frozen=True)
class DirectStep:
    """The one answer.

    ``pool`` holds the ids shown and ``named`` those that the answer names, best first; ``status`` is :mod:`reward_fns.answers`'s
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
        """Anything but every candidate once and nothing else, a partial ranking too."""
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
        """All candidates, in the order shown."""
        return self.task.candidates

    @property
    def done(self) -> bool:
        """Whether the answer was given."""
        return bool(self.steps)

    def ground_truth(self) -> dict[str, Any]:
        """What the answer is scored against, in the shape that all reward functions of ours read."""
        return self.task.ground_truth()

    def step(self, response: str) -> DirectStep:
        """Rank as ``response`` says; what it does not name comes last, in the order shown."""
        if self.done:
            raise ValueError(f"task {self.task.id!r} is ranked: a direct ranking is one answer")
        answer = parse_ranking(response, [c.text for c in self.pool])
        ids = tuple(c.id for c in self.pool)
        named = tuple(ids[place] for place in answer.order)
        step = DirectStep(ids, named, answer.status, answer.repeated, answer.unknown, response)
        self.steps.append(step)
        return step

    def ranking(self) -> list[str]:
        """All ids, best first. Before the answer it is the order shown."""
        named = self.steps[0].named if self.steps else ()
        return [*named, *(c.id for c in self.pool if c.id not in named)]
