"""Supervision as a whole job that is stopped and resumed, and its model as the base of reinforcement learning."""

from __future__ import annotations

import json

import pytest

pytestmark = pytest.mark.slow

SMALL = {"users": 120, "queries": 120, "passage_train": 60, "passage_test": 6}


def test_a_stopped_job_of_supervision_goes_on_and_reinforcement_learning_starts_from_its_model(start, tmp_path) -> None:
    taught, run = tmp_path / "taught", tmp_path / "run"
    common = [f"iranker.data.world.{name}={value}" for name, value in SMALL.items()]
    common += ["iranker.data.options.max_test=6", "iranker.data.tasks=[rec-movie,passage-5]"]
    command = ["train", "recipes/tiny_cpu/sft.yaml", *common, f"iranker.run_dir={taught}", "iranker.base.effort=0.02"]
    command += [f"iranker.base.cache={tmp_path}/cache", "trainer.total_training_steps=8", "trainer.save_freq=2"]

    job = start(*command)
    saved = taught / "checkpoints" / "latest_checkpointed_iteration.txt"
    job.wait_until(saved.exists, 300)
    job.end()
    assert not job.strays()
    job = start(*command)
    assert job.wait(300) == 0, job.text[-3000:]
    assert "continuing from the checkpoint of step" in job.text and "Traceback" not in job.text
    assert [json.loads(line)["step"] for line in (taught / "metrics.jsonl").read_text().splitlines()] == [*range(1, 9)]
    results = json.loads((taught / "results.json").read_text())
    assert results["about"][-1].startswith("Supervision: 8 steps")
    assert (taught / "report.html").stat().st_size > 10_000

    command = [
        "train",
        "recipes/tiny_cpu/smoke.yaml",
        *common,
        f"iranker.run_dir={run}",
        "trainer.total_training_steps=1",
    ]
    job = start(*command, "iranker.base.make=null", f"actor_rollout_ref.model.path={taught}/model")
    assert job.wait(400) == 0, job.text[-3000:]
    before = json.loads((run / "results.json").read_text())["macro"]["before"]
    assert before["rr"] == pytest.approx(results["macro"]["after"]["rr"])
