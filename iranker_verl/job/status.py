"""How far a run is, from the files in its folder: what ``iranker status`` shows, and serves to Prometheus."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from iranker_verl.console import MARK, WAITS
from iranker_verl.errors import UserError
from iranker_verl.files import read_json
from iranker_verl.job.starts import read_config
from iranker_verl.training import checkpoints
from iranker_verl.training.metrics_log import read_metrics

RECENT = 20  # steps, of which rates are medians
TAIL_BYTES = 1 << 16
STAGES = ("prepare", "base", "rl", "evaluate")
# Of `metrics.jsonl`, by the name that Prometheus gets.
GAUGES = {
    "step": "Steps that are done",
    "steps": "Steps in all",
    "val_mrr": "MRR of the last validation, mean over datasets",
    "episode_rr": "Mean reciprocal rank of the training episodes of the last step",
    "malformed": "Share of malformed answers in the last step",
    "tokens_per_s": "Tokens of prompts and answers a second",
    "step_s": "Seconds a step",
    "remaining_s": "Seconds of training that are left",
    "saved_step": "Step of the last checkpoint",
    "saved_s": "Seconds since the last checkpoint",
    "written_s": "Seconds since the log was written",
    "starts": "Times that the run was started",
    "disk_free_bytes": "Free on the run's disk",
}


def read_status(run: Path) -> dict[str, Any]:
    """Return how far the run in a folder is; what is not known yet is None. Raise UserError where there is no run.

    ``stage`` is the first that is not done, None where all are; ``doing`` the last line that it told, and ``waiting`` what the rollout
    waits for, where that was told. Rates are medians over the last ``RECENT`` steps.
    """
    config = read_config(run)
    folder = run / "checkpoints"
    lines = read_metrics(run / "metrics.jsonl")
    last: dict[str, Any] = lines[-1] if lines else {}
    recent = [line for line in lines[-RECENT:] if line.get("time/step")]
    step_s = statistics.median([line["time/step"] for line in recent]) if recent else None
    rates = [line["tokens/step"] / line["time/step"] for line in recent if line.get("tokens/step")]
    validated = [line for line in lines if line.get("val/mrr") is not None]
    step, steps = last.get("step", 0), config.trainer.total_training_steps
    saved = checkpoints.last_step(folder)
    stage = next((name for name in STAGES if not _done(run, name)), None)
    log = run / "logs" / f"{stage}.log"
    best = max(validated, key=lambda line: line["val/mrr"], default={})
    return {
        "stage": stage,
        "doing": _told(log),
        "waiting": _waiting(log) if stage == "rl" else None,
        "step": step,
        "steps": steps,
        "val_mrr": validated[-1]["val/mrr"] if validated else None,
        "val_step": validated[-1]["step"] if validated else None,
        "best_step": best.get("step"),
        "episode_rr": last.get("episode/rr"),
        "malformed": last.get("reward/malformed"),
        "tokens_per_s": statistics.median(rates) if rates else None,
        "step_s": step_s,
        "remaining_s": step_s * (steps - step) if step_s is not None and steps else None,
        "saved_step": saved or None,
        "saved_s": _age(folder / checkpoints.LATEST),
        "written_s": _age(log),
        "starts": len(_starts(run)),
        "disk_free_bytes": os.statvfs(run).f_bavail * os.statvfs(run).f_frsize,
    }


def _done(run: Path, stage: str) -> bool:
    path = run / "stages" / f"{stage}.json"
    return path.is_file() and bool(read_json(path)["done"])


def _starts(run: Path) -> list[Any]:
    path = run / "run.json"
    return list(read_json(path).get("starts", [])) if path.is_file() else []


def _age(path: Path) -> float | None:
    return round(max(0.0, time.time() - path.stat().st_mtime), 1) if path.is_file() else None


def _tail(log: Path) -> list[str]:
    if not log.is_file():
        return []
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - TAIL_BYTES))
        return file.read().decode(errors="replace").splitlines()


def _told(log: Path) -> str | None:
    return next((line.partition(MARK)[2] for line in reversed(_tail(log)) if MARK in line), None)


def _waiting(log: Path) -> str | None:
    """Return what the trainer said last that it waits for, unless a step has ended since."""
    for line in reversed(_tail(log)):
        if MARK in line:
            return None
        if WAITS in line:
            return line.partition(WAITS)[2]
    return None


class Collector:
    """What ``prometheus_client`` asks for the numbers of a run, each time that they are scraped."""

    def __init__(self, run: Path) -> None:
        self._run = run.resolve()

    def collect(self) -> Iterator[Any]:
        """Yield a gauge ``iranker_run_…`` for each number that is known, and one that names the stage that is not done."""
        from prometheus_client.core import GaugeMetricFamily

        status = read_status(self._run)
        for name, what in GAUGES.items():
            if status[name] is not None:
                gauge = GaugeMetricFamily(f"iranker_run_{name}", what, labels=["run"])
                gauge.add_metric([self._run.name], status[name])
                yield gauge
        stage = GaugeMetricFamily("iranker_run_stage", "1 for the stage that is under way", labels=["run", "stage"])
        stage.add_metric([self._run.name, status["stage"] or "done"], 1)
        yield stage


def serve(run: Path, port: int) -> None:
    """Serve the numbers of a run to Prometheus on ``port``, until Ctrl-C. Raise UserError where the port is taken."""
    from prometheus_client import CollectorRegistry, start_http_server

    read_status(run)
    registry = CollectorRegistry()
    registry.register(Collector(run))  # type: ignore[arg-type]  # it has what is asked for
    try:
        _, thread = start_http_server(port, registry=registry)
    except OSError as error:
        raise UserError(f"--serve {port}: the port cannot be opened ({error.strerror})") from error
    thread.join()
