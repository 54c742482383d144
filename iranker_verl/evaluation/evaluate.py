"""The one orchestrator of evaluation: rank every test task with every system, measure, and put the systems side by side.

    results = evaluate_systems(
        [*STANDARD, ModelSystem("before", base, template, Role.BEFORE), ModelSystem("after", trained, template, Role.AFTER)],
        test_tasks, out, train=train_tasks, seed=1,
    )

``iranker evaluate``, the last stage of a job and the merging of zero-shot runs (:mod:`.zero_shot`) all write ``results.json``
here. A system's tasks are kept one by one in ``episodes-<system>.jsonl`` (see :mod:`.records`), so that a report can be drawn
again without a model, and an interrupted evaluation is resumed (:mod:`.journal`).
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from iranker_verl import __version__
from iranker_verl.evaluation.baselines import (
    STANDARD,
    Baseline,
    Context,
    PromptingBaseline,
    Unavailable,
    make_baselines,
)
from iranker_verl.evaluation.baselines.loading import release_gpu_memory
from iranker_verl.evaluation.journal import Journal, finished, of_system
from iranker_verl.evaluation.metrics import measure
from iranker_verl.evaluation.model_runs import check_model, check_tasks, evaluate_model, restored
from iranker_verl.evaluation.records import Record, SystemResult, records_of, write_trec
from iranker_verl.evaluation.report.diagnosis import diagnose
from iranker_verl.evaluation.results import collect
from iranker_verl.evaluation.sharding import Log
from iranker_verl.evaluation.systems import ModelSystem, Role, check_roles
from iranker_verl.files import claimed, write_json
from iranker_verl.inference.models import model_hash
from iranker_verl.ranking import RankingTask
from iranker_verl.ranking.task import tasks_hash

AnyBaseline = str | Baseline | PromptingBaseline  # a string is a baseline's name
System = AnyBaseline | ModelSystem


def evaluate_systems(
    systems: Iterable[System],
    tasks: Sequence[RankingTask],
    out: Path,
    *,
    train: Sequence[RankingTask] = (),
    context: Context | None = None,
    seed: int = 0,
    made_of: Mapping[str, Any] | None = None,
    hold: AbstractContextManager[None] | None = None,
    log: Log = print,
) -> dict[str, Any]:
    """Evaluate baselines, then models; write ``results.json`` and TREC files into ``out``, and return the results.

    The results include what earlier calls finished in ``out`` on the same tasks; what is finished on other tasks is left out, and
    ``log`` says so. Prices are not kept: dollars of such systems are None.

    Args:
        systems: baselines, by name or made, and models.
        tasks: what is ranked.
        out: a folder; what an interrupted call with the same arguments left there is reused.
        train: what baselines learn from.
        context: what baselines are made with.
        seed: of orders, samples, intervals and tests.
        made_of: further keys of ``results.json``.
        hold: what holds the folder; by default it is claimed and locked here, when all has been checked.
        log: gets a line of progress now and then.

    Raises:
        UserError: before anything is loaded, for tasks, options, templates and roles that cannot be; for files of other work.
    """
    chosen = list(systems)
    models = [system for system in chosen if isinstance(system, ModelSystem)]
    baselines = [system for system in chosen if not isinstance(system, ModelSystem)]
    roles = dict.fromkeys(map(_name, baselines), Role.BASELINE) | {model.name: model.role for model in models}
    lengths = [check_model(model, tasks, seed) for model in models]
    with hold or claimed(out):
        others = finished_systems(out, tasks, roles, log)
        check_roles({other.system: other.role for other in others} | roles)
        results = evaluate_baselines(train, tasks, out, baselines=baselines, context=context, seed=seed, log=log)
        for model, length in zip(models, lengths, strict=True):
            results.append(evaluate_model(model, tasks, out, seed=seed, length=length, log=log))
        return write_results(out, [*results, *others], seed=seed, made_of=made_of)


def write_results(
    out: Path, results: Sequence[SystemResult], *, seed: int, made_of: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Write ``runs/`` and ``results.json`` of these systems into ``out``, and return the latter's content."""
    content = collect(results, seed=seed)
    content |= {"diagnosis": diagnose({r.system: r.records for r in results}), "seed": seed, **(made_of or {})}
    write_trec(results, out / "runs")
    write_json(out / "results.json", content)
    return content


def finished_systems(
    run_dir: Path, tasks: Sequence[RankingTask], other_than: Iterable[str] = (), log: Log = print
) -> list[SystemResult]:
    """Return the systems that are finished in ``run_dir`` on the same tasks, without those named.

    ``log`` gets a line for each that is finished on other tasks. Raise UserError, by file and row, for a line that is none.
    """
    found, same, named = [], tasks_hash(tasks), set(other_than)
    for done in finished(run_dir):
        if done.system in named:
            continue
        if done.fingerprint.get("tasks_hash") != same:
            log(f"{done.system}: left out of the results, as it is finished in {run_dir} on other tasks")
            continue
        records = records_of(done.lines(), done.path, done.system)
        found.append(SystemResult.restored(done.system, records, done.summary))
    return found


def _name(system: System) -> str:
    return system if isinstance(system, str) else system.name


def evaluate_baselines(
    train_tasks: Sequence[RankingTask],
    tasks: Sequence[RankingTask],
    run_dir: Path,
    *,
    baselines: Iterable[AnyBaseline] = STANDARD,
    context: Context | None = None,
    seed: int = 0,
    log: Log = print,
) -> list[SystemResult]:
    """Fit and rank with each of ``baselines`` (names, or baselines made already), one after the other.

    A baseline leaves out the tasks that it does not apply to; one that cannot run here has a reason (``unavailable``) and no
    records. One that was completed in ``run_dir`` before, with the same data, seed and weights, is reused.
    """
    check_tasks(tasks)
    context = context or Context(seed)
    results = []
    for baseline in baselines:
        name, started = _name(baseline), time.monotonic()
        try:
            made = make_baselines([baseline], context)[0] if isinstance(baseline, str) else baseline
            if isinstance(made, PromptingBaseline):
                result = evaluate_model(made.system(), tasks, run_dir, seed=context.seed, log=log)
            else:
                result = _fit_and_rank(made, train_tasks, tasks, run_dir, context)
        except Unavailable as reason:
            elapsed_s = time.monotonic() - started
            result = SystemResult(name, (), elapsed_s, unavailable=str(reason), role=Role.BASELINE)
        release_gpu_memory(context.device)  # of its weights, for the next, and for the model's engine
        found = f"{len(result.records)}/{len(tasks)} tasks, {result.seconds:.0f} s"
        log(f"evaluate {name}: {found if result.unavailable is None else f'unavailable, {result.unavailable}'}")
        results.append(result)
    return results


def _fit_and_rank(
    baseline: Baseline,
    train_tasks: Sequence[RankingTask],
    tasks: Sequence[RankingTask],
    run_dir: Path,
    context: Context,
) -> SystemResult:
    """Return one baseline's result: what was completed before, or else what it does now."""
    name = baseline.name
    made_of = _made_of(name, context) | {"train_hash": tasks_hash(train_tasks), "tasks_hash": tasks_hash(tasks)}
    journal = Journal(of_system(run_dir, name), made_of)
    if journal.summary is not None:
        found = restored(journal, [(0, task) for task in tasks], name)
        return SystemResult.restored(name, found.values(), journal.summary)
    started = time.monotonic()
    baseline.fit(train_tasks)
    fitted = time.monotonic()
    rankings = baseline.rank(tasks)
    ended = time.monotonic()
    ranked = [(t, r) for t, r in zip(tasks, rankings, strict=True) if r is not None]
    values = measure([t for t, _ in ranked], [r for _, r in ranked])
    records = tuple(Record(t, tuple(r), v) for (t, r), v in zip(ranked, values, strict=True))
    elapsed_s = time.monotonic() - started
    result = SystemResult(name, records, elapsed_s, fitted - started, ended - fitted, role=Role.BASELINE)
    journal.finish([r.to_json() for r in records], result.summary())
    return result


def _made_of(name: str, context: Context) -> dict[str, Any]:
    """Return what a baseline's rankings depend on, besides the tasks."""
    weights = context.models.get(name)
    known = weights is not None and Path(weights).is_dir()
    return {
        "baseline": name,
        "version": __version__,
        "seed": context.seed,
        "model": weights,
        "model_hash": model_hash(Path(str(weights))) if known else None,
    }
