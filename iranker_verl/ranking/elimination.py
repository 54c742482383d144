"""Iterative elimination as a pure state machine: the one that rollouts, evaluation and serving all run.

    state = Elimination(task)
    while not state.done:
        state.step(model(template.messages(state)))
    state.ranking()      # ids, best first

The pool keeps the task's order, and at every step its i-th candidate has the i-th label, so that a step is a complete prompt:
the training row that a verl reward function scores.

*Long lists* (serving). With ``window`` a step shows the last ``window`` of the candidates still in; where one is excluded, the next
from the front comes in. A model that never errs then has the best ``window - 1`` in order, of however many candidates: the worst of
a window has ``window - 1`` above itself. Of a list in a first stage's order, best first, the tail is decided first.

*Several a call*. With ``per_call`` a call excludes that many of its candidates, ``half`` of them (rounded up), or ``all`` but one; the
response names them in the order of exclusion. A model can do that well if it was trained for it
(``exclusion_order``, :mod:`iranker_verl.training.policy_loss`): N candidates then take 1 call or few, and not N - 1.

A malformed answer does not stall an episode: the *last* candidate of the pool is excluded instead (candidate orders are random, so
this favours none), and the step is counted as malformed. With ``nearest`` it is the candidate that the answer resembles most
(:mod:`iranker_verl.ranking.nearest`), as in IRanker's public code; the step is counted all the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

from iranker_verl.ranking.nearest import nearest
from iranker_verl.ranking.task import Candidate, RankingTask
from reward_fns.answers import OK, PARTIAL, parse_exclusion, parse_ranking

Share = Literal["half", "all"]


def leaving(size: int, per_call: int | Share) -> int:
    """Return the number of candidates that a call with ``size`` of them excludes: one at least, and never all."""
    if isinstance(per_call, str):
        return (size + 1) // 2 if per_call == "half" and size > 2 else size - 1
    return min(per_call, size - 1)


@dataclass(frozen=True)
class Step:
    """One call. ``pool`` holds the ids of the prompt, ``status`` is :mod:`reward_fns.answers`'s ("ok" or why not).

    ``excluded`` is the first candidate that was excluded, ``also`` are those after it in the same call, in order.
    """

    pool: tuple[str, ...]
    excluded: str
    status: str
    response: str
    also: tuple[str, ...] = ()

    @property
    def malformed(self) -> bool:
        """Whether the response names no candidate in the form asked for."""
        return self.status != "ok"


class Elimination:
    """The state of one episode. ``step`` raises ValueError once ``done``; so does a ``window`` below 2 or a ``per_call`` below 1."""

    def __init__(
        self, task: RankingTask, window: int | None = None, per_call: int | Share = 1, *, nearest: bool = False
    ) -> None:
        if window is not None and window < 2:
            raise ValueError(f"a window shows 2 candidates at least, got {window}")
        if per_call not in get_args(Share) and (isinstance(per_call, str) or per_call < 1):
            raise ValueError(f"a call excludes 1 candidate at least, or half or all of them, got {per_call!r}")
        self.per_call, self.nearest = per_call, nearest
        self.task = task
        self.window = window or len(task.candidates)
        self._alive = list(range(len(task.candidates)))
        self.steps: list[Step] = []

    @property
    def _indices(self) -> list[int]:
        return self._alive[-self.window :]

    @property
    def pool(self) -> tuple[Candidate, ...]:
        """The candidates of the present step, in its order: those still in, or the last ``window`` of them."""
        return tuple(self.task.candidates[i] for i in self._indices)

    @property
    def leaving(self) -> int:
        """The number of candidates that the present step excludes: one at least, and never all."""
        return leaving(len(self._indices), self.per_call)

    @property
    def done(self) -> bool:
        """Whether one candidate is left."""
        return len(self._alive) == 1

    @property
    def decided(self) -> bool:
        """Whether no exclusion can matter any more: the candidates still in are equally relevant, or one is left."""
        return len({self.task.relevance[i] for i in self._alive}) == 1

    def ground_truth(self) -> dict[str, Any]:
        """Return what this step's answer is scored against, in the shape of :mod:`reward_fns.exclusion`."""
        relevance = [self.task.relevance[i] for i in self._indices]
        truth: dict[str, Any] = {
            "candidates": [c.text for c in self.pool],
            "target": relevance.index(max(relevance)),
        }
        if self.task.graded or max(relevance) == min(relevance):
            truth["relevance"] = relevance
        return truth

    def step(self, response: str) -> Step:
        """Exclude the candidates that ``response`` names; the last of the pool in place of those that it does not name."""
        if self.done:
            raise ValueError(f"episode of task {self.task.id!r} is over: one candidate is left")
        pool = self.pool
        texts = [c.text for c in pool]
        named, status = self._named(response, texts)
        if self.nearest and not named:
            named = [nearest(response, texts)]
        others = [index for index in reversed(range(len(pool))) if index not in named]
        leave = (named + others)[: self.leaving]
        indices = self._indices
        for index in leave:
            self._alive.remove(indices[index])
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
        """Return all ids, best first. Until the end, the candidates still in come first, in the task's order."""
        out = [id for step in self.steps for id in (step.excluded, *step.also)]
        return [self.task.candidates[i].id for i in self._alive] + out[::-1]
