"""Check, from the files alone, that the scenario of a zero-shot test is unseen in training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_prep.checks.columns import batches, by_name, leaves, queries
from data_prep.checks.side import QUERIES
from data_prep.duplicates import words
from data_prep.readers.text import shown
from iranker_verl.errors import UserError


@dataclass(frozen=True)
class Unseen:
    """``shared_queries``: queries of test whose words are also those of a query of training, of ``queries`` in all.

    They are no leak of a task (the other scenario has another question about them), but worth reporting.
    """

    trained: tuple[str, ...]
    tested: tuple[str, ...]
    queries: int
    shared_queries: int


def check_unseen(train: Sequence[Path], test: Path) -> Unseen:
    """Return what is trained and tested on; scenarios and datasets are taken from the rows.

    Raise UserError, with file and row, where a row of ``train`` is of a scenario, a dataset or a task that ``test`` has.
    """
    trained, tested = _Seen(train), _Seen([test])
    for what in ("scenario", "dataset", "task"):
        ours, theirs = trained.first[what], tested.first[what]
        if both := min(ours.keys() & theirs.keys(), key=lambda name: ours[name], default=None):
            (file, row), (_, other) = ours[both], theirs[both]
            raise UserError(
                f"{file} row {row}: its {what} {shown(both)} is tested on as well ({test} row {other}), so the test is not "
                "zero-shot; leave that scenario out of iranker.data.tasks"
            )
    if not tested.first["task"]:
        raise UserError(f"{test}: no task to test on; give more data or another iranker.data.test_tasks")
    return Unseen(
        tuple(sorted(trained.first["dataset"])),
        tuple(sorted(tested.first["dataset"])),
        len(tested.queries),
        len(tested.queries & trained.queries),
    )


class _Seen:
    """File and first row of each scenario, dataset and task, and the word sets of queries."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self.first: dict[str, dict[str, tuple[Path, int]]] = {"scenario": {}, "dataset": {}, "task": {}}
        self.queries: set[tuple[str, ...]] = set()
        for path in paths:
            self._read(path)

    def _read(self, path: Path) -> None:
        for start, rows in batches(path, "data_source", "extra_info"):
            columns = leaves(rows)
            for what, name in (("scenario", "scenario"), ("dataset", "dataset"), ("task", "task_id")):
                for value, where in by_name(columns[name]):
                    self.first[what].setdefault(value, (path, start + int(where[0])))
            asked = pc.is_in(columns["scenario"], pa.array(QUERIES)).to_numpy(zero_copy_only=False)
            texts = queries(columns).take(pa.array(np.flatnonzero(asked))).to_pylist()
            self.queries |= {words(text) for text in texts if text}
