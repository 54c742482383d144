"""No process stays behind: what a library starts ends when we are done with it, or when we are killed.

vLLM's engine core outlives a parent that dies of SIGKILL. A :class:`ProcessGuard` is a small process that holds the other end
of a pipe. When the pipe closes, at :meth:`ProcessGuard.end` or at our death, it ends every process with its mark:
an environment variable, inherited by whatever is started while :meth:`ProcessGuard.watching`, and by that one's children.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing import resource_tracker, shared_memory
from pathlib import Path

MARK = "IRANKER_GUARD"
_SHARED = re.compile(r"/dev/shm/(psm_\w+)$", re.MULTILINE)

# The guard's whole programme: standard library only, so that it starts in milliseconds.
_PROGRAMME = """
import os, signal, sys, time
mark = sys.argv[1].encode()

def bearers():
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/environ", "rb") as file:
                if mark in file.read().split(b"\\0"):
                    yield int(pid)
        except OSError:
            pass

sys.stdin.buffer.read()
for kind, seconds in ((signal.SIGTERM, 3.0), (signal.SIGKILL, 3.0)):
    until = time.monotonic() + seconds
    while (left := list(bearers())) and time.monotonic() < until:
        for pid in left:
            try:
                os.kill(pid, kind)
            except OSError:
                pass
        time.sleep(0.1)
"""


def shared_memory_of(pids: Iterable[int]) -> set[str]:
    """Return the names of Python's shared memory that these processes have and this one has not (Linux; elsewhere none)."""
    return {name for pid in pids for name in _mapped(pid)} - set(_mapped(os.getpid()))


def _mapped(pid: int) -> list[str]:
    try:
        return _SHARED.findall(Path(f"/proc/{pid}/maps").read_text())
    except OSError:
        return []


def remove_shared_memory(names: Iterable[str]) -> None:
    """Free shared memory whose owners have ended without doing so: it would stay until this process ends, with a warning."""
    for name in names:
        with suppress(FileNotFoundError):
            left = shared_memory.SharedMemory(name)
            left.close()
            left.unlink()


class ProcessGuard:
    """Ends what was started within :meth:`watching`, at :meth:`end` or at this process's death, whichever is first.

    Linux only (it reads ``/proc``); elsewhere it does nothing.
    """

    def __init__(self) -> None:
        self._mark = uuid.uuid4().hex
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """The guard's own process id, while it runs."""
        return self._process.pid if self._process is not None else None

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Mark what is started in the context. Meant for start-up alone: other threads' children would be marked too."""
        if not sys.platform.startswith("linux"):
            yield
            return
        resource_tracker.ensure_running()  # this process's own, shared helper: it has to start unmarked
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _PROGRAMME, f"{MARK}={self._mark}"],
            stdin=subprocess.PIPE,
            start_new_session=True,  # a Ctrl-C in the terminal is not for the guard
        )
        os.environ[MARK] = self._mark
        try:
            yield
        finally:
            os.environ.pop(MARK, None)

    def end(self) -> None:
        """End the marked processes that are still there, and the guard; returns when they are gone."""
        process, self._process = self._process, None
        if process is not None and process.stdin is not None:
            process.stdin.close()
            process.wait()
