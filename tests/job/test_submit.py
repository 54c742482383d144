"""Submitting a recipe to a Ray head: what is refused, what would be submitted, and what travels."""

from __future__ import annotations

import asyncio
import json
import os
import shlex
import subprocess
import sys
from enum import StrEnum
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iranker_verl.errors import UserError
from iranker_verl.job import submit
from iranker_verl.job.submit import Submission, parse

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "recipes" / "cluster" / "submit.sh"
SMOKE = ROOT / "recipes" / "tiny_cpu" / "smoke.yaml"
HEAD = "http://head:8265"


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    for name in (*submit.PASSED, "RAY_ADDRESS", "PYTHON", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(submit, "TOKEN_FILE", Path("/none"))


@pytest.mark.parametrize(
    ("arguments", "variables", "words"),
    [
        ([], {}, "which recipe?"),
        (["recipes/none"], {}, "recipes/none: no such recipe"),
        (["recipes/cluster"], {}, "cluster.yaml: no such recipe"),
        (["recipes/tiny_cpu"], {}, "iranker.run_dir"),
        (["recipes/tiny_cpu", "iranker.run_dir=runs/x"], {}, "iranker.run_dir=runs/x has to be an absolute folder"),
        (["recipes/tiny_cpu", "iranker.run_dir=/r"], {}, "RAY_ADDRESS is not set"),
        (["recipes/tiny_cpu", "--wait"], {}, "--wait: unknown option"),
        (["recipes/tiny_cpu", "iranker.run_dir=/r"], {"RAY_ADDRESS": "127.0.0.1:6379"}, "no dashboard's address"),
        *(
            (["recipes/tiny_cpu", "iranker.run_dir=/r"], {"RAY_ADDRESS": HEAD, name: url}, f"{name} holds a user")
            for name, url in (
                ("MLFLOW_TRACKING_URI", "https://me:secret@host"),
                ("MLFLOW_TRACKING_URI", "https://token@host"),
                ("WANDB_BASE_URL", "https://u:p@wandb"),
                ("RAY_ADDRESS", "http://u:p@head:8265"),
                ("WANDB_BASE_URL", "https://wandb/?api_key=abc"),
            )
        ),
        *(
            (["recipes/tiny_cpu", "iranker.run_dir=/r", f"a.b={url}"], {"RAY_ADDRESS": HEAD}, "a.b holds a user")
            for url in ("s3://k:s@bucket", "http://h/x?x=1&token=abc", "[x,http://u@h/]")
        ),
    ],
)
def test_a_mistake_is_one_line(monkeypatch, arguments, variables, words):
    monkeypatch.chdir(ROOT)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError) as error:
        parse(arguments)
    assert words in str(error.value) and "\n" not in str(error.value)
    for secret in ("secret", "abc", "u:p@", "k:s"):
        assert secret not in str(error.value)


def test_a_url_without_a_secret_is_none(monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", HEAD)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://host/a@b?page=1")
    assert parse([str(SMOKE), "iranker.run_dir=/r", "x=http://h/p?q=1"]).address == HEAD


@given(
    st.lists(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1).map("a={}".format))
)
def test_overrides_arrive_as_they_were_given(overrides):
    asked = Submission(HEAD, SMOKE, "/shared/my run", ("iranker.run_dir=/shared/my run", *overrides), False)
    words = shlex.split(asked.command())
    assert words[1:5] == ["-m", "iranker_verl.cli", "train", "recipes/tiny_cpu/smoke.yaml"]
    # Ray refuses processors from who joins a cluster; what a user gives comes last and so wins
    assert tuple(words[5:8]) == submit._JOINS
    assert tuple(words[9:]) == asked.overrides


def test_a_shell_hands_them_on(monkeypatch, tmp_path):
    shown = tmp_path / "show.py"
    shown.write_text(f"#!{sys.executable}\nimport json, sys\nprint(json.dumps(sys.argv[9:]))\n")
    shown.chmod(0o755)
    monkeypatch.setenv("PYTHON", str(shown))
    nasty = ("a='x' \"y\" `id` $HOME", "b=line\nfeed", "c=1 # no comment", "d=;rm&|<>(){}[]*?\\", "e=ä")
    command = Submission(HEAD, SMOKE, "/r", nasty, False).command()
    done = subprocess.run(command, shell=True, text=True, capture_output=True, check=True)
    assert json.loads(done.stdout) == list(nasty)


def test_a_dry_run_prints_the_job(tmp_path):
    pytest.importorskip("ray")
    env = os.environ | {"RAY_ADDRESS": HEAD, "VERL_PLATFORM": "cpu", "WANDB_API_KEY": "secret", "PYTHON": "/opt/python"}
    command = ["bash", str(SCRIPT), str(SMOKE), "iranker.run_dir=/r", "--dry-run", "x=a\nb"]
    done = subprocess.run(command, env=env, cwd=tmp_path, text=True, capture_output=True, check=True)
    job = json.loads(done.stdout)
    assert job["address"] == HEAD and shlex.split(job["entrypoint"])[0] == "/opt/python"
    assert shlex.split(job["entrypoint"])[-1] == "x=a\nb"
    variables = job["runtime_env"]["env_vars"]
    assert variables["VERL_PLATFORM"] == "cpu" and variables["TENSORBOARD_DIR"] == "/r/tensorboard"
    assert "secret" not in done.stdout and list(tmp_path.iterdir()) == []


def test_what_travels(tmp_path):
    own, bundle = tmp_path / "mine", tmp_path / "bundle"
    own.mkdir(), bundle.mkdir()
    (own / "mine.yaml").write_text("defaults:\n  - ../tiny_cpu/smoke@_global_\n  - _self_\n")
    (own / "data.bin").write_text("x")
    asked = Submission(HEAD, own / "mine.yaml", "/r", (), False)
    asked.bundle(bundle)
    assert {p.name for p in bundle.iterdir()} == {
        *("iranker_verl", "data_prep", "reward_fns", "recipes", "requirements", "setup.py", "iranker_verl.egg-info")
    }
    assert [p.name for p in (bundle / "recipes" / "own").iterdir()] == ["mine.yaml"]
    assert "recipes/own/mine.yaml" in asked.command()
    assert not list(bundle.rglob("__pycache__"))
    # with nothing but the bundle on its path, a Python finds our plug-ins of verl and vLLM
    ask = "from importlib.metadata import entry_points as e; print(*e(group='verl.plugins'), *e(group='vllm.general_plugins'))"
    isolated = [sys.executable, "-S", "-c", ask]
    found = subprocess.run(isolated, env={"PYTHONPATH": str(bundle)}, text=True, capture_output=True, check=True).stdout
    assert "iranker_verl.training.cpu.plugin" in found and "vllm_linear:register" in found


class Status(StrEnum):
    SUCCEEDED, FAILED, STOPPED, RUNNING = "SUCCEEDED", "FAILED", "STOPPED", "RUNNING"


@pytest.mark.parametrize("status", [Status.SUCCEEDED, Status.FAILED, Status.STOPPED])
def test_only_a_job_that_succeeded_is_a_success_however_its_log_ends(monkeypatch, capsys, status):
    """A stand-in for Ray's client. Following a log ends quietly where a job is stopped."""
    sent = []

    class Client:
        def __init__(self, address):
            assert address == HEAD

        def submit_job(self, **job):
            sent.append(job)
            assert Path(job["runtime_env"]["working_dir"], "setup.py").is_file()

        async def tail_job_logs(self, name):
            yield "the log\n"

        def get_job_info(self, name):
            return SimpleNamespace(status=status, message="Job ended\nsomehow")

    monkeypatch.setitem(sys.modules, "ray.job_submission", SimpleNamespace(JobSubmissionClient=Client))
    monkeypatch.setattr(submit, "_check_listens", lambda address: None)
    asked = Submission(HEAD, SMOKE, "/r", (), False)
    if status == "SUCCEEDED":
        assert submit.submit(asked) == 0
    else:
        with pytest.raises(UserError, match=f"has not succeeded: {status.value} Job ended .*ray job logs"):
            submit.submit(asked)
    assert "the log" in capsys.readouterr().out
    assert not Path(sent[0]["runtime_env"]["working_dir"]).exists()  # nothing is left behind


class Unsteady:
    """A client whose connection to the log is lost twice; the second time, so is the head, for two requests."""

    def __init__(self):
        self.asked = 0

    async def tail_job_logs(self, name):
        self.asked += 1
        if self.asked == 3:
            raise ConnectionError("nobody there")
        yield "one\n"
        if self.asked > 1:
            yield "two\nth"
            if self.asked == 2:
                raise RuntimeError("closed with close code 1006")
            yield "ree\n"

    def get_job_info(self, name):
        return SimpleNamespace(status=Status.SUCCEEDED if self.asked > 4 else Status.RUNNING)


def test_a_log_that_breaks_off_goes_on_until_the_job_has_ended(monkeypatch, capsys):
    monkeypatch.setattr(submit, "AGAIN_S", 0)
    client = Unsteady()
    assert asyncio.run(submit._follow(client, "job")).status == "SUCCEEDED" and client.asked == 5
    assert capsys.readouterr().out == "one\ntwo\nthree\n"


def test_a_head_that_is_gone_is_not_followed_for_ever(monkeypatch):
    monkeypatch.setattr(submit, "AGAIN_S", 0)
    monkeypatch.setattr(submit, "PATIENCE_S", 0)
    with pytest.raises(RuntimeError, match=r"cannot be reached any more \(.*1006\); the job may go on"):
        asyncio.run(submit._follow(Unsteady(), "job"))


@pytest.mark.parametrize(
    ("file", "variables", "mode"),
    [
        (False, {}, None),
        (True, {}, "token"),
        (False, {"RAY_AUTH_TOKEN": "secret"}, "token"),
        (True, {"RAY_AUTH_MODE": "disabled"}, "disabled"),
    ],
    ids=["none", "in a file", "in the environment", "turned off"],
)
def test_the_token_that_is_here_is_sent_unless_the_user_says_otherwise(monkeypatch, tmp_path, file, variables, mode):
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.setenv(name, "")  # so that what is set below is taken back
        monkeypatch.delenv(name)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(submit, "TOKEN_FILE", tmp_path / "auth_token")
    if file:
        submit.TOKEN_FILE.write_text("secret")
    submit.send_token_if_any()
    assert os.environ.get("RAY_AUTH_MODE") == mode


def test_a_head_that_is_not_there_is_said_at_once():
    with pytest.raises(UserError, match="nothing listens there"):
        submit._check_listens("http://127.0.0.1:1")


def test_without_ray_it_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray.job_submission", None)
    with pytest.raises(UserError, match="ray is not installed here"):
        submit.submit(Submission(HEAD, SMOKE, "/r", (), False))
