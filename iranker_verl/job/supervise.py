"""One stage of a job in a process of its own: its output in a log file, its progress on the console, nothing left behind.

A stage says what a person should see by :func:`iranker_verl.console.say`; everything else (verl, Ray and vLLM are talkative) goes to the log
only. While a stage is silent, a line with its name and age appears every few seconds.
"""

from __future__ import annotations

import os
import queue
import re
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from iranker_verl.console import DIED, MARK
from iranker_verl.errors import UserError, last_raised
from iranker_verl.job.subreaper import descendants

HEARTBEAT_S = 8.0
MEMORY_S = 4.0  # how often memory is measured
_ANSI = re.compile(r"\x1b\[[0-9;]*m")
# What a line that may say why a stage ended holds, and how many of these are kept.
TELLING = ("error: ", DIED, "Error", "Exception", "Killed", "SIGKILL")
LAST_LINES = 2000
# Of so many of a worker's last lines none is shown twice: two Ray nodes that share a disk each tell what they read there.
REPEATED = 4


# Signals by which somebody ends a process.
_ASKED_TO_END = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)


class StageFailed(UserError):
    """A stage ended with an error; the message names it, the log and the way on.

    ``crashed``: the same command may end otherwise. It is False for a user's mistake, and where somebody ended the process.
    """

    def __init__(self, message: str, *, crashed: bool) -> None:
        super().__init__(message)
        self.crashed = crashed


@dataclass(frozen=True)
class Finished:
    """``peak_rss_bytes`` is the largest sum, over the stage's processes, of their proportional set size (PSS)."""

    seconds: float
    peak_rss_bytes: int


def run(
    name: str, command: Sequence[str], log: Path, *, hint: Callable[[], str], env: dict[str, str] | None = None
) -> Finished:
    """Run ``command`` to its end. Raise StageFailed if it fails; KeyboardInterrupt passes through, after the clean-up.

    ``hint`` returns the way on, and is asked when the stage has failed.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    start = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "iranker_verl.job.subreaper", *command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        env=safe_environment(os.environ if env is None else env),
    )
    lines: queue.Queue[bytes | None] = queue.Queue()
    threading.Thread(target=_read, args=(process, lines), daemon=True).start()
    peak, measured, spoken = 0, start, start
    telling: deque[str] = deque(maxlen=LAST_LINES)
    shown: deque[str] = deque(maxlen=REPEATED)
    try:
        with log.open("ab") as file:
            file.write(f"==== {name}: {time.strftime('%Y-%m-%d %H:%M:%S')}\n".encode())
            while True:
                try:
                    raw = lines.get(timeout=1.0)
                except queue.Empty:
                    raw = b""
                if raw is None:
                    break
                if raw:
                    file.write(raw)
                    file.flush()
                    text = _ANSI.sub("", raw.decode(errors="replace")).rstrip()
                    if MARK in text:
                        if not (text.startswith("(") and text in shown):
                            print(f"{name:>9}  {text.split(MARK, 1)[1]}", flush=True)
                        shown.append(text)
                        spoken = time.monotonic()
                    elif any(word in text for word in TELLING):
                        telling.append(text)
                now = time.monotonic()
                if now - measured > MEMORY_S:
                    peak, measured = max(peak, memory_below(process.pid)), now
                if now - spoken > HEARTBEAT_S:
                    print(f"{name:>9}  … {now - start:.0f} s", flush=True)
                    spoken = now
        code = process.wait()
    finally:
        if process.stdin is not None:
            process.stdin.close()  # the guard ends what is left
        process.wait()
    if code:
        raise _failure(name, code, telling, log, hint())
    return Finished(time.monotonic() - start, peak)


def safe_environment(variables: Mapping[str, str]) -> dict[str, str]:
    """Return an environment in which no process imports from the present folder, and all find this package."""
    root = Path(__file__).parents[2]
    safe = {**variables, "PYTHONSAFEPATH": "1"}
    if root.name != "site-packages":  # a copy of the sources
        safe["PYTHONPATH"] = os.pathsep.join(filter(None, [str(root), variables.get("PYTHONPATH")]))
    return safe


def _failure(name: str, code: int, lines: Collection[str], log: Path, hint: str) -> StageFailed:
    """Return what a stage that ended with ``code`` died of: a user's mistake as it is, else its cause, log and way on."""
    for line in reversed(tuple(lines)):
        if line.startswith("error: "):
            return StageFailed(line.removeprefix("error: "), crashed=False)
    raised = last_raised(lines)
    if raised and raised[0] == "UserError" and raised[1]:
        return StageFailed(raised[1], crashed=False)
    died = [line.removeprefix(DIED) for line in lines if line.startswith(DIED)]
    killed = code - 128 if 128 < code < 128 + signal.NSIG else 0
    if killed == signal.SIGKILL:
        reason = f"its process was killed (signal {killed}), mostly because memory ran out"
    elif killed:
        reason = f"its process was ended by signal {killed} ({signal.strsignal(killed)})"
    elif raised:
        reason = ": ".join(part for part in raised if part)[:300]
    elif died:
        reason = died[-1][:300]
    else:
        reason = f"its process ended with code {code}"
    if raised and raised[0].endswith("ActorDiedError") and any("SIGKILL" in line for line in lines):
        reason = "a process of Ray's was killed, mostly because memory ran out"
    return StageFailed(f"{name} stopped: {reason} (log: {log}). {hint}", crashed=killed not in _ASKED_TO_END)


def _read(process: subprocess.Popen[bytes], lines: queue.Queue[bytes | None]) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        lines.put(line)
    lines.put(None)


def memory_below(root: int) -> int:
    """Bytes of proportional set size of ``root`` and all processes below it (shared pages are counted once)."""
    total = 0
    for pid in [root, *descendants(root)]:
        try:
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1]) * 1024
                    break
        except (OSError, ValueError):
            continue
    return total
