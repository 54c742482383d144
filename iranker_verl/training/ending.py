"""A request to end a run soon, and to save first: a file in its folder, which a trainer on any machine sees.

``iranker train`` writes it when it is sent SIGTERM, the notice of a preemption. The trainer looks while episodes are generated, and
after each step.
"""

from __future__ import annotations

import time
from pathlib import Path

from iranker_verl.files import write_text

FILE = "end-requested"
INTERVAL_S = 1.0


def request(run: Path) -> None:
    """Ask the run in the folder ``run`` to save and end."""
    write_text(run / FILE, "SIGTERM\n")


def requested(run: Path) -> bool:
    """Return whether the run is to end."""
    return (run / FILE).exists()


def withdraw(run: Path) -> None:
    """Remove what :func:`request` left."""
    (run / FILE).unlink(missing_ok=True)


class Requests:
    """Looks for a request, at most every ``INTERVAL_S`` seconds."""

    def __init__(self, run: Path) -> None:
        self._run = run
        self._looked = -INTERVAL_S

    def pending(self) -> bool:
        """Return whether there is a request."""
        if time.monotonic() - self._looked < INTERVAL_S:
            return False
        self._looked = time.monotonic()
        return requested(self._run)
