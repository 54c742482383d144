"""Compare what a policy is taught from one base, by reinforcement learning and by supervision, over seeds.

``python -m benchmarks.learning_objectives --root runs/objectives``

A seed draws its own world, base and runs. Its training tasks are split in three: those that the base and every row learn from, those
that the base watches itself on, and *development* tasks, of which the learning rate and the curves are. Test tasks are asked once, when
all runs are there. Every row (:data:`ROWS`) starts from the seed's base and draws tasks, schedules and shuffles from the seed alone, so
rows are paired. With ``--lr`` the learning rate of a row is the best of several on the development tasks of the first seed, by the mean
of MRR in N - 1 calls and in one over the last ``LAST`` points of the curve; those of :data:`ROWS` were so chosen of 1e-4, 3e-4, 1e-3 and
3e-3.

Two budgets, both passed by every run, and weights are kept at each: ``--tokens``, those of the prompts that were read (rows that
sample nothing use each of them in ``EPOCHS`` epochs, as the recipe does, and GRPO in one), and ``--seconds`` of the process's CPU time on
one thread, rollouts included and evaluations not.

``ROOT/results.jsonl`` has a line for each run and for each test, written when it ends; the same command resumes there.
``ROOT/table.md`` has means and intervals over seeds, and paired t tests against the first row, Holm over its tests.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from scipy import stats

from benchmarks.plain_loop import TEMPLATE, Call, Policy, evaluate, first_of_each, paid, update, worked
from data_prep.options import Options
from data_prep.prepare import prepare
from data_prep.schema import read_tasks
from data_prep.world import write_world
from iranker_verl.evaluation.statistics import holm
from iranker_verl.files import mark, write_jsonl, write_text
from iranker_verl.job.stages import WORLD_CANDIDATES, WORLD_HISTORY, WORLD_TEST_FRACTION
from iranker_verl.ranking import RankingTask, by_dataset
from iranker_verl.ranking.elimination import Share
from iranker_verl.toy.base import BaseConfig, Stage, hold_out, make_base
from iranker_verl.training.curriculum import Curriculum, shortened

TASKS, STEPS, EPOCHS = 64, 4, 3  # of a batch: episodes, optimiser steps an epoch, epochs; half of the recipe's batch
HELD = 40  # development tasks of a dataset, of which each point of the curve has WATCHED
WATCHED, POINTS, LAST = 6, 4, 2
TESTED = 25  # test tasks of a dataset, at most
COLUMNS = {"each": "N - 1 calls", "few": "<= .35 (N - 1)", "once": "one call"}
CURRICULUM: dict[str, Any] = {"first_pool": 2, "rise": 0.25, "fall": 0.05, "patience": 128, "focus": 0.75}
# Smaller than the base of recipes/tiny_cpu and its steps too, so that one takes minutes of one thread.
BASE = BaseConfig(
    hidden=96,
    layers=3,
    heads=3,
    kv_heads=3,
    feed_forward=192,
    rows=24,
    tokens=4500,
    stages=(
        Stage("language", 30, (("language", 1.0),)),
        Stage("pairs", 1500, (("language", 0.1), ("best", 0.9)), largest=2, until=1.0),
        Stage("lists", 1500, (("language", 0.05), ("best", 0.95)), until=0.75),
        Stage("format", 300, (("language", 0.05), ("best", 0.45), ("exclusion", 0.5))),
    ),
)


@dataclass(frozen=True)
class Row:
    """A way to learn. ``one_call`` is the share of episodes that end with their first call; the others exclude one a call."""

    objective: str
    lr: float = 3e-4
    one_call: float = 0.0
    epochs: int = EPOCHS
    rollouts: int = 1
    supervised: bool = False


ROWS = {
    "order": Row("order"),
    "order, half in one call": Row("order", one_call=0.5),
    "expected": Row("expected"),
    "grpo": Row("grpo", epochs=1, rollouts=4),
    "best label": Row("best", one_call=0.5, supervised=True),
    "worked exclusions": Row("worked", lr=1e-3, supervised=True),
}


@dataclass(frozen=True)
class Seed:
    """The base of a seed, and tasks of its world."""

    base: Path
    training: list[RankingTask]
    development: list[RankingTask]
    test: list[RankingTask]


def make_seed(root: Path, seed: int) -> Seed:
    """Return a seed's base and tasks; make what is not there."""
    folder = root / str(seed)
    if not (folder / "data").exists():
        write_world(folder / "raw", seed)
        options = Options(
            history=WORLD_HISTORY, candidates=WORLD_CANDIDATES, test_fraction=WORLD_TEST_FRACTION, seed=seed
        )
        prepare(folder / "raw", folder / "data", TEMPLATE, options, None, print)
    known, development = hold_out(read_tasks(folder / "data" / "train.parquet", TEMPLATE), HELD, seed)
    base = make_base(known, TEMPLATE, folder / "base", seed, BASE)["path"]
    training, _ = hold_out(known, BASE.validation, seed)
    return Seed(Path(base), training, development, read_tasks(folder / "data" / "test.parquet", TEMPLATE))


def batches(row: Row, policy: Policy, tasks: Sequence[RankingTask], seed: int) -> Iterator[list[Call]]:
    """Yield batches for ever. What is drawn depends on the seed, and by the curriculum on how well the policy does."""
    sizes: dict[str, dict[int, int]] = defaultdict(dict)
    for index, task in enumerate(tasks):
        sizes[task.dataset][index] = len(task.candidates)
    curriculum, step = Curriculum(sizes, seed=seed, **CURRICULUM), 0
    while True:
        rng = random.Random(f"{seed}:{step}:batch")
        chosen = [tasks[index] for index in curriculum.draw(TASKS // row.rollouts)]
        schedules: list[int | Share] = ["all" if rng.random() < row.one_call else 1 for _ in chosen]
        if row.supervised:  # worked answers need no curriculum
            yield worked(policy, chosen, schedules, rng)
        else:
            short = [shortened(t, curriculum.size[t.dataset], f"{seed}:{step}") for t in chosen]
            episodes = [each for each in zip(short, schedules, strict=True) for _ in range(row.rollouts)]
            begun, leave = [task for task, _ in episodes], [each for _, each in episodes]
            rr, calls = policy.episodes(begun, leave, greedy=False)
            observe(curriculum, begun, rr)
            yield paid(calls, rr, row.rollouts) if row.rollouts > 1 else calls
        step += 1


def observe(curriculum: Curriculum, tasks: Sequence[RankingTask], rr: Sequence[float]) -> None:
    """Tell the curriculum of a batch of sampled episodes."""
    metrics: dict[str, float] = {}
    for name, own in by_dataset(tasks).items():
        metrics[f"episode/rr/{name}"] = fmean(
            value for task, value in zip(tasks, rr, strict=True) if task.dataset == name
        )
        metrics[f"episode/tasks/{name}"] = len(own)
        metrics[f"episode/candidates/{name}"] = fmean(len(t.candidates) for t in own)
    curriculum.observe(metrics)


def train(made: Seed, seed: int, name: str, lr: float, budgets: dict[str, float], out: Path) -> dict[str, Any]:
    """Train until both budgets are passed, keep the weights at each in ``out``, and return the curve on development tasks."""
    torch.manual_seed(seed)
    row, policy = ROWS[name], Policy(made.base)
    watched = first_of_each(made.development, WATCHED)
    optimizer = torch.optim.AdamW(policy.model.parameters(), lr=lr, weight_decay=0.0)
    spent = {"tokens": 0.0, "seconds": 0.0}
    curve: list[dict[str, float]] = []
    kept: dict[str, dict[str, float]] = {}
    source = batches(row, policy, made.training, seed)
    rng, steps = random.Random(f"{seed}:shuffle"), 0
    while len(kept) < len(budgets):
        begun = time.process_time()
        calls = next(source)
        update(policy, optimizer, calls, row.objective, row.epochs, STEPS, rng)
        spent["tokens"] += sum(len(c.ids) + 2 for c in calls)
        spent["seconds"] += time.process_time() - begun
        steps += 1
        if POINTS * spent["seconds"] >= budgets["seconds"] * (len(curve) + 1) and len(curve) < POINTS:
            curve.append({**spent, **evaluate(policy, watched)})
        for budget, most in budgets.items():
            if budget not in kept and spent[budget] >= most:
                kept[budget] = {**spent, "steps": steps}
                policy.model.save_pretrained(out / budget)
    return {"curve": curve, "spent": kept}


def level(run: dict[str, Any]) -> float:
    """Return what learning rates are compared by: see the module."""
    return fmean((point["each"] + point["once"]) / 2 for point in run["curve"][-LAST:])


class Results:
    """The lines of ``ROOT/results.jsonl``, by what each is of."""

    def __init__(self, root: Path) -> None:
        """Read what is there."""
        self.path = root / "results.jsonl"
        self.lines: list[dict[str, Any]] = []
        if self.path.is_file():
            self.lines = [json.loads(line) for line in self.path.read_text(encoding="utf-8").splitlines()]

    def find(self, **what: Any) -> dict[str, Any] | None:
        """Return the line that is of ``what``, if there is one."""
        return next((line for line in self.lines if all(line.get(name) == value for name, value in what.items())), None)

    def add(self, what: dict[str, Any], found: dict[str, Any]) -> dict[str, Any]:
        """Add a line and write all, so that a reader, or a resumed run, sees whole lines only."""
        self.lines.append(what | found)
        write_jsonl(self.path, self.lines)
        print(json.dumps(self.lines[-1]), flush=True)
        return self.lines[-1]


def run_all(
    root: Path, seeds: Sequence[int], rows: Sequence[str], rates: Sequence[float], budgets: dict[str, float]
) -> list[dict[str, Any]]:
    """Run what is not there yet, tests last; return the lines of the tests."""
    results = Results(root)

    def run(seed: int, name: str, lr: float) -> dict[str, Any]:
        what = {"kind": "run", "seed": seed, "row": name, "lr": lr, "budgets": budgets}
        out = root / str(seed) / f"{name.replace(' ', '-')}-{lr}"
        return results.find(**what) or results.add(what, train(make_seed(root, seed), seed, name, lr, budgets, out))

    chosen = {name: max(rates or [ROWS[name].lr], key=lambda lr: level(run(seeds[0], name, lr))) for name in rows}
    cells = [(seed, name, chosen[name]) for seed in seeds for name in rows]
    for cell in cells:
        run(*cell)
    tests = []
    for seed, name, lr in [*((seed, "base", 0.0) for seed in seeds), *cells]:
        for budget in budgets if name != "base" else ("none",):
            what = {"kind": "test", "seed": seed, "row": name, "lr": lr, "budgets": budgets, "at": budget}
            line = results.find(**what)
            if line is None:
                made = make_seed(root, seed)
                kept = root / str(seed) / f"{name.replace(' ', '-')}-{lr}" / budget
                policy = Policy(made.base, None if name == "base" else kept)
                line = results.add(what, evaluate(policy, first_of_each(made.test, TESTED)))
            tests.append(line)
    write_text(root / "table.md", table(tests, [line for line in results.lines if line["kind"] == "run"], rows))
    return tests


def over_seeds(values: Sequence[float]) -> tuple[float, float, float]:
    """Return the mean, half of its 95 % interval (Student's t), and the two-sided p of a mean of 0; all need two values.

    >>> [round(x, 4) for x in over_seeds([0.1, 0.2, 0.3])]  # t = .2 / (.1 / sqrt 3) = 3.464 with 2 degrees of freedom
    [0.2, 0.2484, 0.0742]
    """
    found = stats.ttest_1samp(values, 0.0)
    return fmean(values), float(found.confidence_interval().high) - fmean(values), float(found.pvalue)


def table(tests: Sequence[dict[str, Any]], runs: Sequence[dict[str, Any]], rows: Sequence[str]) -> str:
    """Return, in Markdown, test MRR by row, budget and column, with differences to the first row; and what the curves say."""
    value = {(t["at"], t["row"], t["seed"], column): t[column] for t in tests for column in COLUMNS}
    seeds = sorted({t["seed"] for t in tests})
    rates = {t["row"]: t["lr"] for t in tests}

    def of(at: str, row: str, column: str) -> list[float]:
        return [value[at, row, seed, column] for seed in seeds]

    budgets = sorted({t["at"] for t in tests} - {"none"})
    compared = [(at, row, column) for at in budgets for row in rows[1:] for column in COLUMNS]
    found = {
        (at, row, column): over_seeds(
            [a - b for a, b in zip(of(at, row, column), of(at, rows[0], column), strict=True)]
        )
        for at, row, column in compared
    }
    corrected = dict(zip(compared, holm([found[each][2] for each in compared]), strict=True))
    base = ", ".join(f"{name} {fmean(of('none', 'base', column)):.3f}" for column, name in COLUMNS.items())
    lines = [f"Seeds {', '.join(map(str, seeds))}. Base: {base}."]
    for at in budgets:
        lines += [
            "",
            f"Equal {at}: mean (worst seed); difference to {rows[0]} ± half of the 95 % interval, p (Holm)",
            "",
        ]
        lines += [f"| | lr | {' | '.join(COLUMNS.values())} |", "|---|---|" + "---|" * len(COLUMNS)]
        for row in rows:
            cells = []
            for column in COLUMNS:
                own = of(at, row, column)
                cell = f"{fmean(own):.3f} ({min(own):.3f})"
                if (at, row, column) in found:
                    mean, half, _ = found[at, row, column]
                    cell += f"; {mean:+.3f} ± {half:.3f}, {corrected[at, row, column]:.2g}"
                cells.append(cell)
            lines.append(f"| {row} | {rates[row]:g} | {' | '.join(cells)} |")
    lines += [
        "",
        f"Development tasks: mean over seeds at each point, in N - 1 calls / one; mean of the last {LAST}",
        "",
    ]
    for row in rows if runs else ():
        mine = [run for run in runs if run["row"] == row and run["lr"] == rates[row]]
        points = zip(*(run["curve"] for run in mine), strict=False)
        shown = [f"{fmean(p['each'] for p in at):.3f}/{fmean(p['once'] for p in at):.3f}" for at in points]
        last = [fmean(p[c] for run in mine for p in run["curve"][-LAST:]) for c in ("each", "once")]
        spent = {at: fmean(run["spent"]["seconds"][at] for run in mine) for at in ("tokens", "steps")}
        lines.append(
            f"- {row}: {', '.join(shown)}; {last[0]:.3f}/{last[1]:.3f}; at the seconds' end {spent['tokens']:,.0f} tokens, "
            f"{spent['steps']:.0f} batches"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run the comparison of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, default=Path("runs/objectives"))
    parser.add_argument("--seed", type=int, nargs="+", default=[1, 2, 3, 4, 5])
    parser.add_argument("--row", nargs="+", default=list(ROWS), choices=list(ROWS))
    parser.add_argument("--lr", type=float, nargs="+", default=[])
    parser.add_argument("--tokens", type=int, default=80_000)
    parser.add_argument("--seconds", type=int, default=20)
    given = parser.parse_args()
    torch.set_num_threads(1)
    given.root.mkdir(parents=True, exist_ok=True)
    mark(given.root)
    run_all(given.root, given.seed, given.row, given.lr, {"tokens": given.tokens, "seconds": given.seconds})
    print((given.root / "table.md").read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
