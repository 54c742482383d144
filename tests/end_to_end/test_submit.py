"""recipes/cluster/submit.sh: what it refuses, what it would submit, and what travels."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
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
    assert ray[:5] == ["ray", "job", "submit", "--address", "http://head:8265"]
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


def fake_ray(folder: Path, code: int) -> Path:
    """A ``ray`` that copies the bundle, so that a test can look into it, and ends with ``code``. It stands in for a cluster."""
    ray = folder / "ray"
    ray.write_text(
        "#!/usr/bin/env python3\nimport json, shutil, sys\n"
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


@pytest.mark.parametrize("code", [0, 1, 7])
def test_what_travels_and_that_the_exit_code_is_passed_on(project, tmp_path, code):
    tools = tmp_path / "tools"
    tools.mkdir()
    bundle = fake_ray(tools, code)
    own = tmp_path / "mine"
    own.mkdir()
    (own / "mine.yaml").write_text("defaults:\n  - ../tiny_cpu/smoke@_global_\n  - _self_\n")
    (own / "data.bin").write_text("x")
    env = {**os.environ, "PATH": f"{tools}:{BIN}:{os.environ['PATH']}", "RAY_ADDRESS": "http://head:8265"}
    command = ["bash", str(project / "recipes" / "cluster" / "submit.sh"), str(own), "iranker.run_dir=/r"]
    done = subprocess.run(command, env=env, text=True, capture_output=True, check=False)
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
