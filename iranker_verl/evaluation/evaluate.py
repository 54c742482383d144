"""Evaluation: play every test task to its end, measure the rankings, and put systems side by side.

    before = evaluate_model(base, tasks, template, system="before", run_dir=run)
    after = evaluate_model(trained, tasks, template, system="after", run_dir=run)
    rivals = evaluate_rivals(train_tasks, tasks, seed=0, run_dir=run)
    results = {**collect([before, after, *rivals], seed=0), …}

Every system's tasks are kept one by one in ``episodes-<system>.jsonl`` (see :meth:`Record.to_json`), so that a run can
be read again and its report drawn again without a model.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from iranker_verl.errors import UserError
from iranker_verl.evaluation.metrics import MEASURES, Values, measure, rank_of_best
from iranker_verl.evaluation.rivals import Context, Rival, make
from iranker_verl.evaluation.statistics import interval, paired_p
from iranker_verl.files import write_jsonl
from iranker_verl.inference.engine import ChatTokenizer, Engine, longest_context
from iranker_verl.inference.play import Episode, Progress, play
from iranker_verl.ranking import RankingTask, Step
from iranker_verl.ranking.direct import DirectStep
from iranker_verl.ranking.templates import Template, check_hash

MODEL_STAMP = "iranker.json"  # in a trained model's folder: {"template_id": …, "template_hash": …, …}
SYSTEMS = ("before", "after", "random", "popularity", "bm25")

Say = Callable[[str], None]


@dataclass(frozen=True)
class Record:
    """One task as one system ranked it. ``episode`` is None where no language model was asked."""

    task: RankingTask
    ranking: tuple[str, ...]
    values: Values
    episode: Episode | None = None

    def to_json(self) -> dict[str, Any]:
        """A line of ``episodes-<system>.jsonl``: the task, the ranking, the measures and, for a model, every step."""
        task, episode = self.task, self.episode
        line: dict[str, Any] = {
            "task_id": task.id,
            "dataset": task.dataset,
            "scenario": task.scenario,
            "context": task.context,
            "candidates": [asdict(c) for c in task.candidates],
            "relevance": list(task.relevance),
            "ranking": list(self.ranking),
            "rank_of_best": rank_of_best(task, self.ranking),
            **self.values,
        }
        if episode is not None:
            line |= {
                "steps": [_step(step) for step in episode.steps],
                "calls": episode.calls,
                "malformed": episode.malformed,
                "prompt_tokens": episode.prompt_tokens,
                "new_tokens": episode.new_tokens,
                "seconds": round(episode.seconds, 4),
            }
        return line


def _step(step: Step | DirectStep) -> dict[str, Any]:
    said = {"named": list(step.named)} if isinstance(step, DirectStep) else {"excluded": step.excluded}
    return said | {"status": step.status, "response": step.response}


@dataclass(frozen=True)
class SystemResult:
    """A system's records, in the order of the tasks that it applies to, and how long it took, loading included."""

    system: str
    records: tuple[Record, ...]
    seconds: float


def check_model_template(model: Path, template: Template) -> None:
    """UserError, with both hashes, where a model folder says that it was trained with another template."""
    stamp = model / MODEL_STAMP
    if not stamp.is_file():
        return  # an untrained model: any template may be tried on it
    try:
        content = json.loads(stamp.read_text(encoding="utf-8"))
        id, hash = content["template_id"], content["template_hash"]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{stamp}: it has to hold template_id and template_hash ({type(error).__name__}: {error})"
        ) from error
    check_hash(template, id, hash, str(model))


def needed_length(model: Path, tasks: Sequence[RankingTask], template: Template, max_new_tokens: int) -> int:
    """Tokens that the longest prompt and its answer need: an episode's first prompt is its longest.

    UserError names the task that does not fit in the model.
    """
    tokenizer, admitted = ChatTokenizer(model), longest_context(model)
    longest = 0
    for task in tasks:
        length = len(tokenizer.encode(template.messages(template.start(task)))) + max_new_tokens
        if admitted is not None and length > admitted:
            raise UserError(
                f"task {task.id!r} of {task.dataset!r}: its prompt and answer need {length} tokens, "
                f"but the model {model} admits {admitted}"
            )
        longest = max(longest, length)
    return longest


def evaluate_model(
    model: Path,
    tasks: Sequence[RankingTask],
    template: Template,
    *,
    system: str,
    run_dir: Path | None = None,
    max_new_tokens: int = 16,
    concurrency: int = 64,
    seed: int = 0,
    say: Say = print,
    say_every_s: float = 5.0,
) -> SystemResult:
    """Play all tasks with a model folder on vLLM, at temperature 0; nothing of vLLM is left when this returns.

    ``say`` gets a line every ``say_every_s`` seconds. With ``run_dir``, ``episodes-<system>.jsonl`` is written.
    """
    _check_tasks(tasks)
    check_model_template(model, template)
    length = needed_length(model, tasks, template, max_new_tokens)
    started = time.monotonic()
    engine = Engine(model, max_model_len=length, max_num_seqs=concurrency, seed=seed)

    async def run() -> list[Episode]:
        async with _open(engine, tell, say_every_s):
            return await play(
                tasks,
                template,
                engine,
                max_new_tokens=max_new_tokens,
                concurrency=concurrency,
                on_progress=lambda progress: tell(_line(progress)),
                progress_every_s=say_every_s,
            )

    def tell(text: str) -> None:
        say(f"evaluate {system}: {text}")

    episodes = asyncio.run(run())
    values = measure(tasks, [e.ranking for e in episodes])
    records = tuple(Record(t, e.ranking, v, e) for t, e, v in zip(tasks, episodes, values, strict=True))
    return _saved(SystemResult(system, records, time.monotonic() - started), run_dir)


@asynccontextmanager
async def _open(engine: Engine, tell: Say, every_s: float) -> AsyncIterator[None]:
    """The engine, opened with a sign of life every ``every_s`` seconds: loading takes tens of seconds."""
    started = time.monotonic()

    async def beat() -> None:
        while True:
            tell(f"vLLM loads {engine.model.name} ({time.monotonic() - started:.0f} s)")
            await asyncio.sleep(every_s)

    heart = asyncio.create_task(beat())
    try:
        async with engine:
            heart.cancel()
            yield
    finally:
        heart.cancel()


def _line(p: Progress) -> str:
    rate = p.calls / max(p.seconds, 1e-9)
    return f"{p.done}/{p.total} tasks, {p.calls} calls ({rate:.0f}/s), {p.malformed} malformed, {p.seconds:.0f} s"


def evaluate_rivals(
    train_tasks: Sequence[RankingTask],
    tasks: Sequence[RankingTask],
    *,
    seed: int = 0,
    run_dir: Path | None = None,
    rivals: Sequence[Rival] | None = None,
    say: Say = print,
) -> list[SystemResult]:
    """Rank all tasks without a language model. A rival leaves out the tasks that it does not apply to."""
    _check_tasks(tasks)
    results = []
    for rival in make(context=Context(seed)) if rivals is None else rivals:
        started = time.monotonic()
        rival.fit(train_tasks)
        rankings = zip(tasks, rival.rank(tasks), strict=True)
        ranked = [(task, ranking) for task, ranking in rankings if ranking is not None]
        values = measure([t for t, _ in ranked], [r for _, r in ranked])
        records = tuple(Record(t, tuple(r), v) for (t, r), v in zip(ranked, values, strict=True))
        result = SystemResult(rival.name, records, time.monotonic() - started)
        say(f"evaluate {rival.name}: {len(records)}/{len(tasks)} tasks, {result.seconds:.0f} s")
        results.append(_saved(result, run_dir))
    return results


def collect(results: Iterable[SystemResult], *, seed: int = 0) -> dict[str, Any]:
    """``datasets``, ``macro`` and ``paired_p`` of ``results.json``; its keys are listed in :mod:`.report`.

    ``paired_p`` is None unless ``before`` and ``after`` are both there, over the same tasks.
    """
    by_system = {r.system: _by_dataset(r.records) for r in results if r.records}
    datasets: dict[str, dict[str, Any]] = {}
    macro: dict[str, Any] = {}
    for system, parts in by_system.items():
        for dataset, records in parts.items():
            datasets.setdefault(dataset, {})[system] = _numbers({dataset: records}, seed)
        macro[system] = {**_numbers(parts, seed), "n_datasets": len(parts)}
    p = None
    if "before" in by_system and "after" in by_system:
        before, after = by_system["before"], by_system["after"]
        if {d: [r.task.id for r in rs] for d, rs in before.items()} != {
            d: [r.task.id for r in rs] for d, rs in after.items()
        }:
            raise ValueError("`before` and `after` did not rank the same tasks in the same order")
        p = paired_p(_values(before, "rr"), _values(after, "rr"), seed=seed)
    return {"datasets": datasets, "macro": macro, "paired_p": p}


def _numbers(parts: dict[str, list[Record]], seed: int) -> dict[str, Any]:
    """The numbers of one system over some datasets, each weighing the same."""
    low, high = interval(_values(parts, "rr"), seed=seed)
    numbers: dict[str, Any] = {name: fmean(fmean(v) for v in _values(parts, name).values()) for name in MEASURES}
    numbers |= {"n": sum(len(records) for records in parts.values()), "ci95": [low, high]}
    episodes = {d: [r.episode for r in records if r.episode is not None] for d, records in parts.items()}
    if not all(episodes.values()):
        return numbers | dict.fromkeys(
            ("malformed_rate", "calls_per_task", "prompt_tokens_per_task", "new_tokens_per_task")
        )
    return numbers | {
        "malformed_rate": fmean(sum(e.malformed for e in es) / sum(e.calls for e in es) for es in episodes.values()),
        "calls_per_task": fmean(fmean(e.calls for e in es) for es in episodes.values()),
        "prompt_tokens_per_task": fmean(fmean(e.prompt_tokens for e in es) for es in episodes.values()),
        "new_tokens_per_task": fmean(fmean(e.new_tokens for e in es) for es in episodes.values()),
    }


def _by_dataset(records: Iterable[Record]) -> dict[str, list[Record]]:
    parts: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        parts[record.task.dataset].append(record)
    return dict(parts)


def _values(parts: dict[str, list[Record]], name: str) -> dict[str, list[float]]:
    return {dataset: [r.values[name] for r in records] for dataset, records in parts.items()}


def _check_tasks(tasks: Sequence[RankingTask]) -> None:
    if not tasks:
        raise UserError("there is no task to evaluate")


def _saved(result: SystemResult, run_dir: Path | None) -> SystemResult:
    if run_dir is not None:
        run_dir.mkdir(parents=True, exist_ok=True)
        write_jsonl(run_dir / f"episodes-{result.system}.jsonl", [r.to_json() for r in result.records])
    return result
