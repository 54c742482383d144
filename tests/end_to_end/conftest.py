"""End to end on the real stack: verl, Ray and vLLM on this machine's CPU."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).parents[2]


class Job:
    """A command in a session of its own, with its output in a file. ``end`` leaves nothing of it behind.

    Every process that is ever seen below it is remembered, so that one that outlives it is found, whatever else runs on
    this machine.
    """

    def __init__(self, command: list[str], output: Path) -> None:
        self.output = output
        self._file = output.open("wb")
        self.process = subprocess.Popen(
            command, cwd=ROOT, stdout=self._file, stderr=subprocess.STDOUT, start_new_session=True
        )
        self._seen: dict[int, psutil.Process] = {}
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        while self.process.poll() is None:
            self.below()
            time.sleep(0.5)

    def below(self) -> list[psutil.Process]:
        """The processes below the command, now."""
        try:
            found = psutil.Process(self.process.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []
        self._seen |= {process.pid: process for process in found}
        return found

    def strays(self) -> list[str]:
        """What was below the command and is still there (a pid that was given to another process is not)."""
        alive = [p for p in list(self._seen.values()) if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]
        return [" ".join(p.cmdline())[:100] for p in alive]

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
