"""The Parquet schema of prepared data: one row an episode, as verl's ``RLHFDataset`` takes it.

========================  ==========================================================================================
``data_source``           dataset, e.g. ``rec-movie``; verl's reward functions and metrics group by it
``prompt``                chat messages of the episode's first step, ``[{role, content}, …]``
``ability``               always ``ranking``
``reward_model``          ``{style: "rule", ground_truth: {candidates: [text], target: index, relevance: [float]|null}}``
``agent_name``            ``elimination_agent``, the agent loop that plays the row
``extra_info``            ``{index, split, task_id, scenario, context, candidate_ids: [id], template_id, template_hash}``
========================  ==========================================================================================

A prepared folder holds ``train.parquet``, ``test.parquet`` and ``manifest.json``. Files are written beside their place
and renamed, so that a folder never holds half a file.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from iranker_verl.errors import UserError
from iranker_verl.ranking import Elimination, RankingTask
from iranker_verl.ranking.templates import Template, check_hash

SCHEMA_VERSION = 1
SPLITS = ("train", "test")
AGENT_NAME = "elimination_agent"

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
                    ("task_id", pa.string()),
                    ("scenario", pa.string()),
                    ("context", pa.string()),
                    ("candidate_ids", pa.list_(pa.string())),
                    ("template_id", pa.string()),
                    ("template_hash", pa.string()),
                ]
            ),
        ),
    ]
)


def episode_row(task: RankingTask, template: Template, split: str, index: int) -> dict[str, Any]:
    """One row: a whole task, whose later states come from the policy's own exclusions."""
    return {
        "data_source": task.dataset,
        "prompt": template.messages(Elimination(task)),
        "ability": "ranking",
        "reward_model": {"style": "rule", "ground_truth": {"relevance": None, **task.ground_truth()}},
        "agent_name": AGENT_NAME,
        "extra_info": {
            "index": index,
            "split": split,
            "task_id": task.id,
            "scenario": task.scenario,
            "context": task.context,
            "candidate_ids": [c.id for c in task.candidates],
            "template_id": template.id,
            "template_hash": template.hash,
        },
    }


def write_tasks(path: Path, tasks: Iterable[RankingTask], template: Template, split: str) -> int:
    """Write tasks as episode rows; returns how many. The file appears whole or not at all."""
    rows = [episode_row(task, template, split, i) for i, task in enumerate(tasks)]
    part = path.with_name(path.name + ".part")
    try:
        pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), part, row_group_size=1024)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
    return len(rows)


def read_rows(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a prepared file. UserError for a missing, truncated or foreign one."""
    try:
        file = pq.ParquetFile(path)
        if missing := [f for f in SCHEMA.names if f not in file.schema_arrow.names]:
            raise UserError(f"{path}: column {missing[0]!r} is missing; this is not a file of `iranker prepare`")
        for batch in file.iter_batches(batch_size=1024):
            yield from batch.to_pylist()
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file; run `iranker prepare` first") from error
    except (pa.ArrowException, OSError) as error:
        raise UserError(
            f"{path}: not a readable Parquet file ({str(error).splitlines()[0]}); prepare it again"
        ) from error


def read_tasks(path: Path, template: Template | None = None) -> list[RankingTask]:
    """The tasks of a prepared file; with ``template``, UserError where its rows were made with another one."""
    tasks = []
    for number, row in enumerate(read_rows(path)):
        try:
            tasks.append(RankingTask.from_row(row))
        except UserError as error:
            raise UserError(f"{path} row {number}: {error}") from error
        if template is not None:
            info = row["extra_info"]
            check_hash(template, info.get("template_id"), info.get("template_hash"), f"{path} row {number}")
    return tasks


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a prepared folder. UserError where it is missing or broken."""
    path = folder / "manifest.json"
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UserError(f"{path}: no such file; {folder} is not a folder of `iranker prepare`") from error
    except ValueError as error:
        raise UserError(f"{path}: not valid JSON ({error}); prepare the data again") from error


def tasks_hash(tasks: Iterable[RankingTask]) -> str:
    """16 hex digits of SHA-256 over the content of tasks, in order: the ``data_hash`` beside every number."""
    digest = hashlib.sha256()
    for t in tasks:
        content = [t.id, t.dataset, t.context, [[c.id, c.text] for c in t.candidates], list(t.relevance)]
        digest.update(json.dumps(content, ensure_ascii=False).encode() + b"\n")
    return digest.hexdigest()[:16]
