r"""What a source gives and what preparation works on: tasks that are on no side of the split yet, as columns.

A source is found by its module in :mod:`data_prep.sources` and cut into *units*, pieces of work that need nothing of
each other.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from data_prep.options import Options
from data_prep.work import Work
from iranker_verl.ranking import RankingTask

# One row a task. ``group`` is what may not stand on both sides of a split (a user, a query); ``side`` is "train" or
# "test" where the raw data has decided it. ``history_ids`` are the items that the context tells of, and ``time`` when
# the positive was chosen (seconds): both are there so that a check can be made again from the prepared files alone.
# ``earlier`` counts the user's items after the positive; a task where there are any is for training alone.
TASKS = pa.schema(
    [
        ("task_id", pa.string()),
        ("dataset", pa.string()),
        ("scenario", pa.string()),
        ("context", pa.string()),
        ("candidate_ids", pa.list_(pa.string())),
        ("candidates", pa.list_(pa.string())),
        ("relevance", pa.list_(pa.float64())),
        ("group", pa.string()),
        ("side", pa.string()),
        ("history_ids", pa.list_(pa.string())),
        ("time", pa.float64()),
        ("earlier", pa.int32()),
    ]
)
BATCH = 1024

# What was left out and why, for each dataset: dropped["rec-movie"]["users: fewer than 21 items"] += 1
Dropped = defaultdict[str, Counter[str]]


def nothing_dropped() -> Dropped:
    """Return an empty count of what is dropped, by dataset and reason."""
    return defaultdict(Counter)


@dataclass(frozen=True)
class Draft:
    """A task as a source gives it. Candidates may stand in any order: preparation shuffles them, seeded by the task's id."""

    task: RankingTask
    group: str
    side: str | None = None
    history_ids: tuple[str, ...] = ()
    time: float | None = None


@dataclass(frozen=True)
class Unit:
    """A piece of work. Picklable, so ``make`` is a module's function.

    ``name`` is unique within a preparation and follows from the input alone, e.g. ``msmarco:train-00000.parquet``.
    ``make(*arguments, options, datasets, dropped)`` yields the tasks of the wanted ``datasets``, as drafts or as tables of
    :data:`TASKS`, and counts into ``dropped``.
    """

    name: str
    make: Callable[..., Iterable[Draft | pa.Table]]
    arguments: tuple[Any, ...] = ()

    def run(self, options: Options, datasets: Sequence[str], dropped: Dropped) -> Iterator[pa.Table]:
        """Return the unit's tasks; ``dropped`` is complete when the iterator ends."""
        return tables(self.make(*self.arguments, options, datasets, dropped))


@dataclass(frozen=True)
class Source:
    """Files that belong together, and the datasets that they hold.

    ``format`` is what people call it ("MovieLens-1M"). ``units`` are its pieces of work, or a function
    ``units(options, work)`` that returns them after earlier stages, which ``work`` runs (:mod:`data_prep.work`). A source
    that cannot be prepared says why in ``refused``.
    """

    format: str
    datasets: tuple[str, ...]
    files: tuple[Path, ...]
    units: Sequence[Unit] | Callable[[Options, Work], Sequence[Unit]] = field(default=(), compare=False)
    refused: str = ""

    def cut(self, options: Options, work: Work) -> Sequence[Unit]:
        """Return the pieces of work."""
        return self.units(options, work) if callable(self.units) else self.units


def tables(made: Iterable[Draft | pa.Table]) -> Iterator[pa.Table]:
    """Yield drafts as tables of :data:`TASKS`, and tables as they are."""
    batch: list[dict[str, Any]] = []
    for one in made:
        if isinstance(one, pa.Table):
            yield one
            continue
        batch.append(_row(one))
        if len(batch) == BATCH:
            yield pa.Table.from_pylist(batch, schema=TASKS)
            batch = []
    if batch:
        yield pa.Table.from_pylist(batch, schema=TASKS)


def _row(draft: Draft) -> dict[str, Any]:
    task = draft.task
    return {
        "task_id": task.id,
        "dataset": task.dataset,
        "scenario": task.scenario,
        "context": task.context,
        "candidate_ids": [c.id for c in task.candidates],
        "candidates": [c.text for c in task.candidates],
        "relevance": list(task.relevance),
        "group": draft.group,
        "side": draft.side,
        "history_ids": list(draft.history_ids),
        "time": draft.time,
        "earlier": 0,
    }
