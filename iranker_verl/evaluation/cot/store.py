"""A store of thoughts: a folder with ``thoughts.jsonl``, one :class:`Thought` a line, and ``manifest.json``.

The manifest says where the thoughts are from (``rollouts``), which template they answer (``template_id``, ``template_hash``,
``kind``, ``answer``), how they were chosen (``seed``, ``min_chars``, ``per_context``, ``min_score``), how many were left out and
why (``counts``), and the ``hash`` of the thoughts, which is checked on reading.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from iranker_verl.errors import UserError
from iranker_verl.files import write_json, write_jsonl

THOUGHTS, MANIFEST = "thoughts.jsonl", "manifest.json"


@dataclass(frozen=True)
class Thought:
    """A thought with its question and answer. ``group`` is what its query or user is known by, "" where that is unknown;
    ``candidates`` are the texts shown, in order, and ``answer`` the places among them that were named; ``score`` is the reward
    and ``step`` the training step."""

    task_id: str
    dataset: str
    scenario: str
    group: str
    context: str
    candidates: tuple[str, ...]
    answer: tuple[int, ...]
    thought: str
    score: float
    step: int


@dataclass(frozen=True)
class Store:
    """Thoughts, and how they came about."""

    thoughts: tuple[Thought, ...]
    manifest: Mapping[str, Any]

    @property
    def hash(self) -> str:
        """16 hex digits of SHA-256 over the thoughts, in order."""
        return _hash(self.thoughts)


def _hash(thoughts: Sequence[Thought]) -> str:
    lines = "\n".join(json.dumps(asdict(t), sort_keys=True) for t in thoughts)
    return hashlib.sha256(lines.encode()).hexdigest()[:16]


def write(store: Store, folder: Path) -> None:
    """Write a store's two files. UserError where ``folder`` is a file."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        raise UserError(f"{folder}: a file is in the way; choose a folder for the store") from error
    write_jsonl(folder / THOUGHTS, [asdict(t) for t in store.thoughts])
    write_json(folder / MANIFEST, {**store.manifest, "hash": store.hash})


def read(folder: Path) -> Store:
    """A store back from its folder. UserError where a file is missing or broken, or is not the one that was written."""
    path = folder / THOUGHTS
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        lines = path.read_text(encoding="utf-8").split("\n")  # not splitlines(): texts may hold U+2028
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UserError(
            f"{folder}: no {THOUGHTS} or no {MANIFEST}; this is no store of `iranker thoughts collect`"
        ) from error
    except ValueError as error:
        raise UserError(f"{folder}: not valid JSON in UTF-8 ({error}); collect the thoughts again") from error
    thoughts = tuple(_thought(line, f"{path} line {number}") for number, line in enumerate(lines, 1) if line)
    store = Store(thoughts, manifest)
    promised = manifest.get("hash") if isinstance(manifest, dict) else None
    if store.hash != promised:
        raise UserError(
            f"{path}: it has the hash {store.hash}, its manifest says {promised}; collect the thoughts again"
        )
    return store


def _thought(line: str, where: str) -> Thought:
    try:
        content = json.loads(line)
        lists = {name: tuple(content[name]) for name in ("candidates", "answer")}
        return Thought(**{f.name: content[f.name] for f in fields(Thought)} | lists)
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{where}: not a thought ({type(error).__name__}: {error}); collect the thoughts again"
        ) from error
