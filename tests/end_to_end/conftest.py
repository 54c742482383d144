"""End to end on the real stack: verl, Ray and vLLM on this machine's CPU."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).parents[2]


class Job:
    """A command in a session of its own, with its output in a file. ``end`` leaves nothing of it behind."""

    def __init__(self, command: list[str], output: Path) -> None:
        self.output = output
        self._file = output.open("wb")
        self.process = subprocess.Popen(
            command, cwd=ROOT, stdout=self._file, stderr=subprocess.STDOUT, start_new_session=True
        )

    @property
    def text(self) -> str:
        return self.output.read_text(errors="replace")

    def wait(self, seconds: float) -> int:
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.end()
            pytest.fail(f"not finished after {seconds} s:\n{self.text[-3000:]}")

    def wait_until(self, condition: Callable[[], bool], seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.end()
                pytest.fail(f"ended or timed out before the condition held:\n{self.text[-3000:]}")
            time.sleep(0.2)

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                os.killpg(self.process.pid, signal.SIGKILL)
        self._file.close()


@pytest.fixture
def start(tmp_path: Path):
    """``start("train", "recipes/…", …)`` runs the command line; what is still running at the end is ended."""
    jobs: list[Job] = []

    def run(*arguments: str) -> Job:
        job = Job([sys.executable, "-m", "iranker_verl.cli", *arguments], tmp_path / f"job-{len(jobs)}.log")
        jobs.append(job)
        return job

    yield run
    for job in jobs:
        job.end()


def strays(before: set[int]) -> list[str]:
    """Ray's and vLLM's processes that were not there ``before``."""
    found = []
    for process in psutil.process_iter(["pid", "name", "cmdline", "status"]):
        info = process.info
        line = " ".join([info["name"] or "", *(info["cmdline"] or [])])
        alive = info["pid"] not in before and info["status"] != psutil.STATUS_ZOMBIE
        if alive and any(mark in line for mark in ("ray::", "raylet", "gcs_server", "VLLM::", "iranker_verl.job")):
            found.append(line[:100])
    return found
