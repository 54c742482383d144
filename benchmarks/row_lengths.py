"""Lengths of the recipes' training rows, modelled: what a batch costs is counted, and measured, on these."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Lengths:
    """Tokens of a row: instructions and history, each candidate, and the answer (a label alone, or a thought before it)."""

    rows: int  # of a batch
    candidates: int  # at most; an exclusion has 2 or more left
    shared: tuple[int, int]  # least and most
    candidate: int
    answer: tuple[float, float] | int  # mean and deviation of the logarithm, or tokens


_THOUGHT = (5.3, 0.5)
RECIPES = {
    "tiny_cpu": Lengths(rows=128 * 4, candidates=10, shared=(50, 70), candidate=8, answer=2),
    "iranker_3b": Lengths(rows=64, candidates=20, shared=(200, 350), candidate=35, answer=_THOUGHT),
    "iranker_3b_episodes": Lengths(rows=16 * 4 * 9, candidates=20, shared=(200, 350), candidate=35, answer=_THOUGHT),
    "iranker_1_5b_single_gpu": Lengths(rows=8 * 4 * 9, candidates=20, shared=(200, 350), candidate=35, answer=_THOUGHT),
}


def sample_rows(recipe: str, rows: int | None = None, seed: int = 0) -> list[tuple[int, int]]:
    """Return the tokens of prompt and answer of ``rows`` rows, a batch by default, within the recipes' limits 1,400 and 1,024."""
    of, draw = RECIPES[recipe], np.random.default_rng(seed)
    rows = of.rows if rows is None else rows
    prompts = draw.integers(*of.shared, rows) + of.candidate * draw.integers(2, of.candidates + 1, rows)
    answers = np.full(rows, of.answer) if isinstance(of.answer, int) else draw.lognormal(*of.answer, rows)
    return [(int(p), int(a)) for p, a in zip(np.minimum(prompts, 1400), np.clip(answers, 1, 1024), strict=True)]
