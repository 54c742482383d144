"""Rank tasks with a language model, each in one or more orders of its candidates, resumed where it was interrupted."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from iranker_verl.errors import UserError
from iranker_verl.evaluation.journal import Journal, of_system
from iranker_verl.evaluation.metrics import measure, task_gains
from iranker_verl.evaluation.orders import in_order
from iranker_verl.evaluation.records import Key, Record, SystemResult, records_of
from iranker_verl.evaluation.sharding import Log, ModelJob, run_sharded
from iranker_verl.evaluation.systems import ModelSystem
from iranker_verl.inference.engine import ChatTokenizer, longest_context, longest_prompt
from iranker_verl.inference.episode import Episode, check_constrained
from iranker_verl.inference.models import model_hash, trained_with
from iranker_verl.ranking import RankingTask
from iranker_verl.ranking.task import tasks_hash
from iranker_verl.ranking.templates import Template, check_hash

SLACK = 16


def check_model_template(model: Path, template: Template) -> None:
    """Raise UserError, with both hashes, where a model folder says that it was trained with another template."""
    if (own := trained_with(model)) is not None:  # on an untrained model any template may be tried
        check_hash(template, own.template_id, own.template_hash, str(model))


def needed_length(
    model: Path, tasks: Sequence[RankingTask], template: Template, max_new_tokens: int, constrained: bool = False
) -> int:
    """Return the tokens that the longest prompt and its answer need. Raise UserError by task where a model admits fewer."""
    tokenizer, admitted = ChatTokenizer(model), longest_context(model)
    longest, room = 0, tokenizer.answer_room(max_new_tokens, constrained)
    for task in tasks:
        length = longest_prompt(tokenizer, template, task) + room
        if admitted is not None and length > admitted:
            raise UserError(
                f"task {task.id!r} of {task.dataset!r}: its prompt and answer need {length} tokens, "
                f"but the model {model} admits {admitted}"
            )
        longest = max(longest, length)
    if template.most_candidates() is not None:  # measured text by text: together they may be a token or two longer
        longest = min(longest + SLACK, admitted or longest + SLACK)
    return longest


def check_model(system: ModelSystem, tasks: Sequence[RankingTask], seed: int = 0) -> int | None:
    """Return the tokens that the longest prompt and its answer need; None of a server's model.

    Raise UserError for all that can be wrong before a model is loaded: tasks, options, its template, tasks longer than it admits.
    """
    check_tasks(tasks)
    for name, least in (("orders", 1), ("shards", 1), ("temperature", 0)):
        if (value := getattr(system, name)) < least:
            raise UserError(f"{name} is at least {least}, got {value}")
    if system.reads_log_probs:
        if system.temperature:
            raise UserError(
                f"constrained answers are the likeliest labels; temperature {system.temperature:g} has no effect"
            )
        check_constrained(system.model, system.template, max(len(t.candidates) for t in tasks), system.per_call)
    if isinstance(system.model, Path):
        check_model_template(system.model, system.template)
        shown = [task for _, task in _in_orders(system, tasks, seed)]
        return needed_length(system.model, shown, system.template, system.max_new_tokens, system.reads_log_probs)
    if system.shards > 1:
        raise UserError("shards have no effect with an endpoint; leave them out, and set --concurrency")
    return None


def evaluate_model(
    system: ModelSystem,
    tasks: Sequence[RankingTask],
    run_dir: Path,
    *,
    seed: int = 0,
    length: int | None = None,
    log: Log = print,
    log_every_s: float = 5.0,
) -> SystemResult:
    """Rank all tasks of the system's scenario, in each of its orders of their candidates, with its model.

    ``episodes-<system>.jsonl`` is written into ``run_dir``, task by task, and what an earlier, interrupted call with the same
    arguments left there is reused. ``concurrency``, ``shards`` and ``price`` may change in between. Nothing of vLLM is left when
    this returns.

    Args:
        system: the model, and how it is asked.
        tasks: what is ranked.
        run_dir: where the records are kept.
        seed: of orders and samples.
        length: what :func:`check_model` gave for the same arguments, where it was called before.
        log: gets a line every ``log_every_s`` seconds.
        log_every_s: seconds.

    Raises:
        UserError: see :func:`check_model`; where what is there is of another model, template, data or options.
    """
    if length is None:
        length = check_model(system, tasks, seed)
    requested = _in_orders(system, tasks, seed)
    job = ModelJob(system, seed, length, log_every_s)
    started = time.monotonic()

    def progress(text: str) -> None:
        log(f"evaluate {system.name}: {text}")

    journal = Journal(of_system(run_dir, system.name), _fingerprint(system, tasks, seed))
    found = restored(journal, requested, system.name, system.template)
    if journal.summary is not None:
        progress("completed before")
    else:
        if found:
            progress(f"{len(found)}/{len(requested)} tasks completed before, resuming")
        with journal:
            _run_missing(job, requested, found, journal, progress)
    seconds = (journal.summary or {"seconds": time.monotonic() - started})["seconds"]
    records = tuple(found[order, task.dataset, task.id] for order, task in requested)
    result = SystemResult(system.name, records, seconds, price=system.price, role=system.role)
    if journal.summary is None:
        journal.finish([record.to_json() for record in records], result.summary())
    return result


def _in_orders(system: ModelSystem, tasks: Sequence[RankingTask], seed: int) -> list[tuple[int, RankingTask]]:
    """Return what the system ranks: the tasks of its scenario, in each order."""
    own = [task for task in tasks if system.scenario in (None, task.scenario)]
    return [(order, in_order(task, order, seed)) for order in range(system.orders) for task in own]


def _run_missing(
    job: ModelJob,
    requested: Sequence[tuple[int, RankingTask]],
    found: dict[Key, Record],
    journal: Journal,
    log: Log,
) -> None:
    """Run the episodes that ``found`` lacks; put their records there and into the journal."""
    missing = [(order, task) for order, task in requested if (order, task.dataset, task.id) not in found]
    if not missing:
        return

    def on_done(index: int, episode: Episode) -> None:
        order, task = missing[index]
        [values] = measure([task], [episode.ranking])
        record = Record(task, episode.ranking, values, episode, order)
        found[record.key] = record
        journal.append(record.to_json())

    tasks = [task for _, task in missing]
    if job.system.shards > 1:
        run_sharded(job, tasks, job.system.shards, on_done, log)
    else:
        asyncio.run(job.run(tasks, on_done, log))


def restored(
    journal: Journal, requested: Sequence[tuple[int, RankingTask]], system: str, template: Template | None = None
) -> dict[Key, Record]:
    """Return the journal's records by their keys. Raise UserError for a line that is not one of these tasks'."""
    tasks = {(order, task.dataset, task.id): task for order, task in requested}
    found = {}
    for row, record in enumerate(records_of(journal.lines, journal.path, system, template), 1):
        expected = tasks.get(record.key)
        if expected is None or replace(expected, history=()) != record.task:
            raise UserError(
                f"{journal.path} row {row}: task {record.task.id!r} of {record.task.dataset!r} is not one of these tasks; remove "
                f"{journal.path.stem}.* and evaluate {system} again"
            )
        found[record.key] = replace(record, task=expected)
    return found


def _fingerprint(system: ModelSystem, tasks: Sequence[RankingTask], seed: int) -> dict[str, Any]:
    """Return what a model's answers depend on."""
    if isinstance(system.model, Path):
        model = {"model_hash": model_hash(system.model)}
    else:
        model = {"model": system.model.model, "endpoint": system.model.url}
    return model | {
        "template_id": system.template.id,
        "template_hash": system.template.hash,
        "tasks": len(tasks),
        "tasks_hash": tasks_hash(tasks),
        "orders": system.orders,
        "max_new_tokens": system.max_new_tokens,
        "temperature": float(system.temperature),
        "per_call": system.per_call,
        "constrained": system.reads_log_probs,
        "seed": seed,
    }


def check_tasks(tasks: Sequence[RankingTask]) -> None:
    """Raise UserError for no task, one that occurs twice, and one that cannot be measured."""
    if not tasks:
        raise UserError("there is no task to evaluate")
    seen: set[tuple[str, str]] = set()
    for task in tasks:
        if (task.dataset, task.id) in seen:
            raise UserError(f"task {task.id!r} of {task.dataset!r} occurs twice; ids have to be unique")
        task_gains(task)  # refused before a model is loaded
        seen.add((task.dataset, task.id))
