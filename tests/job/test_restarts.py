"""Training that crashes starts again by itself, as long as it gets further; and SIGTERM has it save and end."""

import json
import os
import signal
import sys

import pytest

pytest.importorskip("verl")

from iranker_verl.files import mark, write_json
from iranker_verl.job import pipeline, supervise
from iranker_verl.job.supervise import Finished, StageFailed
from iranker_verl.training import ending
from iranker_verl.training.main import compose_recipe, worker_environment


@pytest.fixture
def attempt(tmp_path, monkeypatch):
    """``attempt(most, *ends)``: run the stage ``rl`` with as many restarts; each end is the step reached, and how it ended."""
    monkeypatch.setattr(pipeline, "RESTART_DELAY_S", 0)
    mark(tmp_path)
    write_json(tmp_path / "run.json", {"starts": [{"time": "2026-01-01 00:00:00"}]})

    def run(most, *ends):
        config = compose_recipe("recipes/tiny_cpu", [f"iranker.run_dir={tmp_path}", f"iranker.max_restarts={most}"])
        left = list(ends)

        def stage(name, *_, hint, **__):
            step, how = left.pop(0)
            (tmp_path / "metrics.jsonl").write_text("".join(json.dumps({"step": i + 1}) + "\n" for i in range(step)))
            if how != "done":
                raise StageFailed(f"rl stopped: {how}. {hint()}", crashed=how == "crash")
            return Finished(1.0, 5)

        monkeypatch.setattr(pipeline.supervise, "run", stage)
        try:
            pipeline.Stage("rl", tmp_path).complete(config)
        finally:
            run.left = len(left)
        return pipeline.Stage("rl", tmp_path).record()

    return run


def test_a_crash_is_followed_by_a_restart_and_its_time_counts(attempt, capsys):
    assert attempt(1, (5, "crash"), (20, "done"))["done"]
    out = capsys.readouterr().out
    assert "rl stopped: crash." in out and "restart 1 of at most 1 without a step beyond 5" in out
    assert pipeline.AGAIN not in out


def test_crashes_that_each_come_further_are_not_counted_together(attempt):
    assert attempt(1, (5, "crash"), (6, "crash"), (7, "crash"), (20, "done"))["done"]


@pytest.mark.parametrize(
    ("most", "ends", "left"),
    [
        (0, [(5, "crash"), (20, "done")], 1),
        (2, [(5, "crash"), (5, "crash"), (4, "crash"), (20, "done")], 1),  # resumed from a checkpoint before step 5
        (3, [(5, "a user's mistake"), (20, "done")], 1),
        (3, [(0, "crash"), (0, "crash"), (0, "crash"), (0, "crash"), (0, "crash")], 1),
    ],
    ids=["none is asked for", "the same crash again", "a mistake", "a crash before the first step"],
)
def test_what_comes_again_or_is_no_crash_ends_the_run(attempt, most, ends, left):
    with pytest.raises(StageFailed, match=r"rl stopped"):
        attempt(most, *ends)
    assert attempt.left == left


@pytest.mark.parametrize(
    ("name", "step", "said"),
    [
        ("prepare", 0, "to continue with the pieces of the data that are not done"),
        ("base", 0, "to begin this stage anew"),
        ("rl", 0, "to train from the beginning"),
        ("rl", 20, "to continue from the checkpoint of step 20"),
        ("evaluate", 20, "to continue with the tasks that are not evaluated yet"),
    ],
)
def test_a_killed_stage_says_what_the_same_command_continues_from(tmp_path, monkeypatch, name, step, said):
    """A base is made without checkpoints, and training may be killed before its first."""
    killed = [sys.executable, "-c", "import os; os.kill(os.getpid(), 9)"]
    run = supervise.run
    monkeypatch.setattr(supervise, "run", lambda name, _, log, **settings: run(name, killed, log, **settings))
    mark(tmp_path)
    write_json(tmp_path / "run.json", {"starts": [{"time": "2026-01-01 00:00:00"}]})
    config = compose_recipe("recipes/tiny_cpu", [f"iranker.run_dir={tmp_path}", "iranker.max_restarts=0"])
    monkeypatch.setattr(pipeline.checkpoints, "last_step", lambda folder: step)
    monkeypatch.setattr(pipeline.Stage, "_prepare_checkpoints", lambda *_: None)
    with pytest.raises(StageFailed, match=rf"{name} stopped: its process was killed .*{pipeline.AGAIN}.* {said}"):
        pipeline.Stage(name, tmp_path).complete(config)


def test_the_first_sigterm_asks_the_trainer_and_the_second_ends_at_once(tmp_path, capsys):
    mark(tmp_path)
    (tmp_path / "stages").mkdir()
    (tmp_path / "stages" / "base.json").write_text('{"done": true}')
    before = signal.getsignal(signal.SIGTERM)
    with pipeline.ending_politely(tmp_path):
        os.kill(os.getpid(), signal.SIGTERM)
        assert ending.Requests(tmp_path).pending() and "saving the last step" in capsys.readouterr().out
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is before
    ending.withdraw(tmp_path)
    assert not ending.requested(tmp_path)


def test_outside_of_training_sigterm_ends_at_once(tmp_path):
    with pipeline.ending_politely(tmp_path), pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGTERM)
    assert not ending.requested(tmp_path)


def test_all_starts_of_a_run_are_one_run_of_weights_and_biases(tmp_path, monkeypatch):
    config = compose_recipe("recipes/tiny_cpu", [])
    ids = []
    for times in (["1"], ["1", "2"], ["3"]):  # a start, a resume, another run in the same folder
        mark(tmp_path)
        write_json(tmp_path / "run.json", {"starts": [{"time": time} for time in times]})
        variables = pipeline.rl_environment(config, tmp_path)
        assert variables["WANDB_RESUME"] == "allow" and variables["WANDB_DIR"] == str(tmp_path)
        ids.append(variables["WANDB_RUN_ID"])
    assert ids[0] == ids[1] != ids[2]
    config.trainer.device = "cuda"
    assert "OMP_NUM_THREADS" not in pipeline.rl_environment(config, tmp_path)


def test_workers_get_loggers_and_nccl_settings_but_no_keys_and_nothing_that_the_job_has_set():
    job = json.dumps({"runtime_env": {"env_vars": {"WANDB_MODE": "online"}}})
    variables = {
        **{"WANDB_MODE": "online", "WANDB_RUN_ID": "a", "WANDB_API_KEY": "secret", "NCCL_DEBUG": "INFO"},
        **{"MLFLOW_TRACKING_PASSWORD": "secret", "OMP_NUM_THREADS": "1", "HOME": "/root"},
    }
    assert worker_environment(variables) == {"WANDB_MODE": "online", "WANDB_RUN_ID": "a", "NCCL_DEBUG": "INFO"}
    assert worker_environment(variables | {"RAY_JOB_CONFIG_JSON_ENV_VAR": job}) == {
        "WANDB_RUN_ID": "a",
        "NCCL_DEBUG": "INFO",
    }
