"""Time against length: does a reward function stay linear on long and hostile answers?"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from reward_fns.audit_policies import GROWING, Task
from reward_fns.audit_verdicts import Verdict

LENGTHS = (64, 256, 1024, 4096, 16_384, 65_536, 262_144)
# Linear work takes four times as long at the next length, quadratic work 16 times.
STEEP = 8
# Shorter times (s) are noise, longer ones are not waited for again.
NOISE_S, PATIENCE_S, LIMIT_S = 0.02, 0.5, 10.0


class _TooSlow(BaseException):
    """Not an Exception: what a reward function catches must not hide it."""


def super_linear_time(score: Callable[[Task, str], Any], task: Task) -> Verdict:
    """The longest answers of every family in ``GROWING``, each four times as long as the one before."""
    slowest = (0.0, "")
    for unit, before, after in GROWING:
        previous = 0.0
        for length in LENGTHS:
            response = before + unit * (length // len(unit)) + after
            what = f"{unit[:12]!a} up to {length} characters"
            try:
                seconds = _seconds(score, task, response)
                if seconds > NOISE_S and seconds > STEEP * previous:  # once more: the machine may have been busy
                    shorter = before + unit * (length // 4 // len(unit)) + after
                    previous = min(_seconds(score, task, shorter) for _ in range(3))
                    seconds = min(seconds, *(_seconds(score, task, response) for _ in range(1 if seconds > 1 else 3)))
                    if seconds > NOISE_S and seconds > STEEP * previous:
                        text = f"{what}: {seconds:.2f} s, {seconds / previous:.0f} times a quarter of it"
                        return Verdict("super-linear time", True, text)
            except _TooSlow:
                return Verdict("super-linear time", True, f"{what}: more than {LIMIT_S:.0f} s")
            slowest = max(slowest, (seconds, what))
            previous = seconds
            if seconds > PATIENCE_S:
                break
    return Verdict("super-linear time", False, f"at most {slowest[0] * 1000:.1f} ms ({slowest[1]})")


def _seconds(score: Callable[[Task, str], Any], task: Task, response: str) -> float:
    with _limited(LIMIT_S):
        start = time.process_time()
        score(task, response)
        return time.process_time() - start


@contextmanager
def _limited(seconds: float) -> Iterator[None]:
    """Raise _TooSlow after ``seconds``, where the platform and the thread allow it: an exponential regex would hang."""
    if not hasattr(signal, "setitimer") or threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: FrameType | None) -> None:
        raise _TooSlow

    handler = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
