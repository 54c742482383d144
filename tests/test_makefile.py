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


def test_what_runs_on_gpus_is_planned_before_it_starts_and_with_the_same_words():
    asked = ["MODEL=/m", "DATA=/d", "GPUS=8", "NODES=2", "CLUSTER=8x80", "ARGS=trainer.save_freq=7"]
    for verb, recipe in (("train-3b", "iranker_3b"), ("train-dranker-3b", "dranker_3b")):
        *_, planned, started = commands(verb, *asked, "DRY_RUN=1")
        assert f"iranker plan recipes/{recipe} " in planned and f"iranker train recipes/{recipe} --dry-run " in started
        words = planned.split("plan ")[1].split()
        assert started.split("train ")[1].replace(" --dry-run", "").split() == words
        for word in ("'cluster=8x80'", "'trainer.n_gpus_per_node=8'", "'trainer.nnodes=2'", "trainer.save_freq=7"):
            assert word in words
