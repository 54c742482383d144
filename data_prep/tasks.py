r"""What a source gives and what preparation works on: tasks that are on no side of the split yet, as columns.

A source is found by its module in :mod:`data_prep.sources` and cut into *units*, pieces of work that need nothing of
each other. A unit yields :class:`Draft`\s, or tables of :data:`TASKS` at once, and counts what it drops.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa

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
    """A piece of work: ``make(*arguments, dropped)`` yields its tasks. Picklable, so ``make`` is a module's function.

    ``name`` is unique within a preparation and follows from the input alone, e.g. ``msmarco:train-00000.parquet``.
    ``make`` yields tables of :data:`TASKS` (:func:`tables` makes them from drafts) and counts into ``dropped``.
    """

    name: str
    make: Callable[..., Iterator[pa.Table]]
    arguments: tuple[Any, ...] = ()

    def run(self, dropped: Dropped) -> Iterator[pa.Table]:
        """Return the unit's tasks; ``dropped`` is complete when the iterator ends."""
        return self.make(*self.arguments, dropped)


@dataclass(frozen=True)
class Source:
    """Files that belong together, and the datasets that they hold.

    ``format`` is what people call it ("MovieLens-1M"). ``units(options, datasets, work)`` cuts the work up for the
    ``datasets`` wanted of it; ``work`` runs earlier stages, see :mod:`data_prep.work`.
    """

    format: str
    datasets: tuple[str, ...]
    files: tuple[Path, ...]
    units: Callable[..., list[Unit]] = field(compare=False)


def tables(drafts: Iterable[Draft]) -> Iterator[pa.Table]:
    """Yield drafts as tables of :data:`TASKS`."""
    drafts = iter(drafts)
    while batch := list(islice(drafts, BATCH)):
        yield pa.Table.from_pylist([_row(d) for d in batch], schema=TASKS)


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
