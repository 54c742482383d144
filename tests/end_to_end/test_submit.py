"""recipes/cluster/submit.sh on a real Ray head; what it refuses and submits is in tests/job/test_submit.py."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("ray")

ROOT = Path(__file__).parents[2]
SUBMIT = ROOT / "recipes" / "cluster" / "submit.sh"
BIN = Path(sys.executable).parent


def submit(*arguments: str, seconds: float = 60, **variables: str) -> subprocess.CompletedProcess[str]:
    env = {k: v for k, v in os.environ.items() if k not in ("RAY_ADDRESS", "PYTHONPATH", "PYTHON", "VERL_PLATFORM")}
    env |= {"PATH": f"{BIN}:{env['PATH']}", **variables}
    command = ["bash", str(SUBMIT), *arguments]
    return subprocess.run(command, env=env, cwd=ROOT, text=True, capture_output=True, timeout=seconds, check=False)


# ---------------------------------------------------------------- a real head


def free_ports(count: int) -> list[int]:
    """Ports on which nothing listens now."""
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"{address}/api/version", timeout=2) as answer:
            return answer.status == 200
    except OSError:
        return False


@pytest.fixture
def head() -> Iterator[str]:
    """The address of a Ray head of this test's own, with a folder and ports of its own; nothing of it is left."""
    everybodys = Path("/tmp/ray/ray_current_cluster")  # whoever calls ray.init() looks here
    before = everybodys.read_text() if everybodys.exists() else None
    folder = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))  # a socket's path may have 107 characters
    ports = dict(
        zip(
            (
                *("port", "dashboard-port", "dashboard-agent-listen-port", "dashboard-agent-grpc-port"),
                *("metrics-export-port", "node-manager-port", "object-manager-port", "runtime-env-agent-port"),
                "ray-client-server-port",
            ),
            free_ports(9),
            strict=True,
        )
    )
    command = [sys.executable, "-m", "iranker_verl.job.subreaper", str(BIN / "ray"), "start", "--head", "--block"]
    command += ["--num-cpus", "16", "--num-gpus", "1", "--object-store-memory", str(512 << 20)]
    command += ["--temp-dir", str(folder), "--node-ip-address", "127.0.0.1", "--dashboard-host", "127.0.0.1"]
    command += ["--disable-usage-stats", *(f"--{name}={port}" for name, port in ports.items())]
    env = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"} | {"OMP_NUM_THREADS": "1"}
    env["RAY_AUTH_MODE"] = (
        "disabled"  # who starts a head decides whether it asks for a token; this one listens here only
    )
    address = f"http://127.0.0.1:{ports['dashboard-port']}"
    log = folder / "head.log"
    with log.open("wb") as file:
        guard = subprocess.Popen(command, env=env, stdin=subprocess.PIPE, stdout=file, stderr=subprocess.STDOUT)
    try:
        deadline = time.monotonic() + 60
        while not answers(address):
            if guard.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"the head did not start:\n{log.read_text()[-3000:]}")
            time.sleep(0.5)
        yield address
    finally:
        guard.terminate()  # it ends all that is below it
        try:
            guard.wait(30)
        finally:
            guard.kill()
            shutil.rmtree(folder, ignore_errors=True)
    assert (everybodys.read_text() if everybodys.exists() else None) == before


# with a critic, which no other test of the whole pipeline has
LEAST = """
defaults:
  - ../tiny_cpu/gae@_global_
  - _self_
iranker:
  data:
    tasks: [passage-5]
    world: {users: 120, queries: 120, passage_train: 60, passage_test: 6}
    options: {max_train: 40, max_test: 2}
  base:
    effort: 0.002
data:
  train_batch_size: 2
actor_rollout_ref:
  actor:
    ppo_mini_batch_size: 2
  rollout:
    n: 2
trainer:
  total_training_steps: 1
"""


@pytest.mark.slow
def test_a_recipe_on_a_real_head(head, tmp_path):
    """From raw data to report on a cluster that keeps running; then a job that fails.

    Nearly all of its time is the start of processes one after the other: eight of Ray's that import verl and vLLM, and vLLM three
    times. On a busy machine each takes half a minute.
    """
    recipe = tmp_path / "mine" / "least.yaml"
    recipe.parent.mkdir()
    recipe.write_text(LEAST)
    run = tmp_path / "run"
    variables = {"RAY_ADDRESS": head, "PYTHON": sys.executable}
    done = submit(str(recipe), f"iranker.run_dir={run}", seconds=900, **variables)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    for words in ("passage-5:", "rl  step 1", "evaluate after:", "report.html", "succeeded"):  # the log, to its end
        assert words in done.stdout, done.stdout[-3000:]
    results = json.loads((run / "results.json").read_text())
    assert results["rl_steps"] == 1 and list(results["datasets"]) == ["passage-5"]
    assert (run / "report.html").is_file() and (run / "model" / "iranker.json").is_file()

    # the job's guard has ended what the job started and nothing of the cluster
    assert answers(head)
    # another seed in the same folder is the user's mistake: the job fails, and so does the script
    done = submit(str(recipe), f"iranker.run_dir={run}", "iranker.seed=7", seconds=300, **variables)
    assert done.returncode != 0
    assert "iranker.seed was 1, is now 7" in done.stdout and "FAILED" in done.stderr
