"""Evaluation: play every test task to its end, measure the rankings, and put systems side by side.

    before = evaluate_model(base, tasks, template, system="before", run_dir=run)
    after = evaluate_model(trained, tasks, template, system="after", run_dir=run)
    baselines = evaluate_baselines(train_tasks, tasks, seed=0, run_dir=run)
    results = {**collect([before, after, *baselines], seed=0), …}

Every system's tasks are kept one by one in ``episodes-<system>.jsonl`` (see :meth:`.records.Record.to_json`), so that a
run can be read again and its report drawn again without a model, and so that an interrupted evaluation goes on where it
was (:mod:`.journal`).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from iranker_verl import __version__
from iranker_verl.errors import UserError
from iranker_verl.evaluation.baselines import STANDARD, Asking, Baseline, Context, Unavailable, make
from iranker_verl.evaluation.baselines.loading import release
from iranker_verl.evaluation.journal import Journal, of_system
from iranker_verl.evaluation.metrics import measure, task_gains
from iranker_verl.evaluation.orders import in_order
from iranker_verl.evaluation.prices import Price
from iranker_verl.evaluation.records import Key, Record, SystemResult
from iranker_verl.evaluation.results import collect
from iranker_verl.evaluation.sharding import Job, run_sharded
from iranker_verl.inference.endpoint import Endpoint
from iranker_verl.inference.engine import ChatTokenizer, longest_context, longest_prompt
from iranker_verl.inference.episode import Episode
from iranker_verl.inference.models import model_hash, trained_with
from iranker_verl.ranking import RankingTask
from iranker_verl.ranking.task import tasks_hash
from iranker_verl.ranking.templates import Template, check_hash

__all__ = [
    "Record",
    "SystemResult",
    "check_model",
    "check_model_template",
    "collect",
    "evaluate_baselines",
    "evaluate_model",
]

SLACK = 16

Say = Callable[[str], None]


def check_model_template(model: Path, template: Template) -> None:
    """UserError, with both hashes, where a model folder says that it was trained with another template."""
    if (own := trained_with(model)) is not None:  # on an untrained model any template may be tried
        check_hash(template, own.template_id, own.template_hash, str(model))


def needed_length(model: Path, tasks: Sequence[RankingTask], template: Template, max_new_tokens: int) -> int:
    """Tokens that the longest prompt and its answer need. UserError names the task that does not fit in the model."""
    tokenizer, admitted = ChatTokenizer(model), longest_context(model)
    longest = 0
    for task in tasks:
        length = longest_prompt(tokenizer, template, task) + max_new_tokens
        if admitted is not None and length > admitted:
            raise UserError(
                f"task {task.id!r} of {task.dataset!r}: its prompt and answer need {length} tokens, "
                f"but the model {model} admits {admitted}"
            )
        longest = max(longest, length)
    if template.shows() is not None:  # measured text by text: together they may be a token or two longer
        longest = min(longest + SLACK, admitted or longest + SLACK)
    return longest


def evaluate_model(
    model: Path | Endpoint,
    tasks: Sequence[RankingTask],
    template: Template,
    *,
    system: str,
    run_dir: Path | None = None,
    max_new_tokens: int = 16,
    temperature: float = 0.0,
    orders: int = 1,
    concurrency: int = 64,
    shards: int = 1,
    seed: int = 0,
    price: Price | None = None,
    length: int | None = None,
    say: Say = print,
    say_every_s: float = 5.0,
) -> SystemResult:
    """Play all tasks, in each of ``orders`` orders of their candidates, with a model folder on vLLM or a model of a server.

    ``say`` gets a line every ``say_every_s`` seconds. With ``run_dir``, ``episodes-<system>.jsonl`` is written there, task by
    task, and what an earlier, interrupted call with the same arguments left there is taken over; UserError where what is
    there is of another model, template, data or options. ``concurrency``, ``shards`` and ``price`` may change in between.
    ``length`` is what :func:`check_model` gave for the same arguments, where it was called before. Nothing of vLLM is left
    when this returns.
    """
    if length is None:
        length = check_model(
            model,
            tasks,
            template,
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            orders=orders,
            shards=shards,
            seed=seed,
        )
    asked = _in_orders(tasks, orders, seed)
    job = Job(
        model.resolve() if isinstance(model, Path) else model,
        template,
        max_new_tokens,
        temperature,
        concurrency,
        seed,
        length,
        say_every_s,
    )
    started = time.monotonic()

    def tell(text: str) -> None:
        say(f"evaluate {system}: {text}")

    def result(records: Mapping[Key, Record], seconds: float) -> SystemResult:
        ordered = tuple(records[order, task.dataset, task.id] for order, task in asked)
        return SystemResult(system, ordered, seconds, price=price)

    if run_dir is None:
        found: dict[Key, Record] = {}
        _play(job, asked, found, shards, lambda record: None, tell)
        return result(found, time.monotonic() - started)
    journal = Journal(of_system(run_dir, system), _fingerprint(job, tasks, orders))
    found = _restored(journal, asked, template)
    if journal.took is not None:
        tell("done before")
        return result(found, journal.took["seconds"])
    if found:
        tell(f"{len(found)}/{len(asked)} tasks done before, going on")
    with journal:
        _play(job, asked, found, shards, lambda record: journal.append(record.to_json()), tell)
    done = result(found, time.monotonic() - started)
    journal.finish([r.to_json() for r in done.records], {"seconds": done.seconds})
    return done


def check_model(
    model: Path | Endpoint,
    tasks: Sequence[RankingTask],
    template: Template,
    *,
    max_new_tokens: int,
    temperature: float,
    orders: int,
    shards: int,
    seed: int,
) -> int | None:
    """All that can be wrong before a model is loaded, as a UserError: options, its template, tasks longer than it admits.

    The tokens that the longest prompt and its answer need; None of a server's model.
    """
    _check_tasks(tasks)
    for name, value, least in (("orders", orders, 1), ("shards", shards, 1), ("temperature", temperature, 0)):
        if value < least:
            raise UserError(f"{name} is at least {least}, got {value}")
    if isinstance(model, Path):
        check_model_template(model, template)
        asked = [task for _, task in _in_orders(tasks, orders, seed)]
        return needed_length(model, asked, template, max_new_tokens)
    if shards > 1:
        raise UserError(
            "shards are engines of our own; a server is asked from here (--concurrency says how much at once)"
        )
    return None


def _in_orders(tasks: Sequence[RankingTask], orders: int, seed: int) -> list[tuple[int, RankingTask]]:
    return [(order, in_order(task, order, seed)) for order in range(orders) for task in tasks]


def _play(
    job: Job,
    asked: Sequence[tuple[int, RankingTask]],
    found: dict[Key, Record],
    shards: int,
    keep: Callable[[Record], None],
    tell: Say,
) -> None:
    """Play what ``found`` lacks, and put it there."""
    missing = [(order, task) for order, task in asked if (order, task.dataset, task.id) not in found]
    if not missing:
        return

    def on_done(place: int, episode: Episode) -> None:
        order, task = missing[place]
        [values] = measure([task], [episode.ranking])
        record = Record(task, episode.ranking, values, episode, order)
        found[record.key] = record
        keep(record)

    tasks = [task for _, task in missing]
    if shards > 1:
        run_sharded(job, tasks, shards, on_done, tell)
    else:
        asyncio.run(job.run(tasks, on_done, tell))


def _restored(
    journal: Journal, asked: Sequence[tuple[int, RankingTask]], template: Template | None
) -> dict[Key, Record]:
    """The journal's records by their keys. UserError for a line that is not one of these tasks'."""
    tasks = {(order, task.dataset, task.id): task for order, task in asked}
    found = {}
    for row, line in enumerate(journal.lines, 1):
        try:
            key = (line["order"], line["dataset"], line["task_id"])
            found[key] = Record.from_json(line, tasks[key], template)
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(
                f"{journal.path.stem}, line {row} of what was done before, is not of these tasks "
                f"({type(error).__name__}: {error}); remove {journal.path.stem}.* and evaluate again"
            ) from error
    return found


def _fingerprint(job: Job, tasks: Sequence[RankingTask], orders: int) -> dict[str, Any]:
    """What a model's answers depend on."""
    if isinstance(job.model, Path):
        model = {"model_hash": model_hash(job.model)}
    else:
        model = {"model": job.model.model, "endpoint": job.model.url}
    return model | {
        "template_id": job.template.id,
        "template_hash": job.template.hash,
        "tasks": len(tasks),
        "tasks_hash": tasks_hash(tasks),
        "orders": orders,
        "max_new_tokens": job.max_new_tokens,
        "temperature": float(job.temperature),
        "seed": job.seed,
    }


def evaluate_baselines(
    train_tasks: Sequence[RankingTask],
    tasks: Sequence[RankingTask],
    *,
    baselines: Iterable[str | Baseline] = STANDARD,
    context: Context | None = None,
    seed: int = 0,
    run_dir: Path | None = None,
    say: Say = print,
) -> list[SystemResult]:
    """Fit and rank with each of ``baselines`` (names, or baselines made already), one after the other.

    A baseline leaves out the tasks that it does not apply to; one that cannot run here says why (``unavailable``) and has no
    records. With ``run_dir``, baselines that were done before, with the same data, seed and weights, are not run again.
    """
    _check_tasks(tasks)
    context = context or Context(seed)
    hashes = {"train_hash": tasks_hash(train_tasks), "tasks_hash": tasks_hash(tasks)} if run_dir else {}
    results = []
    for baseline in baselines:
        name = baseline if isinstance(baseline, str) else baseline.name
        journal = None
        if run_dir is not None:
            journal = Journal(of_system(run_dir, name), _baseline_fingerprint(name, context) | hashes)
        result = _ranked(baseline, train_tasks, tasks, context, journal)
        release(context.device)  # of its weights, for the next, and for the model's engine
        if journal is not None and journal.took is None and result.unavailable is None:
            journal.finish(
                [r.to_json() for r in result.records],
                {"seconds": result.seconds, "fit_seconds": result.fit_seconds, "rank_seconds": result.rank_seconds},
            )
        found = f"{len(result.records)}/{len(tasks)} tasks, {result.seconds:.0f} s"
        say(f"evaluate {name}: {found if result.unavailable is None else f'unavailable, {result.unavailable}'}")
        results.append(result)
    return results


def _ranked(
    baseline: str | Baseline,
    train_tasks: Sequence[RankingTask],
    tasks: Sequence[RankingTask],
    context: Context,
    journal: Journal | None,
) -> SystemResult:
    """One baseline: what was done before, or else what it does now."""
    started = time.monotonic()
    try:
        made = make([baseline], context)[0] if isinstance(baseline, str) else baseline
        return _done_before(made, journal, tasks) or _rank(made, train_tasks, tasks)
    except Unavailable as reason:
        name = baseline if isinstance(baseline, str) else baseline.name
        return SystemResult(name, (), time.monotonic() - started, unavailable=str(reason))


def _rank(baseline: Baseline, train_tasks: Sequence[RankingTask], tasks: Sequence[RankingTask]) -> SystemResult:
    """Fit and rank. A baseline that asks a language model is judged by its answers, as every model is."""
    started = time.monotonic()
    baseline.fit(train_tasks)
    fitted = time.monotonic()
    rankings = baseline.rank(tasks)
    ended = time.monotonic()
    episodes = baseline.episodes() if isinstance(baseline, Asking) else [None] * len(tasks)
    ranked = [(t, r, e) for t, r, e in zip(tasks, rankings, episodes, strict=True) if r is not None]
    values = measure([t for t, _, _ in ranked], [r for _, r, _ in ranked])
    records = tuple(Record(t, tuple(r), v, e) for (t, r, e), v in zip(ranked, values, strict=True))
    return SystemResult(baseline.name, records, time.monotonic() - started, fitted - started, ended - fitted)


def _done_before(baseline: Baseline, journal: Journal | None, tasks: Sequence[RankingTask]) -> SystemResult | None:
    if journal is None or journal.took is None:
        return None
    template = baseline.template() if isinstance(baseline, Asking) else None
    found = _restored(journal, [(0, task) for task in tasks], template)
    records = tuple(found[0, t.dataset, t.id] for t in tasks if (0, t.dataset, t.id) in found)
    took = journal.took
    return SystemResult(baseline.name, records, took["seconds"], took["fit_seconds"], took["rank_seconds"])


def _baseline_fingerprint(name: str, context: Context) -> dict[str, Any]:
    weights = context.models.get(name)
    known = weights is not None and Path(weights).is_dir()
    return {
        "baseline": name,
        "version": __version__,
        "seed": context.seed,
        "model": weights,
        "model_hash": model_hash(Path(str(weights))) if known else None,
    }


def _check_tasks(tasks: Sequence[RankingTask]) -> None:
    if not tasks:
        raise UserError("there is no task to evaluate")
    seen: set[tuple[str, str]] = set()
    for task in tasks:
        if (task.dataset, task.id) in seen:
            raise UserError(f"task {task.id!r} of {task.dataset!r} is there twice; ids have to be unique")
        task_gains(task)  # said before a model is loaded
        seen.add((task.dataset, task.id))
