"""Compare algorithms for elimination at equal LLM tokens: ``make bench-learning``.

Every algorithm and seed is a run of its own of a tiny recipe (world, base, RL, evaluation), kept in
``runs/learning/<algorithm>-<seed>``; completed runs are reused, interrupted ones resumed. Runs of a seed share the world and the
base that the default made of it; DRanker, whose responses have another form, makes its own. RL ends when the LLM has read and
written ``--tokens`` tokens in training; every ``EVERY``-th part of that, the policy ranks a sample of the test tasks (greedily),
which gives the curves. Settings are those of the recipes, but for batches.

Writes ``runs/learning/learning.json`` and ``learning.svg``, and prints a table: macro MRR before and after; the difference to
the default, and to the default with less than half the tokens, with a paired sign-flip test over the tasks of all seeds
(Holm-corrected); tokens and seconds of RL; and how many tokens the default needed to reach each baseline's last value.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from itertools import accumulate
from pathlib import Path
from statistics import fmean
from typing import Any

from iranker_verl.errors import UserError
from iranker_verl.evaluation.statistics import comparisons
from iranker_verl.files import mark, write_json
from iranker_verl.job.pipeline import train
from iranker_verl.training.metrics_log import read_metrics

RECIPES = Path("recipes/tiny_cpu")
DEFAULT = "exclusion_order"
# The default again, ended at about half of --tokens: what do the others reach with twice as many? A run ends with the step that
# passes its budget, so that is set lower.
HALF, HALF_SHARE = "half the tokens", 0.45
# Batches are chosen so that a step costs each about as many tokens (an episode of six candidates is three to four rows). Each
# takes eight optimiser steps of it; the default, whose answers do not go stale, three times eight.
ONCE = ("actor_rollout_ref.actor.ppo_epochs=1",)
STATES = ("data.train_batch_size=384", "actor_rollout_ref.actor.ppo_mini_batch_size=48")
ALGORITHMS: dict[str, tuple[str, tuple[str, ...]]] = {
    DEFAULT: ("tiny_cpu", ()),
    HALF: ("tiny_cpu", ()),
    "exclusion_expected": ("tiny_cpu", ("algorithm.adv_estimator=exclusion_expected",)),
    "exclusion_grpo": ("tiny_cpu", ("algorithm.adv_estimator=exclusion_grpo", *ONCE)),
    "ppo on states": ("states_ppo", STATES),
    "ppo three times": ("states_ppo", (*STATES, "actor_rollout_ref.actor.ppo_epochs=3")),
    "dranker": ("dranker", ("data.train_batch_size=320", "actor_rollout_ref.actor.ppo_mini_batch_size=40")),
    "grpo": (
        "tiny_cpu",
        (
            *ONCE,
            "+reward.custom_reward_function.reward_kwargs.kind=rr",  # the sum over a session is its reciprocal rank
            "iranker.credit.session_reward=sum",
            "algorithm.adv_estimator=grpo",  # compares the rollouts of a task, so each has four, and there are fewer tasks
            "data.train_batch_size=32",
            "actor_rollout_ref.actor.ppo_mini_batch_size=4",
            "actor_rollout_ref.rollout.n=4",
        ),
    ),
    "exclusion_gae": ("gae", ("+reward.custom_reward_function.reward_kwargs.kind=rr",)),
    "no curriculum": ("tiny_cpu", ("iranker.curriculum.first_pool=null",)),
}
LABELS = {
    HALF: "exclusion_order, half as long",
    "ppo on states": "PPO on states (published)",
    "ppo three times": "the same, each batch three times",
    "grpo": "GRPO, broadcast",
    "dranker": "DRanker",
    "no curriculum": "exclusion_order, full pools",
}
OWN_BASE = (DEFAULT, "dranker")
TOKENS = 640_000
EVERY = 4
STEP_TOKENS = 35_000  # about what a step costs, to say how often to validate


def settings(algorithm: str, seed: int, tokens: int, root: Path) -> tuple[Path, list[str]]:
    """Return the recipe and its overrides. Raise SystemExit before the default has made the base to share."""
    recipe, own = ALGORITHMS[algorithm]
    run = folder(algorithm, seed, root)
    if algorithm == HALF:
        tokens = round(HALF_SHARE * tokens)
    often = max(1, tokens // STEP_TOKENS // EVERY)
    shared = [
        f"iranker.seed={seed}",
        f"iranker.run_dir={run}",
        f"iranker.token_budget={tokens}",
        "trainer.total_training_steps=1000",  # never reached: the tokens end it
        f"trainer.test_freq={often}",
        "data.val_max_samples=225",
    ]
    if algorithm not in OWN_BASE:
        made = folder(DEFAULT, seed, root) / "base.json"
        if not made.is_file():
            raise SystemExit(
                f"error: {made} is not there: {algorithm!r} starts from the base of {DEFAULT!r}; run that first"
            )
        base = json.loads(made.read_text(encoding="utf-8"))["path"]
        shared += ["iranker.base.make=null", f"actor_rollout_ref.model.path={base}"]
    return RECIPES / f"{recipe}.yaml", [*shared, *own]


def folder(algorithm: str, seed: int, root: Path) -> Path:
    """Return the folder of a run."""
    return root / f"{algorithm.replace(' ', '-')}-{seed}"


def curve(run: Path) -> list[dict[str, float]]:
    """Return ``tokens``, ``seconds`` and greedy ``rr`` (macro, a sample of the test tasks) of the validated steps."""
    lines = read_metrics(run / "metrics.jsonl")
    tokens = accumulate(line["tokens/step"] for line in lines)
    seconds = accumulate(line["time/step"] for line in lines)
    points = []
    for line, spent, passed in zip(lines, tokens, seconds, strict=True):
        if "val/mrr" in line:
            points.append({"step": line["step"], "tokens": spent, "seconds": passed, "rr": line["val/mrr"]})
    return points


def summary(run: Path) -> dict[str, Any]:
    """Return the numbers of one run."""
    results = json.loads((run / "results.json").read_text(encoding="utf-8"))
    macro, lines = results["macro"], read_metrics(run / "metrics.jsonl")
    return {
        "before": macro["before"]["rr"],
        "after": macro["after"]["rr"],
        "bm25": macro["bm25"]["rr"],
        "datasets": {name: systems["after"]["rr"] for name, systems in results["datasets"].items()},
        "malformed": macro["after"]["malformed_rate"],
        "tokens": sum(line["tokens/step"] for line in lines),
        "rl_steps": len(lines),
        "rl_seconds": sum(line["time/step"] for line in lines),
        "seconds": results["time_s"]["total"],
        "data_hash": results["data_hash"],
        "curve": curve(run),
    }


def values(runs: dict[int, Path]) -> dict[str, dict[str, float]]:
    """Return reciprocal ranks after training, by dataset and task; a task of another seed's world is another task."""
    found: dict[str, dict[str, float]] = defaultdict(dict)
    for seed, run in runs.items():
        for text in (run / "episodes-after.jsonl").read_text(encoding="utf-8").splitlines():
            line = json.loads(text)
            found[line["dataset"]][f"{line['task_id']}/{seed}"] = line["rr"]
    return found


def tokens_to_reach(points: list[dict[str, float]], rr: float) -> float | None:
    """Return the tokens at which a curve first reaches ``rr``, linear between its points; None where it never does."""
    before = None
    for point in points:
        if point["rr"] >= rr:
            if before is None:
                return point["tokens"]
            share = (rr - before["rr"]) / (point["rr"] - before["rr"])
            return before["tokens"] + share * (point["tokens"] - before["tokens"])
        before = point
    return None


def draw(results: dict[str, dict[int, dict[str, Any]]], path: Path) -> None:
    """Draw learning curves against tokens and minutes of RL: a thin line a seed, a thick one for their mean."""
    import numpy as np
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4.2), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    for ax, (key, unit, name) in zip(
        axes, (("tokens", 1e6, "million LLM tokens"), ("seconds", 60, "minutes of RL")), strict=True
    ):
        for number, (algorithm, seeds) in enumerate(results.items()):
            curves = []
            for run in seeds.values():
                points = [{key: 0, "rr": run["before"]}, *run["curve"]]
                curves.append(([p[key] / unit for p in points], [p["rr"] for p in points]))
                ax.plot(*curves[-1], f"C{number}", lw=0.8, alpha=0.3)
            grid = np.linspace(0, min(x[-1] for x, _ in curves), 60)
            mean = np.mean([np.interp(grid, x, y) for x, y in curves], axis=0)
            ax.plot(grid, mean, f"C{number}", lw=2, label=LABELS.get(algorithm, algorithm))
        ax.set(xlabel=name, ylim=(0.2, 1))
        ax.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel("macro MRR, greedy")
    axes[1].legend(frameon=False, fontsize=8, loc="lower right")
    figure.savefig(path)


def report(root: Path, seeds: list[int], tokens: int) -> None:
    """Read the completed runs, write the files and print the table.

    Means are over the completed seeds of an algorithm, which its line names; a test is over the tasks of the seeds that both
    have completed.
    """
    done = {
        algorithm: {s: run for s in seeds if ((run := folder(algorithm, s, root)) / "results.json").is_file()}
        for algorithm in ALGORITHMS
    }
    ran = {algorithm: runs for algorithm, runs in done.items() if runs}
    results = {algorithm: {s: summary(run) for s, run in runs.items()} for algorithm, runs in ran.items()}
    ranks = {a: values(runs) for a, runs in ran.items()}
    tests = [t for ours in (DEFAULT, HALF) if ours in ranks for t in comparisons(ranks, ours, seed=0)]
    mark(root)
    write_json(root / "learning.json", {"token_budget": tokens, "runs": results, "comparisons": tests})
    draw(results, root / "learning.svg")
    for algorithm, by_seed in results.items():
        runs = list(by_seed.values())
        ends = ", ".join(f"{run['after']:.3f}" for run in runs)
        seeds_done = ", ".join(map(str, by_seed))
        line = (
            f"{LABELS.get(algorithm, algorithm):28} seeds {seeds_done}  MRR {fmean(r['before'] for r in runs):.3f} -> "
        )
        line += f"{fmean(r['after'] for r in runs):.3f} ({ends})  malformed "
        line += f"{fmean(r['malformed'] for r in runs):.1%}  {fmean(r['tokens'] for r in runs) / 1e6:.2f}M tokens  "
        line += f"{fmean(r['rl_seconds'] for r in runs) / 60:.1f} min"
        for test in tests:
            if test["system"] == algorithm and test["dataset"] == "macro":
                low, high = test["ci95"]
                name = LABELS.get(test["against"], test["against"])
                line += f"\n    to {name}: {test['difference']:+.3f} ({low:+.3f} to {high:+.3f}) p {test['p_holm']:.4f}"
        if algorithm not in (DEFAULT, HALF) and DEFAULT in results:
            reached = [
                tokens_to_reach(results[DEFAULT][s]["curve"], run["curve"][-1]["rr"])
                for s, run in by_seed.items()
                if s in results[DEFAULT] and run["curve"]
            ]
            line += "\n    last point reached by the default at " + ", ".join(
                f"{t / 1e6:.2f}M" if t else "never" for t in reached
            )
        print(line, flush=True)


def main() -> None:
    """Run what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--algorithms", nargs="+", default=list(ALGORITHMS), choices=list(ALGORITHMS))
    parser.add_argument("--tokens", type=int, default=TOKENS, help="training tokens of each run")
    parser.add_argument("--root", type=Path, default=Path("runs/learning"))
    parser.add_argument("--report", action="store_true", help="only read the finished runs again")
    arguments, overrides = parser.parse_known_args()
    for seed in [] if arguments.report else arguments.seeds:
        # the default first: the others start from its base
        for algorithm in sorted(arguments.algorithms, key=lambda name: name != DEFAULT):
            recipe, own = settings(algorithm, seed, arguments.tokens, arguments.root)
            try:
                train(str(recipe), [*own, *overrides])
            except UserError as error:
                raise SystemExit(f"error: {error}") from None
            report(arguments.root, arguments.seeds, arguments.tokens)
    report(arguments.root, arguments.seeds, arguments.tokens)


if __name__ == "__main__":
    main()
