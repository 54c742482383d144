"""What credit knows of a training row, and when a spread is one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

# Equal advantages have a standard deviation of about 1e-17 by rounding, and dividing by that would wreck a run.
MIN_SPREAD = 1e-6


@dataclass(frozen=True)
class StepRow:
    """What credit needs to know of a training row. ``reward`` and ``expected`` are in units of the reward function.

    ``what_if``, for ``exclusion_expected`` only: the rewards of all candidates' labels, in the order shown, and of any other answer.
    """

    task: str
    session: str
    pool: str
    pool_size: int
    reward: float
    expected: float
    what_if: tuple[float, ...] = ()


def divide(advantage: np.ndarray, spread: np.ndarray | float) -> np.ndarray:
    """``advantage / spread``, where there is a spread; without one (all equal) the advantages stay as they are."""
    return advantage / np.where(np.asarray(spread) > MIN_SPREAD, spread, 1.0)


def share_of_zeros(advantage: np.ndarray) -> float:
    """The share of rows that teach nothing."""
    return float((np.abs(advantage) < 1e-9).mean())


def check_normaliser(normalise: str, known: tuple[str, ...]) -> None:
    """ValueError, with the choices, for a normaliser that is not among ``known``."""
    if normalise not in known:
        raise ValueError(f"unknown normaliser {normalise!r}; choose one of {', '.join(known)}")
