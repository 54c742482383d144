"""Whole eliminations (or other ways to a ranking), continuously batched: a task continues as soon as its own answer is back.

Each task is a coroutine of its own around the state machine of its template's kind; nothing waits for a slower task,
and the engine always has as many requests to batch as there are tasks under way.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, cast, get_args

from iranker_verl.errors import UserError
from iranker_verl.inference.endpoint import Endpoint
from iranker_verl.inference.engine import ChatTokenizer, Generation, Messages
from iranker_verl.ranking import RankingTask
from iranker_verl.ranking.elimination import Share
from iranker_verl.ranking.templates import Template, available, load
from reward_fns.answers import label

# Tasks under way for each request of an engine's batch: as many again wait in its queue, so that the batch is full while a task's
# next prompt is made.
AHEAD = 2


class ChatEngine(Protocol):
    """What :func:`run_episodes` asks of an engine. ``seed`` is passed only where the temperature is above 0."""

    async def ask(
        self, messages: Messages, max_new_tokens: int, temperature: float = 0.0, *, seed: int | None = None
    ) -> Generation:
        """Return the answer to chat ``messages``."""
        ...


class LabelEngine(Protocol):
    """What :func:`run_episode` asks of an engine for constrained answers."""

    async def rank_labels(self, messages: Messages, count: int) -> tuple[list[int], Generation]:
        """Return the indices of the first ``count`` labels, the likeliest first, and what the call cost."""
        ...


class AnsweredStep(Protocol):
    """What the steps of all state machines have in common."""

    @property
    def status(self) -> str:
        """``ok``, or why the response names no candidate."""
        ...

    @property
    def response(self) -> str:
        """The model's text."""
        ...

    @property
    def malformed(self) -> bool:
        """Whether the status is not ``ok``."""
        ...


@dataclass(frozen=True)
class Episode:
    """One task run to its end: the ranking (candidate ids, best first) and how it came about."""

    task_id: str
    dataset: str
    ranking: tuple[str, ...]
    steps: tuple[AnsweredStep, ...]
    prompt_tokens: int
    new_tokens: int
    seconds: float
    per_call: int | Share = 1

    @property
    def calls(self) -> int:
        """The number of calls of the model."""
        return len(self.steps)

    @property
    def malformed(self) -> int:
        """The number of malformed answers."""
        return sum(step.malformed for step in self.steps)


@dataclass(frozen=True)
class EpisodeOptions:
    """How a model is asked in an episode.

    Above ``temperature`` 0 every call has a seed of its own, made of ``seed`` (:func:`call_seed`). ``window`` and ``per_call`` are
    :class:`~iranker_verl.ranking.Elimination`'s. ``constrained`` answers are the likeliest labels, by the model's own log-probs of
    one token, so that none is malformed (:func:`check_constrained`); they need an engine that is a :class:`LabelEngine`.
    """

    max_new_tokens: int
    temperature: float = 0.0
    seed: int = 0
    window: int | None = None
    per_call: int | Share = 1
    constrained: bool = False


@dataclass(frozen=True)
class Progress:
    """How far :func:`run_episodes` is: tasks done of all, LLM calls so far and how many of them were malformed."""

    done: int
    total: int
    calls: int
    malformed: int
    seconds: float


async def run_episodes(
    tasks: Sequence[RankingTask],
    template: Template,
    engine: ChatEngine,
    options: EpisodeOptions,
    *,
    concurrency: int = 64,
    on_done: Callable[[int, Episode], None] | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    progress_every_s: float = 5.0,
) -> list[Episode]:
    """Rank every task in the way of the template's kind; episodes come back in the order of ``tasks``.

    At most ``concurrency`` tasks are under way. ``on_done`` gets each task's index in ``tasks`` and its episode as it ends;
    ``on_progress`` is called every ``progress_every_s`` seconds, whether or not anything ended, and once at the end. The first
    error, or a cancellation, ends all of it.
    """
    if concurrency < 1:
        raise ValueError(f"concurrency is at least 1, got {concurrency}")
    started = time.monotonic()
    gate = asyncio.Semaphore(concurrency)
    done = calls = malformed = 0

    def report() -> None:
        if on_progress is not None:
            on_progress(Progress(done, len(tasks), calls, malformed, time.monotonic() - started))

    def count(step: AnsweredStep, _: Generation) -> None:
        nonlocal calls, malformed
        calls, malformed = calls + 1, malformed + step.malformed

    async def one(index: int, task: RankingTask) -> Episode:
        nonlocal done
        async with gate:
            episode = await run_episode(task, template, engine, options, on_step=count)
        done += 1
        if on_done is not None:
            on_done(index, episode)
        return episode

    async def tick() -> None:
        while True:
            await asyncio.sleep(progress_every_s)
            report()

    episodes = [asyncio.create_task(one(index, task)) for index, task in enumerate(tasks)]
    ticker = asyncio.create_task(tick())
    try:
        done_in_order = await asyncio.gather(*episodes)
    finally:
        await cancel_and_wait(*episodes, ticker)
    report()
    return list(done_in_order)


async def cancel_and_wait(*jobs: asyncio.Future[Any]) -> None:
    """Cancel those that are not done, and wait until they have ended."""
    for job in jobs:
        job.cancel()
    await asyncio.gather(*jobs, return_exceptions=True)


async def run_episode(
    task: RankingTask,
    template: Template,
    engine: ChatEngine,
    options: EpisodeOptions,
    *,
    on_step: Callable[[AnsweredStep, Generation], None] | None = None,
) -> Episode:
    """Rank one task. ``on_step`` gets each step as it is made, and the answer that made it."""
    began = time.monotonic()
    state: Any = template.start(task, options.window, options.per_call)
    prompt_tokens = new_tokens = 0
    while not state.done:
        if options.constrained:
            order, answer = await cast(LabelEngine, engine).rank_labels(template.messages(state), len(state.pool))
            answer = replace(answer, text=", ".join(f"[{label(index)}]" for index in order[: state.leaving]))
        else:
            own = {} if options.temperature == 0 else {"seed": call_seed(options.seed, task, len(state.steps))}
            answer = await engine.ask(template.messages(state), options.max_new_tokens, options.temperature, **own)
        prompt_tokens += answer.prompt_tokens
        new_tokens += answer.new_tokens
        step = state.step(answer.text)
        if on_step is not None:
            on_step(step, answer)
    return _episode(task, state, prompt_tokens, new_tokens, time.monotonic() - began, options.per_call)


def call_seed(seed: int, task: RankingTask, step: int) -> int:
    """Return a sampled call's own seed, of 31 bits, from the run's seed, the task, its candidates' order and the step.

    So a call draws the same whatever runs beside it, and an interrupted run is resumed with the same draws.
    """
    key = "\0".join((str(seed), task.dataset, task.id, str(step), *(c.id for c in task.candidates)))
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=4).digest()) >> 1


def replay_episode(
    task: RankingTask,
    template: Template,
    responses: Iterable[str],
    *,
    prompt_tokens: int,
    new_tokens: int,
    seconds: float,
    per_call: int | Share = 1,
) -> Episode:
    """Return the episode that these responses made, without a model. Raise ValueError where they are too few or too many."""
    state: Any = template.start(task, None, per_call)
    for response in responses:
        state.step(response)
    if not state.done:
        raise ValueError(f"task {task.id!r} of {task.dataset!r}: {len(state.steps)} responses do not end its episode")
    return _episode(task, state, prompt_tokens, new_tokens, seconds, per_call)


def _episode(
    task: RankingTask, state: Any, prompt_tokens: int, new_tokens: int, seconds: float, per_call: int | Share
) -> Episode:
    ranking, steps = tuple(state.ranking()), tuple(state.steps)
    return Episode(task.id, task.dataset, ranking, steps, prompt_tokens, new_tokens, round(seconds, 4), per_call)


def check_constrained(model: Path | Endpoint, template: Template, shows: int, per_call: int | Share) -> None:
    """Raise UserError where answers cannot be read from log-probs of labels, or ``per_call`` is no number of candidates.

    They need a model in this process, a ``template`` that asks for a label alone, and a tokenizer with a token for each of the
    labels that a prompt ``shows``.
    """
    if per_call not in get_args(Share) and (isinstance(per_call, str) or per_call < 1):
        raise UserError(f"per_call is a number of candidates, half or all, got {per_call!r}")
    if isinstance(model, Endpoint):
        raise UserError(
            "constrained answers and per_call read log-probs, which an endpoint does not give; load the model here"
        )
    if not template.asks_for_a_label:
        fit = [name for name in available() if load(name).asks_for_a_label]
        raise UserError(
            f"constrained answers and per_call are for templates that ask for a label alone, as {', '.join(fit)}; "
            f"{template.id} asks for more"
        )
    ChatTokenizer(model).labels(shows)
