"""Whole eliminations (or direct rankings), continuously batched: a task goes on as soon as its own answer is back.

Each task is a coroutine of its own around the state machine of its template's kind; nothing waits for a slower task,
and the engine always has as many requests to batch as there are tasks under way.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from iranker_verl.inference.engine import Generation
from iranker_verl.ranking import RankingTask, Step
from iranker_verl.ranking.direct import DirectStep
from iranker_verl.ranking.templates import Template


class Answers(Protocol):
    """What :func:`play` asks of an engine; :class:`iranker_verl.inference.engine.Engine` is one."""

    async def ask(
        self, messages: Sequence[Mapping[str, str]], max_new_tokens: int, temperature: float = 0.0
    ) -> Generation: ...


@dataclass(frozen=True)
class Episode:
    """One task played to its end: the ranking (candidate ids, best first) and how it came about."""

    task_id: str
    dataset: str
    ranking: tuple[str, ...]
    steps: tuple[Step | DirectStep, ...]
    prompt_tokens: int
    new_tokens: int
    seconds: float

    @property
    def calls(self) -> int:
        return len(self.steps)

    @property
    def malformed(self) -> int:
        return sum(step.malformed for step in self.steps)


@dataclass(frozen=True)
class Progress:
    """How far :func:`play` is: tasks done of all, LLM calls so far and how many of them were malformed."""

    done: int
    total: int
    calls: int
    malformed: int
    seconds: float


async def play(
    tasks: Sequence[RankingTask],
    template: Template,
    engine: Answers,
    *,
    max_new_tokens: int,
    concurrency: int = 64,
    temperature: float = 0.0,
    on_done: Callable[[Episode], None] | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    progress_every_s: float = 5.0,
) -> list[Episode]:
    """Rank every task, by elimination or at once, as the template's kind says; episodes come back in the order of ``tasks``.

    At most ``concurrency`` tasks are under way. ``on_done`` gets each episode as it ends; ``on_progress`` is called
    every ``progress_every_s`` seconds, whether or not anything ended, and once at the end. The first error, or a
    cancellation, ends all of it.
    """
    if concurrency < 1:
        raise ValueError(f"concurrency is at least 1, got {concurrency}")
    started = time.monotonic()
    gate = asyncio.Semaphore(concurrency)
    done = calls = malformed = 0

    def report() -> None:
        if on_progress is not None:
            on_progress(Progress(done, len(tasks), calls, malformed, time.monotonic() - started))

    def count(step: Step | DirectStep) -> None:
        nonlocal calls, malformed
        calls, malformed = calls + 1, malformed + step.malformed

    async def one(task: RankingTask) -> Episode:
        nonlocal done
        async with gate:
            episode = await _episode(task, template, engine, max_new_tokens, temperature, count)
        done += 1
        if on_done is not None:
            on_done(episode)
        return episode

    async def tick() -> None:
        while True:
            await asyncio.sleep(progress_every_s)
            report()

    episodes = [asyncio.create_task(one(task)) for task in tasks]
    ticker = asyncio.create_task(tick())
    try:
        played = await asyncio.gather(*episodes)
    finally:
        for job in (*episodes, ticker):
            job.cancel()
        await asyncio.gather(*episodes, ticker, return_exceptions=True)
    report()
    return list(played)


async def _episode(
    task: RankingTask,
    template: Template,
    engine: Answers,
    max_new_tokens: int,
    temperature: float,
    count: Callable[[Step | DirectStep], None],
) -> Episode:
    started = time.monotonic()
    state = template.start(task)
    prompt_tokens = new_tokens = 0
    while not state.done:
        answer = await engine.ask(template.messages(state), max_new_tokens, temperature)
        prompt_tokens += answer.prompt_tokens
        new_tokens += len(answer.token_ids)
        count(state.step(answer.text))
    return Episode(
        task.id,
        task.dataset,
        tuple(state.ranking()),
        tuple(state.steps),
        prompt_tokens,
        new_tokens,
        time.monotonic() - started,
    )
