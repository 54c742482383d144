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

*Several a call*. With ``per_call`` a call excludes that many of the candidates that it shows, ``half`` of them (rounded up), or ``all``
but one; the response names them in the order in which they leave. A model can do that well if it was trained for it
(``exclusion_order``, :mod:`iranker_verl.training.policy_loss`): N candidates then take 1 call or few, and not N - 1.

A malformed answer never stalls an episode: the *last shown* candidate leaves instead (candidate orders are random, so
this favours nobody), and the step is counted as malformed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

from iranker_verl.ranking.task import Candidate, RankingTask
from reward_fns.answers import OK, PARTIAL, parse_exclusion, parse_ranking

Share = Literal["half", "all"]


@dataclass(frozen=True)
class Step:
    """One call. ``pool`` holds the ids shown, ``status`` is :mod:`reward_fns.answers`'s ("ok" or why not).

    ``excluded`` is the first candidate that left, ``also`` are those that left after it in the same call, in order.
    """

    pool: tuple[str, ...]
    excluded: str
    status: str
    response: str
    also: tuple[str, ...] = ()

    @property
    def malformed(self) -> bool:
        return self.status != "ok"


class Elimination:
    """The state of one episode. ``step`` raises ValueError once ``done``; so does a ``window`` below 2 or a ``per_call`` below 1."""

    def __init__(self, task: RankingTask, window: int | None = None, per_call: int | Share = 1) -> None:
        if window is not None and window < 2:
            raise ValueError(f"a window shows 2 candidates at least, got {window}")
        if per_call not in get_args(Share) and (isinstance(per_call, str) or per_call < 1):
            raise ValueError(f"a call excludes 1 candidate at least, or half or all of them, got {per_call!r}")
        self.per_call = per_call
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
    def leaving(self) -> int:
        """How many of the pool leave in the present step: one at least, and never all."""
        shown = len(self._shown)
        if isinstance(self.per_call, str):
            return (shown + 1) // 2 if self.per_call == "half" and shown > 2 else shown - 1
        return min(self.per_call, shown - 1)

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
        """Exclude what ``response`` names; the last shown candidates in place of those that it does not name."""
        if self.done:
            raise ValueError(f"episode of task {self.task.id!r} is over: one candidate is left")
        pool = self.pool
        named, status = self._named(response, [c.text for c in pool])
        last_shown = [index for index in reversed(range(len(pool))) if index not in named]
        leave = (named + last_shown)[: self.leaving]
        shown = self._shown
        for index in leave:
            self._alive.remove(shown[index])
        first, *also = (pool[index].id for index in leave)
        step = Step(tuple(c.id for c in pool), first, status, response, tuple(also))
        self.steps.append(step)
        return step

    def _named(self, response: str, texts: list[str]) -> tuple[list[int], str]:
        """Return the indices of the candidates to exclude that ``response`` names, in its order, and its status."""
        if self.leaving == 1:
            answer = parse_exclusion(response, texts)
            return ([] if answer.index is None else [answer.index]), answer.status
        order = parse_ranking(response, texts)
        enough = len(order.order) >= self.leaving and order.status in (OK, PARTIAL)
        return list(order.order), OK if enough else order.status if order.status != OK else PARTIAL

    def ranking(self) -> list[str]:
        """All ids, best first. An unfinished episode ranks what is left in the order shown."""
        out = [id for step in self.steps for id in (step.excluded, *step.also)]
        return [self.task.candidates[i].id for i in self._alive] + out[::-1]
