"""What a run does when a part of it dies (``make bench-cluster``): each fault once, on the tiny recipe, and how the run took it.

    python -m benchmarks.cluster_faults [--only "vllm server,sigterm"] [--asynchronous] [--out FOLDER]

Data and base are made once; each fault has a copy of that run, is injected when the first checkpoint is there, and the run is watched until
its training is done or it has ended. A fault in which the run ends is followed by the same command, as a user would give it. Printed are,
for each fault: whether the run healed, restarted itself or ended; the seconds until it took its next step or ended; the steps that were
taken again; and its last words. A minute or two each.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console
from rich.table import Table

from iranker_verl.training.metrics_log import read_metrics

LIMIT_S = 420.0
RECIPE = Path(__file__).parents[1] / "recipes" / "tiny_cpu" / "smoke.yaml"
SETTINGS = (
    *("iranker.max_restarts=1", "iranker.base.effort=0.002", "iranker.data.tasks=[passage-5]"),
    *("iranker.data.options.max_train=40", "iranker.data.options.max_test=2"),
    *("trainer.total_training_steps=6", "trainer.save_freq=2", "trainer.v1.sampler.sampler_kwargs.deadline_s=120"),
)


# trainer_mode=colocate_async, which goes without a curriculum
ASYNCHRONOUS = """
defaults:
  - smoke
  - _self_
iranker:
  curriculum: {first_pool: null}
trainer:
  v1:
    trainer_mode: colocate_async
"""


class Run:
    """``iranker train`` in a folder, with its output in a file."""

    def __init__(self, folder: Path, recipe: Path) -> None:
        self.folder = folder
        command = [sys.executable, "-m", "iranker_verl.cli", "train", str(recipe), *SETTINGS]
        command += [f"iranker.run_dir={folder}", f"iranker.base.cache={folder.parent / 'cache'}"]
        self.log = folder.parent / f"{folder.name}.log"
        with self.log.open("ab") as file:
            self.process = psutil.Popen(command, stdout=file, stderr=file, start_new_session=True)

    def steps(self) -> list[int]:
        """Return the steps in ``metrics.jsonl``."""
        return [line["step"] for line in read_metrics(self.folder / "metrics.jsonl")]

    def done(self, stage: str) -> bool:
        """Return whether a stage is done."""
        path = self.folder / "stages" / f"{stage}.json"
        return path.is_file() and json.loads(path.read_text())["done"]

    def ended(self) -> bool:
        """Return whether the command has ended."""
        return self.process.poll() is not None

    def until(self, condition: Callable[[], bool]) -> bool:
        """Wait until a condition holds; return False where the command ends or takes too long before."""
        deadline = time.monotonic() + LIMIT_S
        while not condition():
            if self.ended() or time.monotonic() > deadline:
                return condition()
            time.sleep(0.2)
        return True

    def below(self, word: str) -> list[psutil.Process]:
        """Return the processes below the command with ``word`` in their command line."""
        found = []
        for process in self.process.children(recursive=True):
            try:
                if word in " ".join(process.cmdline()):
                    found.append(process)
            except psutil.Error:
                continue
        return found

    def end(self) -> None:
        """End the command and all below it."""
        if not self.ended():
            below = self.process.children(recursive=True)
            self.process.send_signal(signal.SIGINT)
            psutil.wait_procs([self.process, *below], timeout=30)
            for process in below:
                if process.is_running():
                    process.kill()

    def last_words(self) -> str:
        """Return the last line of its output."""
        lines = self.log.read_text(errors="replace").strip().splitlines()
        return lines[-1] if lines else ""


def kill(word: str) -> Callable[[Run], None]:
    """Return a fault: SIGKILL to a process with ``word`` in its command line."""

    def deal(run: Run) -> None:
        victims = run.below(word)
        if not victims:
            raise RuntimeError(f"no process with {word!r} is there to be killed")
        victims[-1].kill()

    return deal


def fill_disk(run: Run) -> None:
    """Leave no room where checkpoints are written: a small tmpfs is mounted there, and a file fills it."""
    space = shutil.disk_usage(run.folder / "checkpoints").free
    (run.folder / "checkpoints" / "fill").write_bytes(b"x" * max(0, space - (1 << 16)))


FAULTS: dict[str, Callable[[Run], None]] = {
    "agent-loop worker": kill("StepRewardWorker"),
    "vllm server": kill("vLLMHttpServer"),
    "vllm engine": kill("EngineCore"),
    "actor rank": kill("WorkerDict"),
    "trainer": kill("EliminationTaskRunner"),
    "driver": kill("iranker_verl.job.stages"),
    "iranker train": lambda run: run.process.kill(),
    "sigterm": lambda run: run.process.send_signal(signal.SIGTERM),
    "full disk": fill_disk,
    "truncated checkpoint": lambda run: run.process.kill(),
}


@dataclass(frozen=True)
class Outcome:
    """How a run took a fault."""

    fault: str
    how: str
    seconds: float
    again: int
    words: str


def tmpfs(folder: Path, size: str) -> bool:
    """Mount a small disk at ``folder``; return False where that is not allowed."""
    folder.mkdir(exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def truncate_newest(run: Path) -> None:
    """Cut the newest checkpoint's weights in half, as a node's crash may."""
    newest = max((run / "checkpoints").glob("global_step_*"), key=lambda path: int(path.name.rpartition("_")[2]))
    shard = next((newest / "actor").glob("model_*.pt"))
    os.truncate(shard, shard.stat().st_size // 2)


def measure(fault: str, folder: Path, recipe: Path) -> Outcome:
    """Deal one fault to a copy of the prepared run, and watch what becomes of it."""
    mounted = fault == "full disk" and tmpfs(folder / "checkpoints", "64m")
    if fault == "full disk" and not mounted:
        return Outcome(fault, "not measured: it needs the right to mount", 0, 0, "")
    run = Run(folder, recipe)
    again = None
    try:
        saved = folder / "checkpoints" / "latest_checkpointed_iteration.txt"
        if not run.until(lambda: saved.is_file() and bool(run.steps())):
            return Outcome(fault, "the run ended before the fault", 0, 0, run.last_words())
        before = max(run.steps())
        started = time.monotonic()
        FAULTS[fault](run)
        run.until(lambda: run.done("rl") or max(run.steps(), default=0) > before)
        seconds = time.monotonic() - started
        run.until(lambda: run.done("rl"))
        seconds = time.monotonic() - started if run.ended() and not run.done("rl") else seconds
        text = run.log.read_text(errors="replace")
        how = "restarted" if "restart 1 of" in text else "healed" if run.done("rl") else "ended"
        words = run.last_words()
        if how == "ended":
            if fault == "truncated checkpoint":
                truncate_newest(folder)
            (folder / "checkpoints" / "fill").unlink(missing_ok=True)
            before = max(run.steps(), default=0)
            again = Run(folder, recipe)
            how += ", resumed" if again.until(lambda: again.done("rl")) else ", not resumed"
            text = again.log.read_text(errors="replace")
        resumed = [
            int(line.split("step ")[1])
            for line in text.splitlines()
            if "continuing from the checkpoint of step" in line
        ]
        taken_again = max(0, before - resumed[-1]) if resumed else 0
        steps = run.steps()
        assert steps == sorted(set(steps)), f"{fault}: a step is in metrics.jsonl twice"
        return Outcome(fault, how, seconds, taken_again, words)
    finally:
        run.end()
        if again is not None:
            again.end()
        if mounted:
            subprocess.run(["umount", "-l", str(folder / "checkpoints")], check=False)


def asynchronous_recipe(out: Path) -> Path:
    """Write a recipe of the asynchronous trainer beside copies of those that it builds on, and return its path."""
    recipe = out / "recipes" / "asynchronous.yaml"
    shutil.copytree(RECIPE.parent, recipe.parent)
    recipe.write_text(ASYNCHRONOUS)
    return recipe


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(FAULTS), help="faults, by name")
    parser.add_argument("--out", type=Path, help="a new folder for the runs (default: a temporary one)")
    parser.add_argument("--asynchronous", action="store_true", help="with trainer_mode=colocate_async")
    options = parser.parse_args()
    out = options.out or Path(tempfile.mkdtemp(prefix="cluster-faults-"))
    out.mkdir(parents=True, exist_ok=True)
    recipe = asynchronous_recipe(out) if options.asynchronous else RECIPE
    prepared = Run(out / "prepared", recipe)
    prepared.until(lambda: prepared.done("base"))
    prepared.end()
    if not prepared.done("base"):
        raise SystemExit(f"the base was not made: {prepared.last_words()}")
    outcomes = []
    for number, fault in enumerate(options.only.split(",")):
        folder = out / f"{number}-{fault.replace(' ', '-')}"
        shutil.copytree(out / "prepared", folder, ignore=shutil.ignore_patterns("checkpoints", "metrics.jsonl", "logs"))
        outcomes.append(measure(fault, folder, recipe))
        print(outcomes[-1], flush=True)
    (out / "faults.json").write_text(json.dumps([vars(one) for one in outcomes], indent=2))
    show(outcomes)


def show(outcomes: list[Outcome]) -> None:
    """Print the outcomes as a table."""
    table: Any = Table("fault", "the run", "s", "steps again", "its last words", box=None)
    for one in outcomes:
        table.add_row(one.fault, one.how, f"{one.seconds:.0f}", str(one.again), one.words)
    Console().print(table)


if __name__ == "__main__":
    main()
