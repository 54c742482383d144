"""The locks: one hash or more for every file, and which Python a stack takes."""

from __future__ import annotations

import hashlib
import importlib.util
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
    done = install(tmp_path, stack, {"some-python": python, "df": "free\\nx x x 0"})
    assert done.returncode == 2
    assert (refused or "0 MB free") in done.stderr


def install(folder, stack, programs):
    """Run install.sh beside programs that only print something."""
    for name, says in programs.items():
        program = folder / name
        program.write_text(f"#!/bin/sh\nprintf '{says}\\n'\n")
        program.chmod(0o755)
    env = os.environ | {"PYTHON": "some-python", "PATH": f"{folder}:{os.environ['PATH']}"}
    command = [str(ROOT / "requirements/install.sh"), str(folder / "venv"), stack]
    return subprocess.run(command, env=env, text=True, capture_output=True, check=False)


@pytest.mark.parametrize(("stack", "needs"), [("cpu", 7000), ("gpu", 16000)])
def test_the_room_that_a_stack_needs_is_there_before_anything_is_installed(tmp_path, stack, needs):
    done = install(tmp_path, stack, {"some-python": "3.11", "df": f"free\\nx x x {needs - 1}"})
    assert done.returncode == 2 and f"{needs - 1} MB free, installing needs {needs} MB" in done.stderr


def test_a_driver_that_is_too_old_for_the_stacks_cuda_is_refused(tmp_path):
    programs = {"some-python": "3.12", "df": "free\\nx x x 99999", "nvidia-smi": "535.104.05"}
    done = install(tmp_path, "gpu", programs)
    assert done.returncode == 2 and "driver is 535.104.05, CUDA 13 needs 580" in done.stderr


def test_a_wheel_of_flash_attention_is_added_to_a_stack_that_is_installed(tmp_path, monkeypatch):
    lock = [ROOT / "requirements" / "verl.txt", ROOT / "requirements" / "gpu.txt", ROOT / "setup.py"]
    stamp = hashlib.sha256(b"".join(file.read_bytes() for file in lock)).hexdigest()[:16]
    (tmp_path / "venv" / "bin").mkdir(parents=True)
    (tmp_path / "venv" / ".installed").write_text(f"{stamp}-gpu")
    assert install(tmp_path, "gpu", {"some-python": "3.12"}).stdout == ""
    programs = {"some-python": "3.12", "venv/bin/python": "%s\\n' \"$*\" '"}
    done = install(tmp_path, "gpu", programs)
    assert done.returncode == 0 and done.stdout == ""
    monkeypatch.setenv("FLASH_ATTN", "flash_attn.whl")
    done = install(tmp_path, "gpu", programs)
    assert "install --no-deps --only-binary :all: flash_attn.whl" in done.stdout


def test_the_image_has_the_cuda_and_the_python_of_the_lock():
    dockerfile = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    cuda = next(line.split()[0].split("==")[1] for line in pins("gpu") if line.startswith("cuda-toolkit=="))
    assert f"FROM nvidia/cuda:{cuda}-devel-ubuntu24.04" in dockerfile
    assert "PYTHON=python3.12" in dockerfile and "requirements/install.sh" in dockerfile
    left_out = (ROOT / ".dockerignore").read_text(encoding="utf-8").split()
    assert {".git", ".venv", "runs", "data"} <= set(left_out)


@pytest.fixture
def supply_chain():
    spec = importlib.util.spec_from_file_location("supply_chain", ROOT / "requirements" / "supply_chain.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


SAFE = {"name": "a", "version": "1", "vulns": []}
SKIPPED = {"name": "b", "skip_reason": "not found"}
BUG = {
    "name": "c",
    "version": "2",
    "vulns": [{"id": "CVE-1", "fix_versions": ["3", "4"]}, {"id": "X", "fix_versions": []}],
}


@pytest.mark.parametrize(
    ("packages", "vulnerable", "words"),
    [
        ([SAFE], False, ["vulnerabilities: 0 in 1 packages"]),
        ([SAFE, SKIPPED], False, ["0 in 1 packages, 1 are not in the list"]),
        ([SKIPPED], False, ["not checked"]),  # nobody answered: that is not safety
        ([SAFE, BUG], True, ["2 in 2 packages", "c 2: CVE-1, mended in 3, 4", "c 2: X, mended in no version yet"]),
    ],
)
def test_vulnerabilities_are_told_and_what_was_not_checked_is_not_called_safe(
    supply_chain, packages, vulnerable, words
):
    lines, found = supply_chain.about_vulnerabilities({"dependencies": packages})
    assert found == vulnerable and all(word in lines for word in words)


def test_licences_that_ask_for_something_are_named(supply_chain):
    licences = {
        "a": "MIT License",
        "b": "LGPL-2.1-only",
        "c": "UNKNOWN",
        "x": "MIT\nIMPLIED",
        "d": "Mozilla Public License 2.0\nmore",
    }
    line = supply_chain.about_licences([{"Name": name, "License": text} for name, text in licences.items()])
    assert line == (
        "licences: 5 packages; copyleft: b (LGPL-2.1-only), d (Mozilla Public License 2.0); unknown: c (UNKNOWN)"
    )


def test_tools_that_cannot_be_installed_are_one_line_and_no_failure(supply_chain, tmp_path, monkeypatch, capsys):
    def run(command, **_):
        return subprocess.CompletedProcess(command, int("--require-hashes" in command), "", "a\nERROR: no index\n")

    monkeypatch.setattr(supply_chain.subprocess, "run", run)
    assert supply_chain.main(tmp_path / "venv", "cpu", tmp_path / "out") == 0
    assert capsys.readouterr().out == "supply chain: not checked, as its tools cannot be installed (ERROR: no index)\n"
