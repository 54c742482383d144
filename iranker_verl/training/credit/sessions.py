"""Sessions that weigh the same in the loss, however many exclusions they took."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np


def session_weights(sessions: Sequence[str | None]) -> np.ndarray:
    """A weight for each row, shape ``(len(sessions),)``; every session has the same total, and the rows' mean is 1.

    ``None`` marks a padding row (weight 0), which is no row of that mean, and none that the loss divides by (verl's ``seq-mean-*``
    divides by the global batch size that it is told), so that the loss is the mean over sessions of the mean over their steps.

    >>> session_weights(["a", "b", "b", None]).tolist()
    [1.5, 0.75, 0.75, 0.0]
    """
    count: dict[str, int] = defaultdict(int)
    for session in sessions:
        if session is not None:
            count[session] += 1
    if not count:
        raise ValueError("no sessions to weigh: every row is padding")
    rows = sum(count.values())
    return np.array([rows / (len(count) * count[s]) if s is not None else 0.0 for s in sessions])
