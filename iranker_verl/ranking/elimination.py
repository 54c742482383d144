"""Iterative elimination as a pure state machine: the one that rollouts, evaluation and serving all run.

    state = Elimination(task)
    while not state.done:
        state.step(model(template.messages(state)))
    state.ranking()      # ids, best first

The pool is always shown in the task's order, and at every step its i-th candidate bears the i-th label, so that a step
is a complete prompt of its own: the training row that a verl reward function scores.

*Long lists* (serving). With ``window`` a step shows the last so many of those still in; where one leaves, the next from the
front comes in. A judge that never errs then has the best ``window - 1`` in order, of however many candidates: who is the
worst of a window has ``window - 1`` above itself. Of a list in a first stage's order, best first, the tail is decided first.

A malformed answer never stalls an episode: the *last shown* candidate leaves instead (candidate orders are random, so
this favours nobody), and the step is counted as malformed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from iranker_verl.ranking.task import Candidate, RankingTask
from reward_fns.answers import parse_exclusion


@dataclass(frozen=True)
class Step:
    """One exclusion. ``pool`` holds the ids shown, ``status`` is :mod:`reward_fns.answers`'s ("ok" or why not)."""

    pool: tuple[str, ...]
    excluded: str
    status: str
    response: str

    @property
    def malformed(self) -> bool:
        return self.status != "ok"


class Elimination:
    """The state of one episode. ``step`` raises ValueError once ``done``; so does a ``window`` below 2."""

    def __init__(self, task: RankingTask, window: int | None = None) -> None:
        if window is not None and window < 2:
            raise ValueError(f"a window shows 2 candidates at least, got {window}")
        self.task = task
        self.window = window or len(task.candidates)
        self._alive = list(range(len(task.candidates)))
        self.steps: list[Step] = []

    @property
    def _shown(self) -> list[int]:
        return self._alive[-self.window :]

    @property
    def pool(self) -> tuple[Candidate, ...]:
        """The candidates that the present step shows, in its order: those still in, or the last ``window`` of them."""
        return tuple(self.task.candidates[i] for i in self._shown)

    @property
    def done(self) -> bool:
        return len(self._alive) == 1

    @property
    def decided(self) -> bool:
        """Nothing left in the pool can be regretted: the remaining candidates are equally relevant, or one is left."""
        return len({self.task.relevance[i] for i in self._alive}) == 1

    def ground_truth(self) -> dict[str, Any]:
        """What this step's answer is scored against, in the shape of :mod:`reward_fns.exclusion`."""
        relevance = [self.task.relevance[i] for i in self._shown]
        truth: dict[str, Any] = {
            "candidates": [c.text for c in self.pool],
            "target": relevance.index(max(relevance)),
        }
        if self.task.graded or max(relevance) == min(relevance):
            truth["relevance"] = relevance
        return truth

    def step(self, response: str) -> Step:
        """Exclude what ``response`` names, or the last shown candidate where it names none."""
        if self.done:
            raise ValueError(f"episode of task {self.task.id!r} is over: one candidate is left")
        pool = self.pool
        answer = parse_exclusion(response, [c.text for c in pool])
        place = answer.index if answer.index is not None else len(pool) - 1
        self._alive.remove(self._shown[place])
        step = Step(tuple(c.id for c in pool), pool[place].id, answer.status, response)
        self.steps.append(step)
        return step

    def ranking(self) -> list[str]:
        """All ids, best first. An unfinished episode ranks what is left in the order shown."""
        return [self.task.candidates[i].id for i in self._alive] + [s.excluded for s in reversed(self.steps)]
