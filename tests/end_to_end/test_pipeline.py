"""The whole pipeline: two RL steps, a worker killed between them, the same command again, and a complete report."""

from __future__ import annotations

import json
import os
import re
import signal
from pathlib import Path

import pytest

from reward_fns.exclusion import compute_score

pytestmark = pytest.mark.slow


def pool_of(prompt: str) -> list[str]:
    """The candidates that a prompt of the template ``label`` shows, in their order."""
    return re.findall(r"^\[[A-Z]+\] (.*)$", prompt, flags=re.MULTILINE)


def test_killed_worker_then_the_same_command_gives_a_complete_report(start, tmp_path: Path) -> None:
    run = tmp_path / "run"
    command = [
        "train",
        "recipes/tiny_cpu/smoke.yaml",
        f"iranker.run_dir={run}",
        f"iranker.base.cache={tmp_path / 'cache'}",
        f"trainer.rollout_data_dir={run}/rollouts",
    ]

    # first attempt: the actor's process dies after the first checkpoint
    job = start(*command)
    saved = run / "checkpoints" / "latest_checkpointed_iteration.txt"
    job.wait_until(lambda: saved.exists() and saved.read_text() == "1", 420)
    victims = [process for process in job.below() if "WorkerDict" in process.name()]
    assert victims
    os.kill(victims[0].pid, signal.SIGKILL)
    assert job.wait(120) == 2
    last = job.text.strip().splitlines()[-1]
    assert last.startswith("error: rl stopped") and "same command again" in last and "rl.log" in last
    assert "Traceback" not in job.text
    assert not job.strays()
    assert not (run / "report.html").exists()

    # the same command resumes
    job = start(*command)
    assert job.wait(420) == 0, job.text[-3000:]
    assert "continuing from the checkpoint of step 1" in job.text
    assert not job.strays()
    steps = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [s["step"] for s in steps] == [1, 2]
    assert all(s["verl/elimination/failed_sessions"] == 0 for s in steps)
    check_results(run)
    check_rewards_reach_the_trainer(run)

    # and a third time there is nothing left to do
    job = start(*command)
    assert job.wait(60) == 0
    assert job.text.count("done before") == 4

    # another seed in the same folder is refused, in one line that names the setting
    job = start(*command, "iranker.seed=7")
    assert job.wait(60) == 2
    assert "iranker.seed was 1, is now 7" in job.text


def check_results(run: Path) -> None:
    results = json.loads((run / "results.json").read_text())
    assert len(results["datasets"]) == 9
    for systems in results["datasets"].values():
        assert {"before", "after", "random", "bm25"} <= set(systems)
        assert {"rr", "ndcg@5", "ndcg@10", "hit@1", "n", "ci95", "malformed_rate"} <= set(systems["after"])
        assert 0 <= systems["after"]["malformed_rate"] <= 1
    assert set(results["rl_time_share"]) == {"generate", "forward", "backward", "other"}
    assert sum(results["rl_time_share"].values()) == pytest.approx(1.0, abs=1e-6)
    assert {"prepare", "base", "rl", "evaluate", "total"} <= set(results["time_s"])
    assert results["peak_rss_bytes"] > 0 and 0 < results["paired_p"] <= 1
    assert results["versions"]["verl"] == "0.9.1"
    assert json.loads((run / "model" / "iranker.json").read_text())["template_hash"] == results["template_hash"]
    assert (run / "report.html").stat().st_size > 10_000


def check_rewards_reach_the_trainer(run: Path) -> None:
    """verl dumps the very rows that it trained on: every one bears the reward of its own step."""
    rows = [json.loads(line) for f in sorted((run / "rollouts").glob("*.jsonl")) for line in f.read_text().splitlines()]
    scored, sessions = 0, {}
    for row in rows:
        pool = pool_of(row["input"])
        if row["gts"] is None or not pool:
            continue  # verl's padding rows
        positive = row["gts"]["candidates"][row["gts"]["target"]]
        if pool.count(positive) != 1:
            continue  # equal texts: the prompt does not tell which is which
        truth = {"candidates": pool, "target": pool.index(positive)}
        assert row["score"] == pytest.approx(compute_score("", row["output"], truth)["score"]), row
        scored += 1
        sessions.setdefault((row["step"], row["uid"].rsplit("_", 1)[0]), []).append(row["score"])
    assert scored > 8  # of the second step at least: the dump of the first may have died with the job
    # verl's own worker would give all rows of a session one reward
    assert any(len(set(scores)) > 1 for scores in sessions.values())
