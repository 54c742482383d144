"""What the person who started a job sees: lines marked by :func:`say`, from a stage or from a Ray worker below it.

:mod:`iranker_verl.job.supervise` shows them; everything else that a stage prints goes to its log only.
"""

from __future__ import annotations

MARK = "iranker| "


def say(line: str) -> None:
    """Print a line that the person who started the job sees."""
    print(f"{MARK}{line}", flush=True)
