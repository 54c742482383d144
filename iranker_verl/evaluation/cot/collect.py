"""From rollouts to a store of thoughts.

``trainer.rollout_data_dir=DIR`` makes the trainer write ``DIR/<step>.jsonl``, a line an answer. Of verl's fields ``output``,
``score`` and ``step`` are read. What was asked is in a field of ours, ``ranking``: ``task_id``, ``dataset``, ``scenario``,
``group`` (or null), ``context``, ``candidates`` (the texts shown, in order), ``template_id`` and ``template_hash``.

Kept is an answer that

1. is well-formed: a ``<think>`` part, then an answer of the template's kind, and nothing else;
2. has a thought of at least ``min_chars`` characters;
3. has the best reward: the highest that any of these got in the same dataset and with as many candidates shown (what can be
   got at best may depend on both), or ``min_score`` and more;
4. does not say, case and white space aside, what a thought kept before it says;
5. is among the first ``per_context`` of its dataset and context. Few candidates come first: there the best reward says most,
   as by chance it comes in N - 1 of N cases, and an example is short; then later training steps, then dice of the ``seed``.

The manifest's ``counts`` say what became of the answers, each by what put it out first. Memory is bounded by contexts,
candidates and ``per_context``, not by the length of the training.
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

from iranker_verl.errors import UserError
from iranker_verl.evaluation.cot.store import Store, Thought
from iranker_verl.ranking.templates import Template, check_hash
from reward_fns.answers import parse_exclusion, parse_ranking, tidy

MIN_CHARS = 80
PER_CONTEXT = 1
_TOLERANCE = 1e-6  # rewards are float32 in the trainer
_THINK, _END_THINK = "<think>", "</think>"
_COUNTS = ("answers", "cut off", "malformed", "no thought", "below the best", "said before", "over per_context", "kept")

# The thoughts on one pool size of a context, by what they say.
_Cell = dict[str, Thought]


@dataclass(frozen=True)
class _Row:
    """One answer of a rollout, and what was asked."""

    output: str
    score: float
    step: int
    ranking: dict[str, Any]


@dataclass(frozen=True)
class _Wanted:
    """The options of :func:`collect` that say which thoughts are wanted."""

    seed: int
    min_chars: int
    per_context: int
    min_score: float | None

    def first(self, thought: Thought) -> tuple[int, float, int, str]:
        """The order in which thoughts of one context are taken: a sort key."""
        dice = hashlib.sha256(json.dumps([self.seed, vars(thought)]).encode()).hexdigest()
        return len(thought.candidates), -round(thought.score, 5), -thought.step, dice


def collect(
    rollouts: Path,
    template: Template,
    *,
    seed: int = 0,
    min_chars: int = MIN_CHARS,
    per_context: int = PER_CONTEXT,
    min_score: float | None = None,
) -> Store:
    """The thoughts worth keeping of a folder of rollouts, by dataset and context. Deterministic for a seed, whatever the
    order of the lines.

    UserError for a folder without rollouts, a line that cannot be read (but the last of a file may be cut off, as a killed
    training leaves it: that is counted), one that does not say what was asked, and one that answers another template.
    """
    if template.kind not in ("exclusion", "direct"):
        raise UserError(f"template {template.id} is of kind {template.kind}; training has only exclusion and direct")
    if per_context < 1:
        raise UserError(f"per_context is 1 or more, got {per_context}")
    wanted = _Wanted(seed, min_chars, per_context, min_score)
    files = rollout_files(rollouts)
    counts = Counter(dict.fromkeys(_COUNTS, 0))
    best: dict[tuple[str, int], float] = {}
    cells: dict[tuple[str, int], dict[str, _Cell]] = defaultdict(lambda: defaultdict(dict))
    for path in files:
        for where, row in _rows(path, counts):
            counts["answers"] += 1
            check_hash(template, row.ranking["template_id"], row.ranking["template_hash"], where)
            thought = _thought(row, template)
            if thought is None or len(thought.thought) < min_chars:
                counts["malformed" if thought is None else "no thought"] += 1
                continue
            key = (thought.dataset, len(thought.candidates))
            best[key] = max(best.get(key, thought.score), thought.score)
            _add(cells[key][thought.context], thought, wanted, counts)
    chosen = _choose(cells, best, wanted, counts)
    counts["kept"] = len(chosen)
    manifest = {
        **{"rollouts": str(rollouts), "files": len(files)},
        **{
            "template_id": template.id,
            "template_hash": template.hash,
            "kind": template.kind,
            "answer": template.answer,
        },
        **vars(wanted),
        "counts": dict(counts),
    }
    return Store(tuple(chosen), manifest)


def rollout_files(rollouts: Path) -> list[Path]:
    """The ``<step>.jsonl`` of a folder, in the order of steps. UserError where there is none."""
    found = [path for path in rollouts.glob("*.jsonl") if path.stem.isdecimal()]
    if not found:
        raise UserError(f"{rollouts}: no <step>.jsonl; train with trainer.rollout_data_dir={rollouts}")
    return sorted(found, key=lambda path: int(path.stem))


def template_of(rollouts: Path) -> str:
    """The id of the template that the first answer was asked with."""
    for path in rollout_files(rollouts):
        for _, row in _rows(path, Counter()):
            return str(row.ranking["template_id"])
    raise UserError(f"{rollouts}: its files hold no answer")


def _rows(path: Path, counts: Counter[str]) -> Iterator[tuple[str, _Row]]:
    """The rows of a file, each with where it is."""
    with path.open("rb") as file:  # split at line feeds only: texts may hold U+2028
        for number, line in enumerate(file, 1):
            where = f"{path} line {number}"
            try:
                content = json.loads(line)
            except ValueError as error:
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
        row = _Row(str(content["output"]), float(content["score"]), int(content["step"]), dict(ranking))
        asked = [ranking[k] for k in ("task_id", "dataset", "scenario", "context", "template_id", "template_hash")]
        asked += list(ranking["candidates"]) if not isinstance(ranking["candidates"], str) else [None]
        "".join([row.output, *asked]).encode()  # half a character has no place in a store
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{where}: it does not say what was asked and answered ({type(error).__name__}: {error}); "
            "train again with this version's trainer and trainer.rollout_data_dir"
        ) from error
    if not math.isfinite(row.score):
        raise UserError(f"{where}: its score is {row.score}; is it a file of trainer.rollout_data_dir?")
    return row


def _thought(row: _Row, template: Template) -> Thought | None:
    """The thought of a row ("" where it has none), or None where the answer is not well-formed."""
    asked, candidates = row.ranking, tuple(row.ranking["candidates"])
    answer: tuple[int, ...]
    if template.kind == "direct":
        ranking = parse_ranking(row.output, candidates)
        well, answer = ranking.ok and tidy(row.output), ranking.order
    else:
        exclusion = parse_exclusion(row.output, candidates)
        well, answer = exclusion.ok and exclusion.tidy, (exclusion.index or 0,)
    if not well:
        return None
    before, closed, _ = row.output.rpartition(_END_THINK)
    return Thought(
        task_id=asked["task_id"],
        dataset=asked["dataset"],
        scenario=asked["scenario"],
        group=str(asked.get("group") or ""),
        context=asked["context"],
        candidates=candidates,
        answer=answer,
        thought=before.strip().removeprefix(_THINK).strip() if closed else "",
        score=row.score,
        step=row.step,
    )


def _said(thought: Thought) -> str:
    return " ".join(thought.thought.casefold().split())


def _add(cell: _Cell, thought: Thought, wanted: _Wanted, counts: Counter[str]) -> None:
    """Put a thought into its cell, which holds the first ``per_context`` that say different things."""
    said = _said(thought)
    if said in cell:
        cell[said] = min(cell[said], thought, key=wanted.first)
        counts["said before"] += 1
        return
    cell[said] = thought
    if len(cell) > wanted.per_context:
        last = max(cell, key=lambda s: wanted.first(cell[s]))
        del cell[last]
        counts["over per_context"] += 1


def _choose(
    cells: dict[tuple[str, int], dict[str, _Cell]],
    best: dict[tuple[str, int], float],
    wanted: _Wanted,
    counts: Counter[str],
) -> list[Thought]:
    """The first ``per_context`` good ones of each context, by dataset and context; nothing is said twice."""
    contexts: dict[tuple[str, str], list[Thought]] = defaultdict(list)
    for (dataset, size), by_context in cells.items():
        least = best[dataset, size] - _TOLERANCE if wanted.min_score is None else wanted.min_score
        for context, cell in by_context.items():
            good = [thought for thought in cell.values() if thought.score >= least]
            counts["below the best"] += len(cell) - len(good)
            contexts[dataset, context] += good
    chosen: list[Thought] = []
    said: set[str] = set()
    for key in sorted(contexts):
        left = wanted.per_context
        for thought in sorted(contexts[key], key=wanted.first):
            if _said(thought) in said:
                counts["said before"] += 1
            elif not left:
                counts["over per_context"] += 1
            else:
                chosen.append(thought)
                said.add(_said(thought))
                left -= 1
    return chosen
