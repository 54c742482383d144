"""Check row by row whether a Parquet file, of this package or any other, is fit for verl and for our rewards.

verl's ``RLHFDataset`` reads ``prompt`` (chat messages), its rewards ``data_source`` and ``reward_model.ground_truth``, and
our agent loops also what ``extra_info`` says of the task. An *error* is what would stop training, drop rows, or train on
something else than the row says; a *warning* is what is allowed and probably not meant.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from data_prep.readers.parquet import check_pages
from data_prep.readers.text import shown
from data_prep.schema import AGENTS, HISTORY_SEPARATOR
from iranker_verl.errors import UserError, first_line
from iranker_verl.ranking import RankingTask
from iranker_verl.ranking.templates import Template, available, load
from reward_fns.answers import label
from reward_fns.exclusion import relevance_of

FIRST = 3  # rows named of each problem
ROLES = ("system", "user", "assistant", "tool")
# What a column is for, and what verl does where there is none.
NEEDED = {
    "prompt": "verl stops: it is what a model is asked (data.prompt_key)",
    "data_source": "verl stops at the first reward: it chooses the reward and the metrics by it (data.reward_fn_key)",
    "reward_model": "verl stops at the first reward: its ground_truth is what an answer is scored against",
}
OPTIONAL = {
    "agent_name": "verl plays every row with rollout.agent.default_agent_loop (single_turn_agent): one answer a row, "
    "scored by the recipe's reward function; no elimination episodes",
    "extra_info": "verl takes it as empty: our agent loops cannot play such rows, and every row has index 0",
}
_KINDS, _AGENTS = tuple(AGENTS), tuple(AGENTS.values())
_TEXTS = ("task_id", "scenario", "context", "template_id", "template_hash")
_ODD = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\ufeff\ufffd]")

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Finding:
    """Something wrong with one row: which problem it is, and the value that shows it."""

    what: str
    value: str
    error: bool = True


@dataclass
class Problem:
    """A problem and how many rows have it; ``first`` are some, as ``(row, value)`` with rows from 0."""

    what: str
    error: bool
    count: int = 0
    first: list[tuple[int, str]] = field(default_factory=list)


@dataclass
class Report:
    """What was found in the first ``rows`` rows of a file. ``notes`` say how verl treats missing columns."""

    path: Path
    rows: int = 0
    problems: dict[str, Problem] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Return whether there are no errors; warnings do not count."""
        return not any(problem.error for problem in self.problems.values())

    def add(self, row: int, finding: Finding) -> None:
        """Count a finding."""
        problem = self.problems.setdefault(finding.what, Problem(finding.what, finding.error))
        problem.count += 1
        if len(problem.first) < FIRST:
            problem.first.append((row, finding.value))


def validate(path: Path, template: Template | None = None, limit: int | None = None) -> Report:
    """Look at every row of ``path``, or at the first ``limit``.

    Prompts are rendered again with ``template``, or with the one of the package that a row names. UserError for a file
    that is missing, broken or no Parquet.
    """
    report = Report(path)
    templates = {t.hash: t for t in (template and [template]) or map(load, available())}
    repeats = _Repeats()
    try:
        with pq.ParquetFile(path) as file:
            check_pages(file, path)
            names = file.schema_arrow.names
            for column, effect in (NEEDED | OPTIONAL).items():
                if column not in names:
                    report.notes.append(f"no column {column}: {effect}")
            absent = [Problem(f"{column}: no such column", error=True) for column in NEEDED if column not in names]
            report.problems = {problem.what: problem for problem in absent}
            present = [column for column in (*NEEDED, *OPTIONAL) if column in names]
            for number, row in islice(_rows(file, present), limit):
                report.rows += 1
                for problem in absent:
                    problem.count += 1
                found = [_NOT_UTF8] if row is None else [*_findings(row, templates), *repeats(row)]
                for finding in {finding.what: finding for finding in reversed(found)}.values():
                    report.add(number, finding)
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file; check the path") from error
    except (pa.ArrowException, OSError) as error:
        reason = f"unreadable after row {report.rows} ({first_line(error)})"
        raise UserError(f"{path}: {reason}; make or fetch it again") from error
    if not report.rows:
        report.notes.append("no rows")
    return report


_NOT_UTF8 = Finding("text is not UTF-8", "bytes that are no text")


def _rows(file: pq.ParquetFile, columns: list[str]) -> Iterator[tuple[int, Row | None]]:
    """Yield numbered rows; None for one whose text cannot be decoded."""
    number = 0
    for batch in file.iter_batches(256, columns=columns):
        try:
            rows: list[Row | None] = batch.to_pylist()
        except UnicodeDecodeError:
            rows = [_decoded(batch.slice(i, 1)) for i in range(len(batch))]
        for row in rows:
            yield number, row
            number += 1


def _decoded(one: pa.RecordBatch) -> Row | None:
    try:
        return one.to_pylist()[0]
    except UnicodeDecodeError:
        return None


def _findings(row: Row, templates: Mapping[str, Template]) -> Iterator[Finding]:
    found = [*_prompt(row), *_source(row), *_truth(row)]
    yield from found
    if row.keys() >= NEEDED.keys() and not any(finding.error for finding in found):
        yield from _ours(row, templates) if _is_ours(row) else _shows_candidates(row)
    yield from _odd_texts(row)


# ------------------------------------------------------------------------------------------- what verl and rewards need


def _prompt(row: Row) -> Iterator[Finding]:
    if "prompt" not in row:
        return
    messages = row["prompt"]
    if not isinstance(messages, list) or not messages or not all(isinstance(m, dict) for m in messages):
        yield Finding("prompt: not a list of messages {role, content}", _shown(messages))
        return
    for message in messages:
        role, content = message.get("role"), message.get("content")
        if role not in ROLES:
            yield Finding(f"prompt: unknown role (known are {', '.join(ROLES)})", _shown(role))
        if not isinstance(content, str):
            yield Finding("prompt: a message's content is not a text", _shown(content))
        elif not content.strip():
            yield Finding("prompt: a message is blank", _shown(content))
    if messages[-1].get("role") == "assistant":
        yield Finding("prompt: the last message is the assistant's", _shown(messages[-1].get("content")), error=False)


def _source(row: Row) -> Iterator[Finding]:
    if "data_source" in row and (not isinstance(row["data_source"], str) or not row["data_source"].strip()):
        yield Finding("data_source: not a name", _shown(row["data_source"]))
    if not isinstance(row.get("extra_info"), dict | None):
        yield Finding("extra_info: not a struct; verl stops there", _shown(row["extra_info"]))


def _truth(row: Row) -> Iterator[Finding]:
    if "reward_model" not in row:
        return
    truth = _inside(row, "reward_model", "ground_truth")
    if not isinstance(truth, dict):
        yield Finding("ground_truth: not {candidates, target}: our rewards cannot score it", _shown(truth))
        return
    try:
        texts, relevance = relevance_of(truth)
    except ValueError as error:
        yield Finding("ground_truth: our rewards cannot score it", _one_line(str(error)))
        return
    if blank := [text for text in texts if not text.strip()]:
        yield Finding("candidates: a blank text", _shown(blank[0]))
    if len(texts) < 2:
        yield Finding("candidates: fewer than two", str(len(texts)))
    elif max(relevance) == min(relevance):
        yield Finding("ground_truth: no candidate is better than another", _shown(relevance))
    elif truth.get("target") not in (None, relevance.index(max(relevance))):
        yield Finding("ground_truth: target is not the place of the best", f"target {truth['target']!r} of {relevance}")
    yield from _shown_twice(row, texts, relevance)


def _shown_twice(row: Row, texts: list[str], relevance: list[float]) -> Iterator[Finding]:
    """Find candidates with equal texts, or with that of an item of the history: a model sees texts, not ids."""
    grades: dict[str, set[float]] = {}
    for text, grade in zip(texts, relevance, strict=True):
        grades.setdefault(text, set()).add(grade)
    if differing := [text for text, found in grades.items() if len(found) > 1]:
        yield Finding("candidates: one text with two relevances", _shown(differing[0]))
    elif len(grades) < len(texts):
        yield Finding("candidates: a text occurs twice", _shown(Counter(texts).most_common(1)[0][0]), error=False)
    context, ids = _inside(row, "extra_info", "context"), _inside(row, "extra_info", "history_ids")
    past = context.split(HISTORY_SEPARATOR) if isinstance(context, str) else []
    if not isinstance(ids, list) or len(ids) != len(past):  # items of the history cannot be told apart
        return
    best = {text for text, grade in zip(texts, relevance, strict=True) if grade == max(relevance)}
    if again := [text for text in texts if text in past]:
        of_best = [text for text in again if text in best]
        what = "the best one is shown" if of_best else "one is"
        yield Finding(f"candidates: {what} in the history, too", _shown((of_best or again)[0]))


# ------------------------------------------------------------------------------------------------- what our agents need


def _is_ours(row: Row) -> bool:
    return row.get("agent_name") in _AGENTS or _inside(row, "extra_info", "row_kind") in _KINDS


def _ours(row: Row, templates: Mapping[str, Template]) -> Iterator[Finding]:
    info: dict[str, Any] = row.get("extra_info") or {}
    kind = info.get("row_kind")
    if kind not in _KINDS:
        yield Finding(f"row_kind: not {' or '.join(_KINDS)}", _shown(kind))
    elif row.get("agent_name") != AGENTS[kind]:
        yield Finding(
            "agent_name: not the one that plays rows of its kind", f"{_shown(row.get('agent_name'))} for {kind}"
        )
    if wrong := [name for name in _TEXTS if not isinstance(info.get(name), str)]:
        yield Finding(f"extra_info.{wrong[0]}: not a text", _shown(info.get(wrong[0])))
        return
    if not isinstance(ids := info.get("candidate_ids"), list) or not all(isinstance(i, str) for i in ids):
        yield Finding("extra_info.candidate_ids: not a list of texts", _shown(ids))
        return
    try:
        task = RankingTask.from_row(row)
    except UserError as error:
        yield Finding("task: cannot be made of the row", _one_line(str(error)))
        return
    if not task.context.strip():
        yield Finding("context: blank", _shown(task.context), error=False)
    template = templates.get(info["template_hash"])
    if template is None:
        named = f"{info['template_id']} ({info['template_hash']})"
        yield Finding("template: unknown here; give the .yaml file that the rows were made with (--template)", named)
        yield from _shows_candidates(row)
    elif template.kind != ("direct" if kind == "direct" else "exclusion"):
        yield Finding("template: of another kind than the row", f"{template.id} is {template.kind}, the row is {kind}")
    else:
        messages = template.messages(template.start(task))
        if difference := _difference(row["prompt"], messages):
            yield Finding("prompt: not what its template makes of the row", difference)


def _difference(stored: list[dict[str, Any]], made: list[dict[str, str]]) -> str | None:
    """Return where two prompts differ first, or None."""
    if [m["role"] for m in stored] != [m["role"] for m in made]:
        return f"roles {[m['role'] for m in stored]}, not {[m['role'] for m in made]}"
    for one, other in zip(stored, made, strict=True):
        if one["content"] != other["content"]:
            pairs = zip(one["content"], other["content"], strict=False)
            at = next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(one["content"]), len(other["content"])))
            return f"at character {at}: {shown(one['content'][at:])}, not {shown(other['content'][at:])}"
    return None


def _shows_candidates(row: Row) -> Iterator[Finding]:
    """Find what a prompt that cannot be rendered again does not show of what an answer has to name."""
    prompt = "\n".join(message["content"] for message in row["prompt"])
    texts = row["reward_model"]["ground_truth"]["candidates"]
    if lost := [text for text in texts if text not in prompt]:
        yield Finding("prompt: a candidate's text is not in it", _shown(lost[0]))
    labels = [f"[{label(i)}]" for i in range(len(texts))]
    hidden = [name for name in labels if name not in prompt]
    if hidden and len(hidden) < len(labels):
        yield Finding("prompt: shows some labels, and not this one", hidden[0], error=False)


# ------------------------------------------------------------------------------------------------------------- warnings


def _odd_texts(row: Row) -> Iterator[Finding]:
    messages = row.get("prompt")
    texts = {
        "prompt": [_inside(m, "content") for m in messages] if isinstance(messages, list) else None,
        "candidates": _inside(row, "reward_model", "ground_truth", "candidates"),
        "context": [_inside(row, "extra_info", "context")],
    }
    for name, values in texts.items():
        for value in values if isinstance(values, list) else ():
            if isinstance(value, str) and (match := _ODD.search(value)):
                around = value[max(0, match.start() - 20) : match.end() + 20]
                code = f"U+{ord(match.group()):04X}"
                yield Finding(f"{name}: a control character or line separator", f"{code} in {around!a}", error=False)
                break


class _Repeats:
    """What occurred before in the file: an index, and a task with its candidates in the same order."""

    def __init__(self) -> None:
        self._index: set[int] = set()
        self._rows: set[int] = set()  # hashes: a row is 60 bytes here, not thousands

    def __call__(self, row: Row) -> Iterator[Finding]:
        info = row.get("extra_info")
        if not isinstance(info, dict) or not isinstance(info.get("index"), int):
            return
        if info["index"] in self._index:
            yield Finding("extra_info.index: occurred before", str(info["index"]), error=_is_ours(row))
        self._index.add(info["index"])
        if isinstance(ids := info.get("candidate_ids"), list) and info.get("task_id") is not None:
            key = hash(str((row.get("data_source"), info["task_id"], info.get("row_kind"), ids)))
            if key in self._rows:
                yield Finding("task: occurred before, in the same order", _shown(info["task_id"]), error=False)
            self._rows.add(key)


def _inside(row: Any, *path: str) -> Any:
    for name in path:
        row = row.get(name) if isinstance(row, dict) else None
    return row


def _shown(value: Any) -> str:
    return shown(value) if isinstance(value, str) else _one_line(str(value))


def _one_line(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= 160 else text[:157] + "..."
