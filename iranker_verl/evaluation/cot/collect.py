"""Select reasoning traces from rollouts.

``trainer.rollout_data_dir=DIR`` makes the trainer write ``DIR/<step>.jsonl``, one answer a line. Of verl's fields,
``output``, ``score`` and ``step`` are read; the question is in a field of this project, ``ranking``: ``task_id``,
``dataset``, ``scenario``, ``group`` (or null), ``context``, ``candidates`` (texts, in the order of the prompt),
``template_id`` and ``template_hash``.

An answer is kept if it

1. is well-formed: a ``<think>`` part, then an answer of the template's kind, and nothing else;
2. has reasoning of at least ``min_chars`` characters;
3. has the best reward: the highest that any of these got in the same dataset with as many candidates (the maximum may
   depend on both), or at least ``min_score``;
4. does not repeat, case and white space aside, the reasoning of one kept before;
5. is among the first ``per_context`` of its dataset and context. Few candidates come first: there the best reward says
   most, as a random policy gets it in N - 1 of N cases, and an example is short; then later training steps, then a random
   order given by ``seed``.

The manifest's ``counts`` hold how many answers each rule left out, each under the first that applied. Memory is bounded by
contexts, candidates and ``per_context``, not by the length of the training.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from iranker_verl.errors import NOT_JSON, UserError
from iranker_verl.evaluation.cot.store import ReasoningTrace, Store
from iranker_verl.ranking.templates import Template, check_hash
from reward_fns.answers import parse_exclusion, parse_ranking, tidy

MIN_CHARS = 80
PER_CONTEXT = 1
_TOLERANCE = 1e-6  # rewards are float32 in the trainer
_THINK, _END_THINK = "<think>", "</think>"
_COUNTS = (
    "answers",
    "cut off",
    "malformed",
    "no reasoning",
    "below the best reward",
    "repeated",
    "over per_context",
    "kept",
)

_QUESTION = ("task_id", "dataset", "scenario", "context")
_TEMPLATE = ("template_id", "template_hash")

# The traces of one context and pool size, by their normalised reasoning.
_Cell = dict[str, ReasoningTrace]
_Row = dict[str, Any]  # one answer of a rollout, and the fields of its question


@dataclass(frozen=True)
class _Selection:
    """The options of :func:`collect_traces` that decide which traces are kept."""

    seed: int
    min_chars: int
    per_context: int
    min_score: float | None

    def key(self, trace: ReasoningTrace) -> tuple[int, float, int, str]:
        """Return the sort key by which traces of one context are taken; its last part is pseudorandom."""
        tie_break = hashlib.sha256(json.dumps([self.seed, vars(trace)]).encode()).hexdigest()
        return len(trace.candidates), -round(trace.score, 5), -trace.step, tie_break


def collect_traces(
    rollouts: Path,
    template: Template,
    *,
    seed: int = 0,
    min_chars: int = MIN_CHARS,
    per_context: int = PER_CONTEXT,
    min_score: float | None = None,
) -> Store:
    """Return the traces kept of a folder of rollouts, by dataset and context.

    The result is deterministic for a seed, and does not depend on the order of the lines. A last line that is cut off, as
    a killed training leaves it, is counted. Raise UserError for a folder without rollouts, a line that cannot be read, one
    without its question, and one that answers another template.
    """
    if template.kind not in ("exclusion", "direct"):
        raise UserError(f"template {template.id} is of kind {template.kind}; training has only exclusion and direct")
    if per_context < 1:
        raise UserError(f"per_context is 1 or more, got {per_context}")
    selection = _Selection(seed, min_chars, per_context, min_score)
    files = find_rollout_files(rollouts)
    counts = Counter(dict.fromkeys(_COUNTS, 0))
    best: dict[tuple[str, int], float] = {}
    cells: dict[tuple[str, int], dict[str, _Cell]] = defaultdict(lambda: defaultdict(dict))
    for path in files:
        for where, row in _rows(path, counts):
            counts["answers"] += 1
            check_hash(template, row["template_id"], row["template_hash"], where)
            trace = _trace(row, template)
            if trace is None or len(trace.reasoning) < min_chars:
                counts["malformed" if trace is None else "no reasoning"] += 1
                continue
            key = (trace.dataset, len(trace.candidates))
            best[key] = max(best.get(key, trace.score), trace.score)
            _add(cells[key][trace.context], trace, selection, counts)
    chosen = _choose(cells, best, selection, counts)
    counts["kept"] = len(chosen)
    manifest = {
        "rollouts": str(rollouts),
        "files": len(files),
        "template_id": template.id,
        "template_hash": template.hash,
        "kind": template.kind,
        "answer": template.answer,
        **vars(selection),
        "counts": dict(counts),
    }
    return Store(tuple(chosen), manifest)


def find_rollout_files(rollouts: Path) -> list[Path]:
    """Return the ``<step>.jsonl`` of a folder, in the order of steps. Raise UserError where there is none."""
    found = [path for path in rollouts.glob("*.jsonl") if path.stem.isdecimal()]
    if not found:
        raise UserError(f"{rollouts}: no <step>.jsonl; train with trainer.rollout_data_dir={rollouts}")
    return sorted(found, key=lambda path: int(path.stem))


def read_template_id(rollouts: Path) -> str:
    """Return the id of the template of the first answer."""
    for path in find_rollout_files(rollouts):
        for _, row in _rows(path, Counter()):
            return str(row["template_id"])
    raise UserError(f"{rollouts}: its files hold no answer")


def _rows(path: Path, counts: Counter[str]) -> Iterator[tuple[str, _Row]]:
    """Yield the rows of a file, each with its location."""
    with path.open("rb") as file:  # split at line feeds only: texts may hold U+2028
        for number, line in enumerate(file, 1):
            where = f"{path} line {number}"
            try:
                content = json.loads(line)
            except NOT_JSON as error:
                if not line.endswith(b"\n"):
                    counts["cut off"] += 1
                    return
                raise UserError(
                    f"{where}: not JSON in UTF-8 ({error}); is it a file of trainer.rollout_data_dir?"
                ) from error
            yield where, _row(content, where)


def _row(content: Any, where: str) -> _Row:
    try:
        ranking = content["ranking"]
        answer: _Row = {
            "output": str(content["output"]),
            "score": float(content["score"]),
            "step": int(content["step"]),
        }
        texts = [ranking[name] for name in (*_QUESTION, *_TEMPLATE)]
        texts += list(ranking["candidates"]) if not isinstance(ranking["candidates"], str) else [None]
        "".join([answer["output"], *texts]).encode()  # TypeError for what is no text, ValueError for half a character
        row = {**ranking, **answer}
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{where}: no whole question and answer ({type(error).__name__}: {error}); "
            "train again with this version's trainer and trainer.rollout_data_dir"
        ) from error
    if not math.isfinite(row["score"]):
        raise UserError(f"{where}: its score is {row['score']}; is it a file of trainer.rollout_data_dir?")
    return row


def _trace(row: _Row, template: Template) -> ReasoningTrace | None:
    """Return the trace of a row, its reasoning "" where it has none; or None where the answer is not well-formed."""
    output, candidates = row["output"], tuple(row["candidates"])
    answer: tuple[int, ...]
    if template.kind == "direct":
        ranking = parse_ranking(output, candidates)
        well_formed, answer = ranking.ok and tidy(output), ranking.order
    else:
        exclusion = parse_exclusion(output, candidates)
        well_formed, answer = exclusion.ok and exclusion.tidy, (exclusion.index or 0,)
    if not well_formed:
        return None
    before, closed, _ = output.rpartition(_END_THINK)
    return ReasoningTrace(
        **{name: row[name] for name in (*_QUESTION, "score", "step")},
        group=str(row.get("group") or ""),
        candidates=candidates,
        answer=answer,
        reasoning=before.strip().removeprefix(_THINK).strip() if closed else "",
    )


def _normalised(trace: ReasoningTrace) -> str:
    return " ".join(trace.reasoning.casefold().split())


def _add(cell: _Cell, trace: ReasoningTrace, selection: _Selection, counts: Counter[str]) -> None:
    """Put a trace into its cell, which holds the first ``per_context`` of different reasoning."""
    reasoning = _normalised(trace)
    if reasoning in cell:
        cell[reasoning] = min(cell[reasoning], trace, key=selection.key)
        counts["repeated"] += 1
        return
    cell[reasoning] = trace
    if len(cell) > selection.per_context:
        last = max(cell, key=lambda text: selection.key(cell[text]))
        del cell[last]
        counts["over per_context"] += 1


def _choose(
    cells: dict[tuple[str, int], dict[str, _Cell]],
    best: dict[tuple[str, int], float],
    selection: _Selection,
    counts: Counter[str],
) -> list[ReasoningTrace]:
    """Return the first ``per_context`` traces of the best reward of each context, without repetition."""
    contexts: dict[tuple[str, str], list[ReasoningTrace]] = defaultdict(list)
    for (dataset, size), by_context in cells.items():
        least = best[dataset, size] - _TOLERANCE if selection.min_score is None else selection.min_score
        for context, cell in by_context.items():
            good = [trace for trace in cell.values() if trace.score >= least]
            counts["below the best reward"] += len(cell) - len(good)
            contexts[dataset, context] += good
    chosen: list[ReasoningTrace] = []
    known: set[str] = set()
    for key in sorted(contexts):
        left = selection.per_context
        for trace in sorted(contexts[key], key=selection.key):
            if _normalised(trace) in known:
                counts["repeated"] += 1
            elif not left:
                counts["over per_context"] += 1
            else:
                chosen.append(trace)
                known.add(_normalised(trace))
                left -= 1
    return chosen
