"""Do work piece by piece, in this process, in several, or on a Ray cluster, and resume it where it was interrupted.

A :class:`Job` fills a folder of its own. It is filled beside its place and renamed when the job is done, so that a finished
job is never done again and an unfinished one leaves nothing to trust.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeVar

from iranker_verl.errors import UserError
from iranker_verl.files import replacing_folder
from iranker_verl.processes import die_with_parent

# Below this much input, starting processes takes longer than they save.
WORTH_PROCESSES_BYTES = 64 << 20
FEW = 4  # calls of a second or more

T = TypeVar("T")
R = TypeVar("R")


class Interrupted(UserError):
    """Work that the same command can continue: what is done is kept."""


@dataclass(frozen=True)
class Job:
    """``fill(folder, *arguments)`` writes the job's result into ``folder``. Picklable."""

    name: str
    fill: Callable[..., None]
    arguments: tuple[Any, ...] = ()

    @property
    def folder_name(self) -> str:
        """Return a readable name that no two jobs share."""
        readable = re.sub(r"[^\w.=-]+", "_", self.name)[:60]
        return f"{readable}-{hashlib.sha256(self.name.encode()).hexdigest()[:32]}"


@dataclass(frozen=True)
class Work:
    """Where jobs keep their results, and who does them.

    ``processes`` at a time (1: here); with ``ray`` every job is a row of a Ray Data set instead, and ``folder`` has to be
    one that all nodes share.
    """

    folder: Path
    processes: int = 1
    ray: bool = False
    progress: Callable[[str], None] = lambda line: None

    def run(self, jobs: Sequence[Job]) -> list[Path]:
        """Do the jobs that are not done yet; their folders, in order. The first UserError of a job is raised.

        ValueError where two jobs have one name.
        """
        if twice := [name for name, count in Counter(job.name for job in jobs).items() if count > 1]:
            raise ValueError(f"two jobs are named {twice[0]!r}; one's result would be taken for the other's")
        self.folder.mkdir(parents=True, exist_ok=True)
        todo = [job for job in jobs if not (self.folder / job.folder_name).is_dir()]
        if len(jobs) > len(todo):
            self.progress(f"{len(jobs) - len(todo)} of {len(jobs)} pieces were done before")
        doing = self._doing(todo)
        for count, name in enumerate(doing, len(jobs) - len(todo) + 1):
            if len(jobs) > 1:
                self.progress(f"{name} done, {count} of {len(jobs)}")
        return [self.folder / job.folder_name for job in jobs]

    def _doing(self, jobs: Sequence[Job]) -> Iterator[str]:
        """Yield the names of the jobs as they are done."""
        if self.ray and jobs:
            yield from _with_ray(jobs, self.folder)
        elif self.processes > 1 and len(jobs) > 1:
            yield from _with_processes(jobs, self.folder, min(self.processes, len(jobs)))
        else:
            for job in jobs:
                yield _do(job, self.folder)


def processes_for(files: Sequence[Path]) -> int:
    """Return how many processes are worth their start for these input files."""
    size = sum(file.stat().st_size for file in files if file.is_file())
    return len(os.sched_getaffinity(0)) if size > WORTH_PROCESSES_BYTES else 1


def map_in_processes(call: Callable[[T], R], of: Sequence[T]) -> Iterator[R]:
    """Yield ``call`` of each, in order: of four or more, by a process for each CPU. What it takes and returns can be pickled."""
    if len(of) < FEW:
        yield from map(call, of)
        return
    with _pool(min(len(os.sched_getaffinity(0)), len(of))) as pool:
        yield from pool.map(call, of)


def _pool(count: int) -> ProcessPoolExecutor:
    # spawn: pyarrow's threads do not survive a fork
    return ProcessPoolExecutor(
        count, mp_context=get_context("spawn"), initializer=die_with_parent, initargs=(os.getpid(),)
    )


def _do(job: Job, folder: Path) -> str:
    place = folder / job.folder_name
    with replacing_folder(place) as part:
        job.fill(part, *job.arguments)
    return job.name


def _with_processes(jobs: Sequence[Job], folder: Path, count: int) -> Iterator[str]:
    pool = _pool(count)
    try:
        for done in [pool.submit(_do, job, folder) for job in jobs]:
            yield done.result()
    except BrokenProcessPool as error:
        raise Interrupted(
            f"{folder}: a process of the preparation died (out of memory?); the same command continues where it was"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _with_ray(jobs: Sequence[Job], folder: Path) -> Iterator[str]:
    import ray

    by_name = {job.name: job for job in jobs}

    def do(row: dict[str, Any]) -> dict[str, Any]:
        try:
            return {"name": _do(by_name[row["name"]], folder), "mistake": ""}
        except UserError as error:  # as a value: Ray wraps what is raised beyond recognition
            return {"name": row["name"], "mistake": str(error)}

    rows = ray.data.from_items([{"name": name} for name in by_name], override_num_blocks=len(by_name))
    for row in rows.map(do).iter_rows():
        if row["mistake"]:
            raise UserError(row["mistake"])
        yield row["name"]
