"""The locks: one hash or more for every file, and which Python a stack takes."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
HASHED = re.compile(r"^([\w.-]+)==(\S+)((?: --hash=sha256:[0-9a-f]{64})+)$")


def pins(name):
    """Return the lines of a lock that are requirements."""
    lines = (ROOT / "requirements" / f"{name}.txt").read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line and not line.startswith(("#", "-r "))]


@pytest.mark.parametrize("stack", ["verl", "cpu", "gpu", "audit"])
def test_every_file_that_is_installed_has_a_hash(stack):
    assert [line for line in pins(stack) if not HASHED.match(line)] == []


@pytest.mark.parametrize("stack", ["cpu", "gpu", "audit"])
def test_a_lock_names_every_package_once(stack):
    names = [re.sub(r"[-_.]+", "-", line.partition("==")[0]).lower() for line in pins(stack)]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize(
    ("python", "stack", "refused"),
    [
        ("3.10", "cpu", "the cpu stack needs 3.11"),
        ("3.12", "cpu", "the cpu stack needs 3.11"),
        ("3.13", "gpu", "the gpu stack needs 3.11 or 3.12"),
        ("3.11", "tpu", "no lock for the stack 'tpu'"),
        ("3.11", "cpu", None),
        ("3.12", "gpu", None),
    ],
)
def test_a_stack_is_installed_with_the_pythons_that_its_lock_is_for_and_no_other(tmp_path, python, stack, refused):
    """A stand-in for Python tells its version; ``df`` says that the disk is full, so that nothing is installed."""
    for name, says in {"some-python": python, "df": "free\nx x x 0"}.items():
        program = tmp_path / name
        program.write_text(f"#!/bin/sh\nprintf '{says}\n'\n")
        program.chmod(0o755)
    env = os.environ | {"PYTHON": "some-python", "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    command = [str(ROOT / "requirements/install.sh"), str(tmp_path / "venv"), stack]
    done = subprocess.run(command, env=env, text=True, capture_output=True, check=False)
    assert done.returncode == 2
    assert (refused or "0 MB free") in done.stderr
