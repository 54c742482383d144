"""The systems that are finished in a folder, from calls before this one, so that one table can hold them all.

``iranker evaluate`` writes one system a call into ``OUT``; what earlier calls left there (``before``, another method) stands
beside it in ``results.json`` where it ranked the same tasks.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from iranker_verl.errors import UserError
from iranker_verl.evaluation import journal
from iranker_verl.evaluation.metrics import MEASURES
from iranker_verl.evaluation.records import Record, SystemResult
from iranker_verl.inference.episode import Episode
from iranker_verl.ranking import Candidate, RankingTask
from iranker_verl.ranking.task import tasks_hash


@dataclass(frozen=True)
class Answer:
    """A model's answer as its line has it: enough to count, for any way to a ranking and without its template."""

    status: str
    response: str

    @property
    def malformed(self) -> bool:
        return self.status != "ok"


def others(
    run_dir: Path, tasks: Sequence[RankingTask], but: Collection[str], say: Callable[[str], None] = print
) -> list[SystemResult]:
    """The systems, ``but`` those named, that are finished in ``run_dir`` on the same tasks; ``say`` gets a line for each that
    is finished on others. UserError, by file and row, for a line that cannot be read. Prices are not kept: dollars are None."""
    found, same = [], tasks_hash(tasks)
    for done in journal.finished(run_dir):
        if done.system in but:
            continue
        if done.fingerprint.get("tasks_hash") != same:
            say(f"{done.system}: left out of the results, as it is finished in {run_dir} on other tasks")
            continue
        records = []
        for row, line in enumerate(done.lines(), 1):
            try:
                records.append(_record(line))
            except (KeyError, TypeError, ValueError) as error:
                raise UserError(
                    f"{done.path} row {row}: not a line of an evaluation ({type(error).__name__}: {error}); remove "
                    f"{done.path.stem}.* and evaluate {done.system} again"
                ) from error
        took = done.took
        found.append(
            SystemResult(
                done.system, tuple(records), took["seconds"], took.get("fit_seconds"), took.get("rank_seconds")
            )
        )
    return found


def _record(line: Mapping[str, Any]) -> Record:
    task = RankingTask(
        line["task_id"],
        line["scenario"],
        line["dataset"],
        line["context"],
        tuple(Candidate(c["id"], c["text"]) for c in line["candidates"]),
        tuple(line["relevance"]),
    )
    ranking, episode = tuple(line["ranking"]), None
    if "steps" in line:
        steps = tuple(Answer(step["status"], step["response"]) for step in line["steps"])
        cost = (line["prompt_tokens"], line["new_tokens"], line["seconds"])
        episode = Episode(task.id, task.dataset, ranking, steps, *cost)
    return Record(task, ranking, {name: line[name] for name in MEASURES}, episode, line["order"])
