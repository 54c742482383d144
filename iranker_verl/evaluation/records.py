"""What an evaluation keeps: one :class:`Record` a task, and a :class:`SystemResult` for all of a system's."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, is_dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from iranker_verl.evaluation import trec
from iranker_verl.evaluation.metrics import MEASURES, Values, rank_of_best, task_gains
from iranker_verl.evaluation.prices import Price
from iranker_verl.inference.episode import AnsweredStep, Episode, replay_episode
from iranker_verl.ranking import RankingTask
from iranker_verl.ranking.templates import Template

Key = tuple[int, str, str]  # order, dataset, task id


@dataclass(frozen=True)
class Record:
    """One task as one system ranked it. ``episode`` is None where no language model was asked; ``task`` has its candidates
    in the order shown, which is the prepared one where ``order`` is 0 (see :mod:`.orders`)."""

    task: RankingTask
    ranking: tuple[str, ...]
    values: Values
    episode: Episode | None = None
    order: int = 0

    @property
    def key(self) -> Key:
        return self.order, self.task.dataset, self.task.id

    @property
    def rr_strict(self) -> float:
        """The reciprocal rank, where any malformed answer makes the ranking the worst there is: 1 / N, the best last."""
        if self.episode is not None and self.episode.malformed:
            return 1 / len(self.task.candidates)
        return self.values["rr"]

    def to_json(self) -> dict[str, Any]:
        """A line of ``episodes-<system>.jsonl``: the task, the ranking, the measures and, for a model, every step."""
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
            "rank_of_best": rank_of_best(task, self.ranking),
            **self.values,
            "rr_strict": self.rr_strict,
        }
        if episode is not None:
            line |= {
                "steps": [_step(step) for step in episode.steps],
                "calls": episode.calls,
                "malformed": episode.malformed,
                "prompt_tokens": episode.prompt_tokens,
                "new_tokens": episode.new_tokens,
                "seconds": episode.seconds,
            }
        return line

    @classmethod
    def from_json(cls, line: Mapping[str, Any], task: RankingTask, template: Template | None) -> Record:
        """The record back from its line. A model's episode is played again from its answers, so ``template`` is its own.

        ValueError or KeyError where the line is not one of this task's.
        """
        episode = None
        if "steps" in line:
            if template is None:
                raise ValueError("a model's line where none is expected")
            episode = replay_episode(
                task,
                template,
                [step["response"] for step in line["steps"]],
                prompt_tokens=line["prompt_tokens"],
                new_tokens=line["new_tokens"],
                seconds=line["seconds"],
            )
        ranking = tuple(line["ranking"]) if episode is None else episode.ranking
        if list(ranking) != line["ranking"]:
            raise ValueError(f"task {task.id!r}: its answers now make another ranking")
        return cls(task, ranking, {name: line[name] for name in MEASURES}, episode, line["order"])


def _step(step: AnsweredStep) -> dict[str, Any]:
    """What a step says of itself, its pool left out: it follows from the steps before it."""
    fields: dict[str, Any] = asdict(step) if is_dataclass(step) and not isinstance(step, type) else {}
    return {name: value for name, value in fields.items() if name not in ("pool", "status", "response")} | {
        "status": step.status,
        "response": step.response,
    }


@dataclass(frozen=True)
class SystemResult:
    """A system's records (for each order of candidates, those of the tasks that it applies to, in their order), and what it
    took: ``seconds`` with loading and everything, of these ``fit_seconds`` and ``rank_seconds`` for a baseline. A system that
    cannot run here has no records, and ``unavailable`` says why."""

    system: str
    records: tuple[Record, ...]
    seconds: float
    fit_seconds: float | None = None
    rank_seconds: float | None = None
    price: Price | None = None
    unavailable: str | None = None


def write_trec(results: Iterable[SystemResult], folder: Path) -> None:
    """``folder/<dataset>/<system>.run`` and ``folder/<dataset>/qrels.txt`` (order k ≥ 1: ``<system>.order-k.run``).

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
    if all(r >= 0 and r == int(r) for r in task.relevance):
        return [int(r) for r in task.relevance]
    return task_gains(task)
