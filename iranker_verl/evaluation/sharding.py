"""A model asked about tasks: what to ask and how (:class:`Job`), here or on several Ray workers at once.

**Shards.** Worker i of N has an engine of its own and plays the tasks i, i + N, i + 2 N, … Every prompt, every seed and the
order of the results are those of one engine. At temperature 0 so are the answers, as far as the engine's arithmetic does not
depend on what is batched together: on a GPU, two answers of nearly equal probability may change places, with shards as from
one unsharded run to the next.
"""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from iranker_verl.errors import UserError
from iranker_verl.inference.endpoint import Endpoint
from iranker_verl.inference.engine import Engine
from iranker_verl.inference.episode import AHEAD, ChatEngine, Episode, Progress, run_episodes
from iranker_verl.ranking import RankingTask
from iranker_verl.ranking.templates import Template

Say = Callable[[str], None]
OnDone = Callable[[int, Episode], None]


@dataclass(frozen=True)
class Job:
    """How a model is asked. ``concurrency`` is the engine's batch, or the requests that a server has at once."""

    model: Path | Endpoint
    template: Template
    max_new_tokens: int
    temperature: float = 0.0
    concurrency: int = 64
    seed: int = 0
    max_model_len: int | None = None
    say_every_s: float = 5.0

    async def run(self, tasks: Sequence[RankingTask], on_done: OnDone, tell: Say) -> None:
        """Play all tasks; ``on_done`` gets a task's place and its episode as it ends. Nothing of vLLM is left after it."""
        async with self._open(tell) as engine:
            await run_episodes(
                tasks,
                self.template,
                engine,
                max_new_tokens=self.max_new_tokens,
                concurrency=self.concurrency * (1 if isinstance(self.model, Endpoint) else AHEAD),
                temperature=self.temperature,
                seed=self.seed,
                on_done=on_done,
                on_progress=lambda progress: tell(_line(progress)),
                progress_every_s=self.say_every_s,
            )

    @asynccontextmanager
    async def _open(self, tell: Say) -> AsyncIterator[ChatEngine]:
        """The engine, opened with a sign of life every few seconds: loading takes tens of seconds."""
        if isinstance(self.model, Endpoint):
            async with self.model as endpoint:
                yield endpoint
            return
        started, name = time.monotonic(), self.model.name
        engine = Engine(self.model, max_model_len=self.max_model_len, max_num_seqs=self.concurrency, seed=self.seed)

        async def beat() -> None:
            while True:
                tell(f"vLLM loads {name} ({time.monotonic() - started:.0f} s)")
                await asyncio.sleep(self.say_every_s)

        heart = asyncio.create_task(beat())
        try:
            async with engine:
                heart.cancel()
                yield engine
        finally:
            heart.cancel()


def run_sharded(job: Job, tasks: Sequence[RankingTask], shards: int, on_done: OnDone, tell: Say) -> None:
    """:meth:`Job.run` on ``shards`` Ray workers, each with a GPU of its own where the cluster has any, else with a CPU.

    Ray is the cluster at ``RAY_ADDRESS``, else one started here for as long as this takes. UserError where it has too
    few devices: Ray would wait for ever.
    """
    import ray

    started_here = not ray.is_initialized()
    if started_here:
        ray.init(log_to_driver=False, include_dashboard=False)
    streams: dict[Any, tuple[int, range]] = {}
    try:
        total = ray.cluster_resources()
        device = "GPU" if total.get("GPU", 0) else "CPU"
        if total.get(device, 0) < shards:
            raise UserError(f"{shards} shards need {shards} {device}s, but Ray has {total.get(device, 0):g}")
        needs = {"num_gpus": 1, "num_cpus": 0} if device == "GPU" else {"num_cpus": 1}
        options: dict[str, Any] = {**needs, "max_retries": 0, "num_returns": "streaming"}
        worker: Any = ray.remote(_shard)
        for number in range(min(shards, len(tasks))):
            own = range(number, len(tasks), shards)
            streams[worker.options(**options).remote(job, [tasks[i] for i in own])] = (number, own)
        while streams:
            ready: list[Any] = ray.wait(list(streams), num_returns=1)[0]
            for stream in ready:
                number, own = streams[stream]
                try:
                    place, content = ray.get(next(stream))
                except StopIteration:
                    del streams[stream]
                    continue
                except ray.exceptions.RayTaskError as error:
                    raise error.cause if isinstance(error.cause, UserError) else error from error
                if place is None:
                    tell(f"shard {number + 1}/{shards}: {content}")
                else:
                    on_done(own[place], content)
    finally:
        for stream in streams:  # an error, or Ctrl-C
            ray.cancel(stream, force=True)
        if started_here:
            ray.shutdown()


def _shard(job: Job, tasks: Sequence[RankingTask]) -> Iterator[tuple[int | None, Any]]:
    """On a worker: a task's place and episode as it ends, and, with None for a place, lines of progress."""
    items: queue.Queue[tuple[int | None, Any] | BaseException | None] = queue.Queue()

    def work() -> None:
        try:
            asyncio.run(
                job.run(tasks, lambda place, episode: items.put((place, episode)), lambda t: items.put((None, t)))
            )
        except BaseException as error:
            items.put(error)
        finally:
            items.put(None)

    thread = threading.Thread(target=work)
    thread.start()
    while (item := items.get()) is not None:
        if isinstance(item, BaseException):
            raise item
        yield item
    thread.join()


def _line(p: Progress) -> str:
    rate = p.calls / max(p.seconds, 1e-9)
    return f"{p.done}/{p.total} tasks, {p.calls} calls ({rate:.0f}/s), {p.malformed} malformed, {p.seconds:.0f} s"
