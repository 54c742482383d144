"""Sessions that weigh the same in the loss, however many exclusions they took."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np


def session_weights(sessions: Sequence[str | None]) -> np.ndarray:
    """A weight for each row, shape ``(len(sessions),)``; every session has the same total, and the weights' mean is 1.

    ``None`` marks a padding row (weight 0). All rows, padding included, are what the loss divides by (verl's ``seq-mean-*``
    divides by the global batch size), so that the loss is the mean over sessions of the mean over their steps.

    >>> session_weights(["a", "b", "b", None]).tolist()
    [2.0, 1.0, 1.0, 0.0]
    """
    count: dict[str, int] = defaultdict(int)
    for session in sessions:
        if session is not None:
            count[session] += 1
    if not count:
        raise ValueError("no sessions to weigh: every row is padding")
    return np.array([len(sessions) / (len(count) * count[s]) if s is not None else 0.0 for s in sessions])
