"""The Parquet schema of prepared data, as verl's ``RLHFDataset`` takes it.

========================  ==========================================================================================
``data_source``           dataset, e.g. ``rec-movie``; verl's reward functions and metrics group by it
``prompt``                chat messages of the row's first step, ``[{role, content}, …]``
``ability``               always ``ranking``
``reward_model``          ``{style: "rule", ground_truth: {candidates: [text], target: index, relevance: [float]|null}}``
``agent_name``            the agent loop that plays the row: ``elimination_agent``, or ``direct_agent`` for direct rows
``extra_info``            ``{index, split, row_kind, task_id, scenario, group, time, context, candidate_ids: [id],
                          history_ids: [id], template_id, template_hash}``
========================  ==========================================================================================

``row_kind`` is ``episode`` (a whole task; the policy's own exclusions make its later states), ``state`` (one elimination
state, as the paper trains on) or ``direct`` (the whole ranking in one answer). ``group`` is what may not be on both sides
of the split (a user, a query), ``time`` when the positive was chosen, and ``history_ids`` what the context tells of.

A prepared folder holds ``train.parquet``, ``test.parquet`` and ``manifest.json``. Files are written beside their place
and renamed, so that a folder never holds half a file.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from iranker_verl.errors import UserError, first_line
from iranker_verl.files import read_json
from iranker_verl.ranking import RankingTask
from iranker_verl.ranking.templates import Template, check_hash

SCHEMA_VERSION = 2
SPLITS = ("train", "test")
MANIFEST = "manifest.json"
HISTORY_SEPARATOR = "; "  # of the items in the context of a recommendation task
ROW_KINDS = {"episodes": "episode", "states": "state", "direct": "direct"}
AGENT_NAME = "elimination_agent"
AGENTS = {"episode": AGENT_NAME, "state": AGENT_NAME, "direct": "direct_agent"}

SCHEMA = pa.schema(
    [
        ("data_source", pa.string()),
        ("prompt", pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))),
        ("ability", pa.string()),
        (
            "reward_model",
            pa.struct(
                [
                    ("style", pa.string()),
                    (
                        "ground_truth",
                        pa.struct(
                            [
                                ("candidates", pa.list_(pa.string())),
                                ("target", pa.int64()),
                                ("relevance", pa.list_(pa.float64())),
                            ]
                        ),
                    ),
                ]
            ),
        ),
        ("agent_name", pa.string()),
        (
            "extra_info",
            pa.struct(
                [
                    ("index", pa.int64()),
                    ("split", pa.string()),
                    ("row_kind", pa.string()),
                    ("task_id", pa.string()),
                    ("scenario", pa.string()),
                    ("group", pa.string()),
                    ("time", pa.float64()),
                    ("context", pa.string()),
                    ("candidate_ids", pa.list_(pa.string())),
                    ("history_ids", pa.list_(pa.string())),
                    ("template_id", pa.string()),
                    ("template_hash", pa.string()),
                ]
            ),
        ),
    ]
)


def read_rows(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the rows of a prepared file. Raise UserError for a missing, truncated or foreign one."""
    file = open_rows(path)
    with _readable(path):
        for batch in file.iter_batches(batch_size=1024):
            yield from batch.to_pylist()


def open_rows(path: Path) -> pq.ParquetFile:
    """Return a prepared file, open. Raise UserError for a missing, truncated or foreign one."""
    with _readable(path):
        file = pq.ParquetFile(path)
    if missing := [f for f in SCHEMA.names if f not in file.schema_arrow.names]:
        raise UserError(f"{path}: column {missing[0]!r} is missing; this is not a file of `iranker prepare`")
    return file


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file; run `iranker prepare` first") from error
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{path}: not a readable Parquet file ({first_line(error)}); prepare it again") from error


def read_tasks(path: Path, template: Template | None = None) -> list[RankingTask]:
    """Return the tasks of a prepared file, each once: of a task's elimination states the largest, which is the whole task.

    Raise UserError, with ``template``, where the rows were made with another one.
    """
    tasks: dict[str, RankingTask] = {}
    for number, row in enumerate(read_rows(path)):
        try:
            task = RankingTask.from_row(row)
        except UserError as error:
            raise UserError(f"{path} row {number}: {error}") from error
        if task.id not in tasks or len(task.candidates) > len(tasks[task.id].candidates):
            tasks[task.id] = task
        if template is not None:
            info = row["extra_info"]
            check_hash(template, info.get("template_id"), info.get("template_hash"), f"{path} row {number}")
    return list(tasks.values())


def read_manifest(folder: Path, *needed: str) -> dict[str, Any]:
    """Return the manifest of a prepared folder. Raise UserError where it is missing or broken, or one of ``needed`` is not in it."""
    path = folder / MANIFEST
    if not path.is_file():
        raise UserError(f"{path}: no such file; {folder} is not a folder of `iranker prepare`")
    content = read_json(path, "prepare the data again")
    if missing := [name for name in needed if name not in content]:
        raise UserError(f"{path}: it has no {missing[0]}; prepare the data again")
    return content


class ContentHash:
    """SHA-256 over what rows say (ids, texts, relevance; not their prompts), whatever the batches they come in."""

    def __init__(self) -> None:
        self._digests: dict[str, Any] = {}

    def update(self, rows: pa.Table) -> None:
        """Take in more rows in the schema of prepared data."""
        if not rows.num_rows:
            return
        rows = rows.combine_chunks()
        info, truth = rows["extra_info"].combine_chunks(), rows["reward_model"].combine_chunks().field("ground_truth")
        columns = {name: info.field(name) for name in ("task_id", "context", "candidate_ids", "history_ids")}
        columns |= {"dataset": rows["data_source"], "candidates": truth.field("candidates")}
        columns |= {"target": truth.field("target"), "relevance": truth.field("relevance")}
        for name, column in columns.items():
            self._add(name, column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column)

    def _add(self, name: str, column: pa.Array) -> None:
        if pa.types.is_list(column.type):
            self._feed(f"{name}:count", pc.fill_null(pc.list_value_length(column), -1).to_numpy(zero_copy_only=False))
            self._add(f"{name}[]", column.flatten())
        elif pa.types.is_string(column.type):
            _, offsets, text = column.buffers()
            ends = np.frombuffer(offsets, np.int32)[column.offset : column.offset + len(column) + 1]
            self._feed(f"{name}:bytes", np.diff(ends))
            self._digest(name).update(memoryview(text)[ends[0] : ends[-1]] if text is not None else b"")
        else:
            self._feed(name, column.to_numpy(zero_copy_only=False))

    def _feed(self, name: str, numbers: np.ndarray) -> None:
        self._digest(name).update(np.ascontiguousarray(numbers).tobytes())

    def _digest(self, name: str) -> Any:
        return self._digests.setdefault(name, hashlib.sha256())

    @staticmethod
    def of(*hashes: ContentHash) -> str:
        """Return 16 hex digits over the rows of several files in order: the ``data_hash`` reported with every number."""
        parts = [f"{i} {name} {d.hexdigest()}" for i, h in enumerate(hashes) for name, d in sorted(h._digests.items())]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]
