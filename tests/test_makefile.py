"""What the verbs would run, by ``make -n``."""

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def commands(*arguments):
    # as from a shell, and not as from the make that runs the tests
    env = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")}
    done = subprocess.run(["make", "-n", *arguments], cwd=ROOT, env=env, text=True, capture_output=True, check=True)
    return done.stdout.splitlines()


@pytest.mark.parametrize(
    ("installed", "asked", "stack"),
    [
        (None, [], "cpu"),
        ("e3310f-gpu\n", [], "gpu"),
        ("e3310f-cpu\n", [], "cpu"),
        ("e3310f-cpu\n", ["STACK=gpu"], "gpu"),
        (None, ["STACK=gpu"], "gpu"),
    ],
)
def test_the_stack_that_is_installed_stays(tmp_path, installed, asked, stack):
    """`make setup STACK=gpu`, then `make train-3b`, as the README has it."""
    if installed:
        (tmp_path / ".installed").write_text(installed)
    for verb in ("setup", "train-3b"):
        assert commands(verb, f"VENV={tmp_path}", *asked)[0].endswith(f"install.sh {tmp_path} {stack}")


def test_folders_reach_the_command_whole():
    *_, line = commands("train-3b", "DATA=/my data", "RUN=runs/a b", "MODEL=/m (1)", "TASK=rec-movie")
    for word in ("iranker.data.raw=/my data", "iranker.run_dir=runs/a b", "actor_rollout_ref.model.path=/m (1)"):
        assert f"'{word}'" in line
