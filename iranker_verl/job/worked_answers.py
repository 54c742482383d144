"""Worked answers to teach by supervision, from prepared training rows or from a store of reasoning traces.

Of a row, an elimination state, the answer excludes one of its least relevant candidates, uniformly at random; of a direct row it ranks
all, by relevance, equals in random order. A trace (``iranker cot collect``) is an answer that the policy gave in training and that had
the best reward, with its reasoning: supervision on such traces is rejection sampling (RAFT, arXiv 2304.06767; STaR, arXiv 2203.14465).
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from data_prep.schema import SCHEMA, read_rows
from iranker_verl.errors import UserError
from iranker_verl.evaluation.cot.leaks import prove_for_data
from iranker_verl.evaluation.cot.store import read_traces
from iranker_verl.files import replacing_file
from iranker_verl.ranking import RankingTask
from iranker_verl.ranking.templates import Template, check_hash

COLUMNS = pa.schema([SCHEMA.field("prompt"), ("response", pa.string())])
BATCH = 4096


def write_worked_answers(path: Path, data: Path, template: Template, seed: int, traces: Path | None = None) -> int:
    """Write ``prompt`` and ``response`` of each training row in the folder ``data``, or of each trace; return how many.

    The file appears whole or not at all. Raise UserError for traces of another template, or of test queries; and where a template
    asks for reasoning and there are no traces, as a row has none.
    """
    if traces is None and template.asks_for_reasoning:
        raise UserError(
            f"template {template.id} asks for reasoning, which prepared rows do not have; name the reasoning to teach, "
            "iranker.data.traces=STORE (a folder of `iranker cot collect`), or take a template without, like label"
        )
    worked = (
        from_rows(data / "train.parquet", template, seed) if traces is None else from_traces(traces, data, template)
    )
    written = 0
    with replacing_file(path) as part, pq.ParquetWriter(part, COLUMNS) as out:
        while batch := list(islice(worked, BATCH)):
            out.write_table(pa.Table.from_pylist(batch, COLUMNS))
            written += len(batch)
    return written


def from_rows(path: Path, template: Template, seed: int) -> Iterator[dict[str, Any]]:
    """Yield the worked answer of each row of a prepared file."""
    for number, row in enumerate(read_rows(path)):
        task, info = RankingTask.from_row(row), row["extra_info"]
        check_hash(template, info["template_id"], info["template_hash"], f"{path} row {number}")
        random = Random(f"{seed}:{number}:worked")
        order = sorted(range(len(task.candidates)), key=lambda i: (-task.relevance[i], random.random()))
        chosen = order if template.kind == "direct" else order[-1:]
        answer = template.answer_of([c.text for c in task.candidates], *chosen)
        yield {"prompt": row["prompt"], "response": answer}


def from_traces(folder: Path, data: Path, template: Template) -> Iterator[dict[str, Any]]:
    """Yield the question and the answer, with its reasoning, of each trace of a store."""
    store = read_traces(folder)
    check_hash(template, str(store.manifest.get("template_id")), str(store.manifest.get("template_hash")), str(folder))
    prove_for_data(store, data)
    for trace in store.traces:
        question, answer = trace.exchange(template)
        yield {"prompt": template.around(question), "response": answer.removeprefix(template.begin or "")}
