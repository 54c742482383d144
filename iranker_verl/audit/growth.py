"""Time against length: does a reward function stay linear on long and hostile answers?"""

from __future__ import annotations

import time

from iranker_verl.audit.policies import GROWING, Task
from iranker_verl.audit.scorer import Scorer, Verdict

LENGTHS = (64, 256, 1024, 4096, 16_384, 65_536, 262_144)
# Linear work takes four times as long at the next length, quadratic work 16 times.
STEEP = 8
# Shorter times (s) are noise, longer ones are not waited for again.
NOISE_S, PATIENCE_S = 0.02, 0.5


def super_linear_time(scorer: Scorer, task: Task) -> Verdict:
    """Return whether any family of responses in ``GROWING``, each four times as long as the one before, takes super-linear time.

    A call that ran out of time before is flagged, too.
    """
    slowest = (0.0, "")
    for unit, before, after in GROWING:
        previous = 0.0
        for length in LENGTHS:
            response = before + unit * (length // len(unit)) + after
            what = f"{unit[:12]!a} up to {length} characters"
            seconds = _seconds(scorer, task, response)
            if scorer.slow:
                return Verdict("super-linear time", True, scorer.slow[0])
            if seconds > NOISE_S and seconds > STEEP * previous:  # once more: the machine may have been busy
                shorter = before + unit * (length // 4 // len(unit)) + after
                previous = min(_seconds(scorer, task, shorter) for _ in range(3))
                seconds = min(seconds, *(_seconds(scorer, task, response) for _ in range(1 if seconds > 1 else 3)))
                if seconds > NOISE_S and seconds > STEEP * previous:
                    text = f"{what}: {seconds:.2f} s, {seconds / previous:.0f} times a quarter of it"
                    return Verdict("super-linear time", True, text)
            slowest = max(slowest, (seconds, what))
            previous = seconds
            if seconds > PATIENCE_S:
                break
    return Verdict("super-linear time", False, f"at most {slowest[0] * 1000:.1f} ms ({slowest[1]})")


def _seconds(scorer: Scorer, task: Task, response: str) -> float:
    start = time.process_time()
    scorer.parts(task, response)
    return time.process_time() - start
