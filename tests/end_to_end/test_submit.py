"""recipes/cluster/submit.sh: what it refuses, what it would submit, and what travels."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

pytest.importorskip("ray")

ROOT = Path(__file__).parents[2]
SUBMIT = ROOT / "recipes" / "cluster" / "submit.sh"
SMOKE = ROOT / "recipes" / "tiny_cpu" / "smoke.yaml"
BIN = Path(sys.executable).parent


def submit(*arguments: str, seconds: float = 60, **variables: str) -> subprocess.CompletedProcess[str]:
    env = {k: v for k, v in os.environ.items() if k not in ("RAY_ADDRESS", "PYTHONPATH", "PYTHON", "VERL_PLATFORM")}
    env |= {"PATH": f"{BIN}:{env['PATH']}", **variables}
    command = ["bash", str(SUBMIT), *arguments]
    return subprocess.run(command, env=env, cwd=ROOT, text=True, capture_output=True, timeout=seconds, check=False)


@pytest.mark.parametrize(
    ("arguments", "variables", "words"),
    [
        ([], {}, "which recipe?"),
        (["recipes/none"], {}, "recipes/none: no such recipe"),
        (["recipes/cluster"], {}, "cluster.yaml: no such recipe"),
        (["recipes/tiny_cpu"], {}, "iranker.run_dir"),
        (
            ["recipes/tiny_cpu", "iranker.run_dir=runs/here"],
            {},
            "iranker.run_dir=runs/here has to be an absolute folder",
        ),
        (["recipes/tiny_cpu", "iranker.run_dir=/r"], {}, "RAY_ADDRESS is not set"),
        (["recipes/tiny_cpu", "--wait"], {}, "--wait: unknown option"),
        *(
            (["recipes/tiny_cpu", f"a.b={value}"], {}, f"a.b={value}: quotes")
            for value in ("${c}", "'x'", '"x"', "`x`", "x;y", "{x:1,y:2}")
        ),
        (["recipes/tiny_cpu", "iranker.run_dir=/r"], {"RAY_ADDRESS": "127.0.0.1:6379"}, "no dashboard's address"),
        (["recipes/tiny_cpu", "iranker.run_dir=/r"], {"RAY_ADDRESS": "http://127.0.0.1:1"}, "nobody listens there"),
        (
            ["recipes/tiny_cpu", "iranker.run_dir=/r"],
            {"RAY_ADDRESS": "http://head:8265", "MLFLOW_TRACKING_URI": "https://me:secret@host"},
            "holds a user or password",
        ),
    ],
)
def test_a_mistake_is_one_line(arguments, variables, words):
    done = submit(*arguments, **variables)
    assert done.returncode == 2 and done.stdout == ""
    assert words in done.stderr and done.stderr.startswith("error: ") and done.stderr.count("\n") == 1


def test_without_ray_it_says_so(tmp_path):
    """A copy of the project without its .venv, and a PATH that has the usual tools only."""
    script = tmp_path / "recipes" / "cluster" / "submit.sh"
    script.parent.mkdir(parents=True)
    shutil.copy(SUBMIT, script)
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in ("bash", "dirname", "basename"):
        (tools / name).symlink_to(shutil.which(name))
    env = {"PATH": str(tools), "RAY_ADDRESS": "http://head:8265"}
    command = ["bash", str(script), str(SMOKE), "iranker.run_dir=/r"]
    done = subprocess.run(command, env=env, text=True, capture_output=True, check=False)
    assert done.returncode == 2 and done.stderr == "error: ray is not installed here; run make setup\n"


def dry_run(*arguments: str, **variables: str) -> tuple[list[str], dict, list[str]]:
    """Ray's arguments, the runtime environment, and the job's command."""
    variables = {"RAY_ADDRESS": "http://head:8265"} | variables
    done = submit(*arguments, "--dry-run", **variables)
    assert done.returncode == 0, done.stderr
    words = shlex.split(done.stdout)
    cut = words.index("--")
    return words[:cut], json.loads(words[words.index("--runtime-env-json") + 1]), words[cut + 1 :]


def test_a_dry_run_prints_the_command():
    ray, environment, command = dry_run(str(SMOKE), "iranker.run_dir=/shared/my run", "iranker.data.tasks=[rec-movie]")
    assert ray[:6] == ["ray", "job", "submit", "--address", "http://head:8265", "--submission-id"]
    assert "--no-wait" not in ray
    assert command[:5] == ["python", "-m", "iranker_verl.cli", "train", "recipes/tiny_cpu/smoke.yaml"]
    # Ray refuses processors from who joins a cluster; what a user gives comes last and so wins
    assert command[5:8] == [
        "ray_kwargs.ray_init.num_cpus=null",
        "++ray_kwargs.ray_init.num_gpus=null",
        "++ray_kwargs.ray_init.address=null",
    ]
    assert command[-2:] == ["iranker.run_dir=/shared/my run", "iranker.data.tasks=[rec-movie]"]
    assert environment["env_vars"]["TENSORBOARD_DIR"] == "/shared/my run/tensorboard"
    assert not Path(environment["working_dir"]).exists()  # nothing is left behind


def test_what_is_set_here_is_passed_on_but_no_key():
    _, environment, command = dry_run(
        "recipes/tiny_cpu", "iranker.run_dir=/r", VERL_PLATFORM="cpu", WANDB_API_KEY="secret", PYTHON="/opt/python"
    )
    assert environment["env_vars"]["VERL_PLATFORM"] == "cpu" and "secret" not in json.dumps(environment)
    assert command[0] == "/opt/python"


def fake_ray(folder: Path, code: int, status: str = "succeeded") -> Path:
    """A ``ray`` that copies the bundle, so that a test can look into it, and ends with ``code``. It stands in for a cluster."""
    ray = folder / "ray"
    ray.write_text(
        "#!/usr/bin/env python3\nimport json, shutil, sys\n"
        "if sys.argv[2] == 'status':\n"
        f"    print(f\"Job '{{sys.argv[-1]}}' {status}\")\n    sys.exit(0)\n"
        "environment = json.loads(sys.argv[sys.argv.index('--runtime-env-json') + 1])\n"
        f"shutil.copytree(environment['working_dir'], {str(folder / 'bundle')!r})\n"
        f"print('the log')\nsys.exit({code})\n"
    )
    ray.chmod(0o755)
    return folder / "bundle"


@pytest.fixture
def project(tmp_path):
    """A copy of the project without its .venv, so that the PATH decides which ``ray`` is meant."""
    copy = tmp_path / "project"
    copy.mkdir()
    ignore = shutil.ignore_patterns("__pycache__")
    for name in ("iranker_verl", "data_prep", "reward_fns", "recipes"):
        shutil.copytree(ROOT / name, copy / name, ignore=ignore)
    (copy / "requirements").mkdir()
    for name in ("setup.py", "requirements/verl.txt"):
        shutil.copy(ROOT / name, copy / name)
    for name in ("runs", "data"):  # what must not travel
        (copy / name).mkdir()
        (copy / name / "large").write_text("x")
    return copy


@pytest.fixture
def dashboard() -> Iterator[str]:
    """The address of a server that is there, as a head's is asked first."""

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/api/version" else 404)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        threading.Thread(target=server.serve_forever).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def submit_own(project: Path, tools: Path, tmp_path: Path, address: str) -> subprocess.CompletedProcess[str]:
    """Submit a recipe from elsewhere, with the ``ray`` in ``tools``."""
    own = tmp_path / "mine"
    own.mkdir()
    (own / "mine.yaml").write_text("defaults:\n  - ../tiny_cpu/smoke@_global_\n  - _self_\n")
    (own / "data.bin").write_text("x")
    env = {**os.environ, "PATH": f"{tools}:{BIN}:{os.environ['PATH']}", "RAY_ADDRESS": address}
    command = ["bash", str(project / "recipes" / "cluster" / "submit.sh"), str(own), "iranker.run_dir=/r"]
    return subprocess.run(command, env=env, text=True, capture_output=True, check=False)


@pytest.mark.parametrize("status", ["was stopped", "failed", "is RUNNING"])
def test_a_job_that_did_not_succeed_is_an_error_whatever_ray_says(project, tmp_path, dashboard, status):
    """``ray job submit`` ends with 0 where the job was stopped, and where following its log broke off."""
    tools = tmp_path / "tools"
    tools.mkdir()
    fake_ray(tools, 0, status)
    done = submit_own(project, tools, tmp_path, dashboard)
    assert done.returncode == 2 and f"' {status}" in done.stderr and "ray job logs" in done.stderr


@pytest.mark.parametrize("code", [0, 1, 7])
def test_what_travels_and_that_the_exit_code_is_passed_on(project, tmp_path, dashboard, code):
    tools = tmp_path / "tools"
    tools.mkdir()
    bundle = fake_ray(tools, code)
    done = submit_own(project, tools, tmp_path, dashboard)
    assert done.returncode == code and "the log" in done.stdout
    assert {p.name for p in bundle.iterdir()} == {
        *("iranker_verl", "data_prep", "reward_fns", "recipes", "requirements", "setup.py", "iranker_verl.egg-info")
    }
    assert [p.name for p in (bundle / "recipes" / "own").iterdir()] == ["mine.yaml"]
    assert not list(bundle.rglob("__pycache__"))
    # with nothing but the bundle on its path, a Python finds our plug-ins of verl and vLLM
    ask = "from importlib.metadata import entry_points as e; print(*e(group='verl.plugins'), *e(group='vllm.general_plugins'))"
    isolated = [sys.executable, "-S", "-c", ask]
    found = subprocess.run(isolated, env={"PYTHONPATH": str(bundle)}, text=True, capture_output=True, check=True).stdout
    assert "iranker_verl.training.cpu.plugin" in found and "vllm_linear:register" in found


# ---------------------------------------------------------------- a real head


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on, now."""
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
    """From raw data to report on a cluster that goes on; then a job that fails."""
    recipe = tmp_path / "mine" / "least.yaml"
    recipe.parent.mkdir()
    recipe.write_text(LEAST)
    run = tmp_path / "run"
    variables = {"RAY_ADDRESS": head, "PYTHON": sys.executable}
    done = submit(str(recipe), f"iranker.run_dir={run}", seconds=420, **variables)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    for words in ("passage-5:", "rl  step 1", "evaluate after:", "report.html", "succeeded"):  # the log, to its end
        assert words in done.stdout, done.stdout[-3000:]
    results = json.loads((run / "results.json").read_text())
    assert results["rl_steps"] == 1 and list(results["datasets"]) == ["passage-5"]
    assert (run / "report.html").is_file() and (run / "model" / "iranker.json").is_file()

    # the job's guard has ended what the job started and nothing of the cluster
    assert answers(head)
    # another seed in the same folder is the user's mistake: the job fails, and so does the script
    done = submit(str(recipe), f"iranker.run_dir={run}", "iranker.seed=7", seconds=120, **variables)
    assert done.returncode != 0
    assert "iranker.seed was 1, is now 7" in done.stdout and "failed" in done.stdout
