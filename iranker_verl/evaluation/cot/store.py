"""A store of reasoning traces: a folder with ``traces.jsonl``, one :class:`ReasoningTrace` a line, and ``manifest.json``.

The manifest holds the source of the traces (``rollouts``), the template that they answer (``template_id``,
``template_hash``, ``kind``, ``answer``), how they were selected (``seed``, ``min_chars``, ``per_context``, ``min_score``),
how many answers were left out and why (``counts``), and the ``hash`` of the traces, which is checked on reading.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from iranker_verl.errors import NO_FILE, NOT_JSON, UserError
from iranker_verl.files import claimed, write_json, write_jsonl
from iranker_verl.ranking.templates import Template

TRACES, MANIFEST = "traces.jsonl", "manifest.json"
_FORMER = "thoughts.jsonl"  # the traces' file before it was renamed, with another name of a field
_AGAIN = "collect it again with `iranker cot collect`"


@dataclass(frozen=True)
class ReasoningTrace:
    """A reasoning trace with its question and answer.

    ``group`` identifies the query or user, "" where it is unknown. ``candidates`` are the texts in the order of the prompt,
    ``answer`` the indices among them that were named; ``score`` is the reward and ``step`` the training step.
    """

    task_id: str
    dataset: str
    scenario: str
    group: str
    context: str
    candidates: tuple[str, ...]
    answer: tuple[int, ...]
    reasoning: str
    score: float
    step: int

    def exchange(self, template: Template) -> tuple[str, str]:
        """Return the question and its answer with the reasoning, in ``template``'s form."""
        question = template.question(self.dataset, self.scenario, self.context, self.candidates)
        answer = template.answer_of(self.candidates, *self.answer)
        return question, f"<think>\n{self.reasoning}\n</think>\n<answer>{answer}</answer>"


@dataclass(frozen=True)
class Store:
    """Reasoning traces and the manifest of how they were collected."""

    traces: tuple[ReasoningTrace, ...]
    manifest: Mapping[str, Any]

    @property
    def hash(self) -> str:
        """16 hex digits of SHA-256 over the traces, in order."""
        lines = "\n".join(json.dumps(asdict(trace), sort_keys=True) for trace in self.traces)
        return hashlib.sha256(lines.encode()).hexdigest()[:16]


def write_traces(store: Store, folder: Path) -> None:
    """Write a store's two files. Raise UserError where ``folder`` is a file, or another process writes there."""
    with claimed(folder):
        write_jsonl(folder / TRACES, [asdict(trace) for trace in store.traces])
        write_json(folder / MANIFEST, {**store.manifest, "hash": store.hash})


def read_traces(folder: Path) -> Store:
    """Read a store. Raise UserError where a file is missing, broken, changed or of a former version."""
    path = folder / TRACES
    if not path.exists() and (folder / _FORMER).exists():
        raise UserError(f"{folder / _FORMER}: a store of a former version, which is {TRACES} now; {_AGAIN}")
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        lines = path.read_text(encoding="utf-8").split("\n")  # not splitlines(): texts may hold U+2028
    except NO_FILE as error:
        raise UserError(f"{folder}: no {TRACES} or no {MANIFEST}; this is no store of `iranker cot collect`") from error
    except NOT_JSON as error:
        raise UserError(f"{folder}: not valid JSON in UTF-8 ({error}); {_AGAIN}") from error
    traces = tuple(_trace(line, f"{path} line {number}") for number, line in enumerate(lines, 1) if line)
    store = Store(traces, manifest)
    promised = manifest.get("hash") if isinstance(manifest, dict) else None
    if store.hash != promised:
        raise UserError(f"{path}: its hash is {store.hash}, its manifest says {promised}; {_AGAIN}")
    return store


def _trace(line: str, where: str) -> ReasoningTrace:
    try:
        content = json.loads(line)
        lists = {name: tuple(content[name]) for name in ("candidates", "answer")}
        return ReasoningTrace(**{f.name: content[f.name] for f in fields(ReasoningTrace)} | lists)
    except (*NOT_JSON, KeyError, TypeError) as error:
        raise UserError(f"{where}: not a reasoning trace ({type(error).__name__}: {error}); {_AGAIN}") from error
