"""Lines of progress that a stage of a job prints, marked by :func:`say`, from its process or a Ray worker below it.

:mod:`iranker_verl.job.supervise` shows them; everything else that a stage prints goes to its log only.
"""

from __future__ import annotations

MARK = "iranker| "
WAITS = "waits for episodes of "  # begins what the trainer logs, unmarked, while it waits
DIED = "died of "  # before the exception that ended a stage


def say(line: str) -> None:
    """Print a line that the job's command shows."""
    print(f"{MARK}{line}", flush=True)
