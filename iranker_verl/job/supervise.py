"""One stage of a job in a process of its own: its output in a log file, its progress on the console, nothing left behind.

A stage says what a person should see by :func:`iranker_verl.console.say`; everything else (verl, Ray and vLLM are talkative) goes to the log
only. While a stage is silent, a line with its name and age appears every few seconds.
"""

from __future__ import annotations

import queue
import re
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from iranker_verl.console import MARK
from iranker_verl.errors import UserError
from iranker_verl.job.subreaper import descendants

HEARTBEAT_S = 8.0
MEMORY_S = 4.0  # how often memory is measured
_ANSI = re.compile(r"\x1b\[[0-9;]*m")
_ERROR = re.compile(r"^\s*(?:\(\w+ pid=[^)]*\)\s*)?([\w.]*(?:Error|Exception|Killed)\b.*)")
# Ray wraps one error in another; these say nothing by themselves.
_WRAPPERS = ("RayTaskError", "CalledProcessError", "SystemExit", "EngineDeadError")


class StageFailed(UserError):
    """A stage ended with an error; the message names it, the log and the way on."""


@dataclass(frozen=True)
class Finished:
    """``peak_rss_bytes`` is the largest sum, over the stage's processes, of their proportional set size (PSS)."""

    seconds: float
    peak_rss_bytes: int


def run(name: str, command: Sequence[str], log: Path, *, hint: str, env: dict[str, str] | None = None) -> Finished:
    """Run ``command`` to its end. StageFailed if it fails; KeyboardInterrupt passes through, after the clean-up."""
    log.parent.mkdir(parents=True, exist_ok=True)
    start = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-m", "iranker_verl.job.subreaper", *command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        env=env,
    )
    lines: queue.Queue[bytes | None] = queue.Queue()
    threading.Thread(target=_read, args=(process, lines), daemon=True).start()
    peak, measured, spoken, error, last_error = 0, start, start, "", ""
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
                        print(f"{name:>9}  {text.split(MARK, 1)[1]}", flush=True)
                        spoken = time.monotonic()
                    elif text.startswith("error: "):
                        error = text.removeprefix("error: ")
                    elif (match := _ERROR.match(text)) and not re.split("[:(]", match.group(1))[0].endswith(_WRAPPERS):
                        last_error = match.group(1)
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
        if error:
            raise StageFailed(error)
        reason = last_error[:300] or f"its process ended with code {code}"
        raise StageFailed(f"{name} stopped: {reason} (log: {log}). {hint}")
    return Finished(time.monotonic() - start, peak)


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
