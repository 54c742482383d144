"""What an evaluation keeps: one :class:`Record` a task, a line of a file each, and a :class:`SystemResult` for all of a system's.

This module is the only one that writes and reads the lines of ``episodes-<system>.jsonl``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, is_dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from iranker_verl.errors import UserError
from iranker_verl.evaluation import trec
from iranker_verl.evaluation.metrics import MEASURES, Values, rank_of_best, task_gains
from iranker_verl.evaluation.prices import Price
from iranker_verl.evaluation.systems import Role
from iranker_verl.inference.episode import AnsweredStep, Episode, replay_episode
from iranker_verl.ranking import Candidate, RankingTask
from iranker_verl.ranking.templates import Template

Key = tuple[int, str, str]  # order, dataset, task id


@dataclass(frozen=True)
class StepRecord:
    """A step as its line has it: enough to count and to show, for any way to a ranking and without its template."""

    status: str
    response: str
    details: Mapping[str, Any] = field(default_factory=dict)  # ``excluded``, ``named`` or ``chosen``

    @property
    def malformed(self) -> bool:
        """Return whether the response was not in form."""
        return self.status != "ok"


@dataclass(frozen=True)
class Record:
    """One task as one system ranked it.

    ``episode`` is None where no language model was asked. ``task`` has its candidates in the order shown, which is the prepared
    one where ``order`` is 0 (see :mod:`.orders`).
    """

    task: RankingTask
    ranking: tuple[str, ...]
    values: Values
    episode: Episode | None = None
    order: int = 0

    @property
    def key(self) -> Key:
        """Return what tells this record from a system's others."""
        return self.order, self.task.dataset, self.task.id

    @property
    def rank_of_best(self) -> int:
        """Return the rank, from 1, of the best candidate."""
        return rank_of_best(self.task, self.ranking)

    @property
    def rr_strict(self) -> float:
        """Return the reciprocal rank, where any malformed answer makes the ranking the worst there is: 1 / N, the best last."""
        if self.episode is not None and self.episode.malformed:
            return 1 / len(self.task.candidates)
        return self.values["rr"]

    def to_json(self) -> dict[str, Any]:
        """Return a line of ``episodes-<system>.jsonl``: the task, the ranking, the measures and, of a model, every step."""
        task, episode = self.task, self.episode
        line: dict[str, Any] = {
            "task_id": task.id,
            "dataset": task.dataset,
            "scenario": task.scenario,
            "order": self.order,
            "context": task.context,
            "candidates": [asdict(c) for c in task.candidates],
            "relevance": list(task.relevance),
            "ranking": list(self.ranking),
            "rank_of_best": self.rank_of_best,
            **self.values,
            "rr_strict": self.rr_strict,
        }
        if episode is not None:
            line |= {
                "steps": [_step(step) for step in episode.steps],
                "calls": episode.calls,
                "malformed": episode.malformed,
                "per_call": episode.per_call,
                "prompt_tokens": episode.prompt_tokens,
                "new_tokens": episode.new_tokens,
                "seconds": episode.seconds,
            }
        return line

    @classmethod
    def from_json(cls, line: Mapping[str, Any], template: Template | None = None) -> Record:
        """Return the record of a line.

        With the ``template`` that a model was prompted with, its episode is run again from its responses. Raise UserError, ValueError,
        KeyError or TypeError where the line is none of an evaluation, or its responses now make another ranking.
        """
        task = RankingTask(
            line["task_id"],
            line["scenario"],
            line["dataset"],
            line["context"],
            tuple(Candidate(c["id"], c["text"]) for c in line["candidates"]),
            tuple(line["relevance"]),
        )
        ranking, episode = tuple(line["ranking"]), None
        if sorted(ranking) != sorted(c.id for c in task.candidates):
            raise ValueError(f"task {task.id!r}: its ranking is not an order of its candidates")
        if "steps" in line:
            cost = {name: line[name] for name in ("prompt_tokens", "new_tokens", "seconds")}
            cost["per_call"] = line.get("per_call", 1)
            if template is None:
                steps = tuple(_read_step(step) for step in line["steps"])
                episode = Episode(task.id, task.dataset, ranking, steps, **cost)
            else:
                episode = replay_episode(task, template, [step["response"] for step in line["steps"]], **cost)
                if episode.ranking != ranking:
                    raise ValueError(f"task {task.id!r}: its answers now make another ranking")
        return cls(task, ranking, {name: line[name] for name in MEASURES}, episode, line["order"])


def records_of(
    lines: Iterable[Mapping[str, Any]], path: Path, system: str, template: Template | None = None
) -> Iterator[Record]:
    """Yield the records of the lines of ``path`` (see :meth:`Record.from_json`). Raise UserError by file and row."""
    for row, line in enumerate(lines, 1):
        try:
            yield Record.from_json(line, template)
        except (KeyError, TypeError, ValueError, UserError) as error:
            raise UserError(
                f"{path} row {row}: not a line of an evaluation ({type(error).__name__}: {error}); remove "
                f"{path.name.partition('.jsonl')[0]}.* and evaluate {system} again"
            ) from error


def _read_step(line: Mapping[str, Any]) -> StepRecord:
    details = {name: value for name, value in line.items() if name not in ("status", "response")}
    return StepRecord(line["status"], line["response"], details)


def _step(step: AnsweredStep) -> dict[str, Any]:
    """Return the fields of a step, its pool left out: it follows from the steps before it."""
    if isinstance(step, StepRecord):
        fields = dict(step.details)
    else:
        fields = asdict(step) if is_dataclass(step) and not isinstance(step, type) else {}
    kept = {name: value for name, value in fields.items() if name not in ("pool", "status", "response")}
    return kept | {"status": step.status, "response": step.response}


@dataclass(frozen=True)
class SystemResult:
    """A system's records, and what it cost.

    ``records`` are, for each order of candidates, those of the tasks that the system applies to, in their order. ``seconds``
    count loading and everything; of these a baseline took ``fit_seconds`` and ``rank_seconds``. A system that cannot run here has
    no records, and ``unavailable`` says why.
    """

    system: str
    records: tuple[Record, ...]
    seconds: float
    fit_seconds: float | None = None
    rank_seconds: float | None = None
    price: Price | None = None
    unavailable: str | None = None
    role: Role = Role.MODEL

    def summary(self) -> dict[str, Any]:
        """Return what is stored with the records."""
        return {name: getattr(self, name) for name in ("seconds", "fit_seconds", "rank_seconds", "role")}

    @classmethod
    def restored(cls, system: str, records: Iterable[Record], summary: Mapping[str, Any]) -> SystemResult:
        """Return the result with this :meth:`summary`. What the models' tokens cost is not known of it."""
        fit_s, rank_s = summary.get("fit_seconds"), summary.get("rank_seconds")
        return cls(system, tuple(records), summary["seconds"], fit_s, rank_s, role=Role(summary["role"]))


def write_trec(results: Iterable[SystemResult], folder: Path) -> None:
    """Write ``folder/<dataset>/<system>.run`` and ``folder/<dataset>/qrels.txt`` (order k ≥ 1: ``<system>.order-k.run``).

    Relevances that are whole numbers stay; others become the whole numbers of :func:`.metrics.gains`.
    """
    grades: dict[str, dict[str, dict[str, int]]] = {}
    runs: dict[tuple[str, str, str], dict[str, list[str]]] = {}
    for result in results:
        for record in result.records:
            task = record.task
            name = f"{result.system}.run" if record.order == 0 else f"{result.system}.order-{record.order}.run"
            runs.setdefault((task.dataset, name, result.system), {})[task.id] = list(record.ranking)
            ids = (c.id for c in task.candidates)
            grades.setdefault(task.dataset, {})[task.id] = dict(zip(ids, _grades(task), strict=True))
    for dataset, judged in grades.items():
        where = folder / quote(dataset, safe=" ")
        where.mkdir(parents=True, exist_ok=True)
        trec.write_qrels(where / "qrels.txt", judged)
    for (dataset, name, system), rankings in runs.items():
        trec.write_run(folder / quote(dataset, safe=" ") / name, rankings, system)


def _grades(task: RankingTask) -> list[int]:
    if all(0 <= r < trec.INT32 and r == int(r) for r in task.relevance):
        return [int(r) for r in task.relevance]
    return task_gains(task)
