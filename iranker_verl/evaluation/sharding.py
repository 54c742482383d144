"""Rank tasks with a model (:class:`ModelJob`), here or on several Ray workers at once.

**Shards.** Worker i of N has an engine of its own and ranks the tasks i, i + N, i + 2 N, … Every prompt, every seed and the
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
from typing import Any

from iranker_verl.errors import UserError
from iranker_verl.evaluation.systems import ModelSystem
from iranker_verl.inference.endpoint import Endpoint
from iranker_verl.inference.engine import Engine
from iranker_verl.inference.episode import AHEAD, ChatEngine, Episode, Progress, run_episodes
from iranker_verl.ranking import RankingTask

Log = Callable[[str], None]
OnDone = Callable[[int, Episode], None]


@dataclass(frozen=True)
class ModelJob:
    """What a worker needs to rank tasks with a model. ``max_model_len`` is the engine's, of prompt and answer together."""

    system: ModelSystem
    seed: int = 0
    max_model_len: int | None = None
    log_every_s: float = 5.0

    async def run(self, tasks: Sequence[RankingTask], on_done: OnDone, log: Log) -> None:
        """Rank all tasks; ``on_done`` gets a task's index and its episode as it ends. Nothing of vLLM is left after it."""
        system = self.system
        async with self._open(log) as engine:
            await run_episodes(
                tasks,
                system.template,
                engine,
                system.episode_options(self.seed),
                concurrency=system.concurrency * (1 if isinstance(system.model, Endpoint) else AHEAD),
                on_done=on_done,
                on_progress=lambda progress: log(_line(progress)),
                progress_every_s=self.log_every_s,
            )

    @asynccontextmanager
    async def _open(self, log: Log) -> AsyncIterator[ChatEngine]:
        """Open the engine, and log every few seconds meanwhile: loading takes tens of seconds."""
        model = self.system.model
        if isinstance(model, Endpoint):
            async with model as endpoint:
                yield endpoint
            return
        started = time.monotonic()
        engine = Engine(model, max_model_len=self.max_model_len, max_num_seqs=self.system.concurrency, seed=self.seed)

        async def beat() -> None:
            while True:
                log(f"vLLM loads {model.name} ({time.monotonic() - started:.0f} s)")
                await asyncio.sleep(self.log_every_s)

        heart = asyncio.create_task(beat())
        try:
            async with engine:
                heart.cancel()
                yield engine
        except Exception as error:
            if type(error).__name__ != "EngineDeadError":  # vLLM's, which is not imported here
                raise
            raise UserError(
                f"{model}: vLLM's engine died (was it killed, or is memory full?); its output is above; the same command resumes"
            ) from error
        finally:
            heart.cancel()


def run_sharded(job: ModelJob, tasks: Sequence[RankingTask], shards: int, on_done: OnDone, log: Log) -> None:
    """Run :meth:`ModelJob.run` on ``shards`` Ray workers, each with a GPU of its own where the cluster has any, else a CPU.

    Ray is the cluster at ``RAY_ADDRESS``, else one started here for as long as this takes. Raise UserError where it has too
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
                    index, content = ray.get(next(stream))
                except StopIteration:
                    del streams[stream]
                    continue
                except ray.exceptions.RayTaskError as error:
                    raise error.cause if isinstance(error.cause, UserError) else error from error
                if index is None:
                    log(f"shard {number + 1}/{shards}: {content}")
                else:
                    on_done(own[index], content)
    finally:
        for stream in streams:  # an error, or Ctrl-C
            ray.cancel(stream, force=True)
        if started_here:
            ray.shutdown()


def _shard(job: ModelJob, tasks: Sequence[RankingTask]) -> Iterator[tuple[int | None, Any]]:
    """On a worker, yield a task's index and episode as it ends, and, with None for an index, lines of progress."""
    items: queue.Queue[tuple[int | None, Any] | BaseException | None] = queue.Queue()

    def work() -> None:
        try:
            asyncio.run(
                job.run(tasks, lambda index, episode: items.put((index, episode)), lambda t: items.put((None, t)))
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
