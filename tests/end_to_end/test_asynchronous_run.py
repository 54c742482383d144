"""trainer_mode=colocate_async: a killed rollout worker, SIGTERM while it generates, and the same command again."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from benchmarks.cluster_faults import asynchronous_recipe
from iranker_verl.training.metrics_log import read_metrics

STEPS, TASKS, SESSIONS = 10, 4, 2


@pytest.mark.slow
def test_an_asynchronous_run_heals_saves_on_sigterm_and_trains_no_task_twice(start, tmp_path: Path) -> None:
    """In one epoch of 60 tasks. A task is in flight at every moment."""
    run = tmp_path / "run"
    command = [
        *("train", str(asynchronous_recipe(tmp_path)), f"iranker.run_dir={run}"),
        *(f"iranker.base.cache={tmp_path / 'cache'}", "iranker.base.effort=0.002", "iranker.data.tasks=[passage-5]"),
        *("iranker.data.options.max_train=60", "iranker.data.options.max_test=2", "trainer.save_freq=100"),
        *(f"trainer.total_training_steps={STEPS}", f"trainer.rollout_data_dir={run}/rollouts"),
    ]

    def steps() -> list[int]:
        return [line["step"] for line in read_metrics(run / "metrics.jsonl")]

    job = start(*command)
    job.wait_until(lambda: bool(steps()), 420)
    [worker] = [process for process in job.below() if "StepRewardWorker" in process.name()]
    os.kill(worker.pid, signal.SIGKILL)
    job.wait_until(lambda: "a rollout worker died" in job.text, 120)
    healed = len(steps())
    job.wait_until(lambda: len(steps()) > healed, 240)
    job.process.send_signal(signal.SIGTERM)
    assert job.wait(120) != 0
    saved = int((run / "checkpoints" / "latest_checkpointed_iteration.txt").read_text())
    assert f"ended by SIGTERM, with step {saved} saved" in job.text and healed < saved < STEPS
    assert (run / "checkpoints" / f"global_step_{saved}" / "transfer_queue").is_dir()
    assert not job.strays()

    job = start(*command)
    job.wait_until(lambda: len(steps()) == STEPS, 420)
    assert f"continuing from the checkpoint of step {saved}" in job.text
    assert steps() == list(range(1, STEPS + 1))
    rows = [json.loads(line) for file in (run / "rollouts").glob("*.jsonl") for line in file.read_text().splitlines()]
    trained = {(row["step"], row["ranking"]["task_id"]) for row in rows}
    assert len(trained) > TASKS * (STEPS - 2) and len({task for _, task in trained}) == len(trained)
    assert len({row["uid"] for row in rows}) == len(rows)
    assert len({row["uid"].rsplit("_", 1)[0] for row in rows}) == SESSIONS * len(trained)
