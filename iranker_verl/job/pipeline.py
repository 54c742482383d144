"""The stages of a job in order. What is done is not done again, so the same command continues where a job was stopped."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from iranker_verl import preflight, provenance, vllm_cpu
from iranker_verl.evaluation.journal import Journal, of_system
from iranker_verl.evaluation.systems import Role
from iranker_verl.files import claimed, read_json, write_json
from iranker_verl.inference.models import HUB_NAME, trainable_folder
from iranker_verl.job import supervise
from iranker_verl.job.export import write_card
from iranker_verl.job.stages import STAGES
from iranker_verl.job.starts import check_changes, goes_further, last_start, settings, write_start
from iranker_verl.preflight.machine import demand
from iranker_verl.training import checkpoints, ending
from iranker_verl.training.credit import SUPERVISED
from iranker_verl.training.main import compose_recipe, named_options
from iranker_verl.training.metrics_log import read_metrics

RESTART_DELAY_S = 5.0  # in which Ray frees what a dead driver held
AGAIN = "Run the same command again"
WAYS_ON = {  # by stage; of training, where there is no checkpoint yet
    "prepare": "to continue with the pieces of the data that are not done",
    "base": "to begin this stage anew; the data are kept",
    "rl": "to train from the beginning: there is no checkpoint yet",
    "evaluate": "to continue with the tasks that are not evaluated yet",
}


def train(recipe: str, overrides: list[str], *, dry_run: bool = False) -> Path | None:
    """Run a recipe from raw data to ``report.html`` and return its path; with ``dry_run`` only compose and check it.

    Raise UserError for anything that a user can put right; nothing of a failed stage is left half done.
    """
    config = compose_recipe(recipe, overrides)
    preflight.check(config, named_options(recipe, overrides))
    if dry_run:
        wanted = demand(config)
        print(f"{recipe}: the config composes; it asks Ray for {wanted.cpus:g} CPUs and {wanted.gpus:g} GPUs")
        return None
    _find_model(config)
    preflight.check_machine(config)
    run = Path(config.iranker.run_dir).resolve()
    with claimed(run), ending_politely(run, saves=config.algorithm.adv_estimator != SUPERVISED):
        _same_run(config, run)
        for name in STAGES:
            Stage(name, run).complete(config)
        return report(config, run)


def _find_model(config: DictConfig) -> None:
    """Set ``actor_rollout_ref.model.path`` to the folder of the base, which may be a name in the Hugging Face cache or a GGUF file."""
    model = config.actor_rollout_ref.model
    if config.iranker.base.make is not None or model.path is None or Path(model.path).is_dir():
        return
    if HUB_NAME.fullmatch(model.path) or model.path.lower().endswith(".gguf"):
        model.path = str(trainable_folder(model.path, Path(config.iranker.base.cache)))


def _same_run(config: DictConfig, run: Path) -> None:
    """Raise UserError where ``run`` holds a run of another result; else write down this start, and what it has to do again."""
    starts: list[dict[str, Any]] = []
    changed: list[provenance.Difference] = []
    step = checkpoints.last_step(Path(config.trainer.default_local_dir))
    if (run / "run.json").exists() and _begun(run):
        last = last_start(run)
        starts = last.get("starts", [])
        changed = check_changes(last["made_of"], settings(config), f"{run} holds a run", step)
        if goes_further(last["made_of"], changed, step):
            for name in ("rl", "evaluate"):
                Stage(name, run).reopen()
            Journal.forget(of_system(run, Role.AFTER))  # of the model that is trained on
    write_start(config, run, starts, changed, step)


def _begun(run: Path) -> bool:
    """Return whether a run has made anything yet; where its raw data could not be read, other settings are the way out."""
    done = any(Stage(name, run).record()["done"] for name in STAGES)
    return done or (run / "raw").exists() or (run / "data").exists()


@dataclass(frozen=True)
class Stage:
    """One stage of a job: a process of its own, a log, and a record of what it took, which adds up over attempts."""

    name: str
    run: Path

    def record(self) -> dict[str, Any]:
        """Return ``{"done", "seconds", "peak_rss_bytes"}``."""
        nothing = {"done": False, "seconds": 0.0, "peak_rss_bytes": 0}
        path = self._path()
        return nothing | read_json(path) if path.exists() else nothing

    def _path(self) -> Path:
        return self.run / "stages" / f"{self.name}.json"

    def reopen(self) -> None:
        """Let the stage be done again; what it took is kept."""
        if (before := self.record())["done"]:
            write_json(self._path(), before | {"done": False})

    def complete(self, config: DictConfig) -> None:
        """Run the stage, unless it is done."""
        before = self.record()
        if before["done"]:
            print(f"{self.name:>9}  done before, in {before['seconds']:.0f} s", flush=True)
            return
        env = environment(self.name, self.run)
        if self.name == "rl":
            self._train(config, env | rl_environment(config, self.run) | dict(os.environ))
        else:
            self._run(config, env)

    def way_on(self, config: DictConfig) -> str:
        """Return what to do after a failure, and what the stage then continues from."""
        if self.name == "rl" and (step := checkpoints.last_step(Path(config.trainer.default_local_dir))):
            return f"{AGAIN} to continue from the checkpoint of step {step}"
        return f"{AGAIN} {WAYS_ON[self.name]}"

    def _train(self, config: DictConfig, env: dict[str, str]) -> None:
        """Run the stage from the newest whole checkpoint, and after a crash again (``iranker.max_restarts``).

        Only a restart that reaches a further step than any before it sets the count back, so that a crash that comes again ends.
        """
        furthest, restarts = self._last_step(config), 0
        while True:
            self._prepare_checkpoints(config)
            try:
                return self._run(config, env)
            except supervise.StageFailed as failure:
                step = self._last_step(config)
                restarts = 1 if step > furthest else restarts + 1
                furthest = max(step, furthest)
                if not failure.crashed or restarts > config.iranker.max_restarts:
                    raise
                self._tell(str(failure).removesuffix(self.way_on(config)))
                self._tell(
                    f"restart {restarts} of at most {config.iranker.max_restarts} without a step beyond {furthest}"
                )
                time.sleep(RESTART_DELAY_S)

    @staticmethod
    def _last_step(config: DictConfig) -> int:
        return max((line["step"] for line in read_metrics(Path(config.iranker.run_dir, "metrics.jsonl"))), default=0)

    def _prepare_checkpoints(self, config: DictConfig) -> None:
        ending.withdraw(self.run)
        step = checkpoints.go_on(config, self._tell)
        checkpoints.prune(config, self._tell)
        checkpoints.check_room_for_all(config)
        if step:
            checkpoints.check_ranks(config, step, self._tell)
            self._tell(f"continuing from the checkpoint of step {step}")

    def _tell(self, line: str) -> None:
        print(f"{self.name:>9}  {line}", flush=True)

    def _run(self, config: DictConfig, env: dict[str, str]) -> None:
        before = self.record()
        command = [sys.executable, "-P", "-m", "iranker_verl.job.stages", self.name, str(self.run)]
        log = self.run / "logs" / f"{self.name}.log"
        start, peak, done = time.monotonic(), before["peak_rss_bytes"], False
        try:
            finished = supervise.run(self.name, command, log, hint=partial(self.way_on, config), env=env)
            peak, done = max(peak, finished.peak_rss_bytes), True
        finally:
            self._path().parent.mkdir(exist_ok=True)
            seconds = before["seconds"] + time.monotonic() - start
            write_json(self._path(), {"done": done, "seconds": seconds, "peak_rss_bytes": peak})


@contextmanager
def ending_politely(run: Path, saves: bool = True) -> Iterator[None]:
    """On a first SIGTERM while reinforcement learning runs, have it save and end; on another one, or in another stage, end.

    Training that does not ``saves`` on request, supervision, ends at once.
    """

    def on_signal(*_: Any) -> None:
        training = Stage("base", run).record()["done"] and not Stage("rl", run).record()["done"]
        if not saves or not training or ending.requested(run):
            raise KeyboardInterrupt
        ending.request(run)
        print(f"{'run':>9}  SIGTERM: saving the last step and ending; a second one ends at once", flush=True)

    if threading.current_thread() is not threading.main_thread():  # where no signal can be caught
        yield
        return
    before = signal.signal(signal.SIGTERM, on_signal)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def environment(stage: str, run: Path) -> dict[str, str]:
    """Return the environment of a stage. A user's own values win."""
    defaults = {
        "HF_HUB_OFFLINE": "1",  # nothing is fetched
        "TOKENIZERS_PARALLELISM": "false",
        # threads that wait sleep: where anything else runs too, spinning ones made a step four to ten times as long
        "OMP_WAIT_POLICY": "PASSIVE",
        "PYTHONUNBUFFERED": "1",
        "RAY_DEDUP_LOGS": "0",
        "RAY_USAGE_STATS_ENABLED": "0",
        "TENSORBOARD_DIR": str(run / "tensorboard"),  # verl's own is one folder for all runs of a recipe
        "WANDB_MODE": "offline",
    }
    return defaults | dict(os.environ)


def rl_environment(config: DictConfig, run: Path) -> dict[str, str]:
    """Return what the stage ``rl`` has besides: one run of Weights & Biases over all starts; threads on a CPU."""
    started = read_json(run / "run.json")["starts"][0]["time"]
    variables = {
        "WANDB_RUN_ID": provenance.digest({"run": str(run), "started": started}),
        "WANDB_RESUME": "allow",
        "WANDB_DIR": str(run),
    }
    # without it Ray cuts every worker down to one thread
    return variables | (vllm_cpu.THREADS if config.trainer.device == "cpu" else {})


def report(config: DictConfig, run: Path) -> Path:
    """Complete the evaluation's ``results.json`` with what the stages left, and draw ``report.html``."""
    from data_prep.schema import read_manifest
    from iranker_verl.evaluation.report.files import read_results
    from iranker_verl.evaluation.report.page import time_shares, write_report

    evaluation = read_results(run)
    base = read_json(run / "base.json")
    manifest = read_manifest(run / "data")
    stages = {name: Stage(name, run).record() for name in STAGES}
    steps = read_metrics(run / "metrics.jsonl")
    seconds = {name: record["seconds"] for name, record in stages.items()}
    started = read_json(run / "run.json")
    results = evaluation | {
        "seed": config.iranker.seed,
        "versions": provenance.versions(),
        "data_hash": manifest["data_hash"],
        "template_hash": manifest["template_hash"],
        "time_s": seconds | {"total": sum(seconds.values())},
        "rl_time_share": time_shares(steps),
        "rl_steps": len(steps),
        "peak_rss_bytes": max(record["peak_rss_bytes"] for record in stages.values()),
        "base": base.get("report"),
        "about": [*base["about"], _about_rl(config, len(steps))],
        "config": OmegaConf.to_container(config.iranker, resolve=True),
        "run_hash": started["hash"],
        "starts": started["starts"],
    }
    if config.iranker.data.test_tasks:
        results |= _zero_shot(evaluation, run)
        results["about"].append(_about_zero_shot(results["unseen"]))
    write_json(run / "results.json", results)
    write_card(config, run)
    return write_report(run)


def _zero_shot(evaluation: dict[str, Any], run: Path) -> dict[str, Any]:
    """Return what a zero-shot run adds to ``results.json``: the trained model's numbers, and what is known of the test."""
    from data_prep.schema import read_manifest

    unseen = read_json(run / "unseen.json")
    return {
        "zero_shot": {name: systems["after"] for name, systems in evaluation["datasets"].items()},
        "unseen": unseen | {"data_hash": read_manifest(run / "unseen")["data_hash"]},
    }


def _about_zero_shot(unseen: dict[str, Any]) -> str:
    return (
        f"Zero-shot: trained on {', '.join(unseen['trained'])}; tested on {', '.join(unseen['tested'])} alone. Checked from "
        f"the files: no scenario, dataset or task of the test is in training. Of the test's {unseen['queries']} queries "
        f"{unseen['shared_queries']} are also queries of another scenario in training."
    )


def _about_rl(config: DictConfig, steps: int) -> str:
    rollout, data, actor = config.actor_rollout_ref.rollout, config.data, config.actor_rollout_ref.actor
    if config.algorithm.adv_estimator == SUPERVISED:
        return (
            f"Supervision: {steps} steps of verl's SFT trainer, each of {data.train_batch_size} worked answers to training prompts, "
            f"learning rate {actor.optim.lr:g}. Test tasks are used for the evaluation before and after, and for nothing else."
        )
    return (
        f"Reinforcement learning: {steps} steps of verl on Ray, each {data.train_batch_size} "
        f"training tasks with {rollout.n} vLLM rollout{'s' * (rollout.n > 1)} (temperature {rollout.temperature:g}), one row an "
        f"answer; advantage estimator {config.algorithm.adv_estimator}, learning rate {actor.optim.lr:g}. Test tasks are used for the "
        "evaluation before and after, and for nothing else."
    )
