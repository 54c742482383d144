"""What rewards have in common: the small terms for form and length, beside the value of an answer.

Every reward is ``value - format_weight * (1 - format) - length_weight * overlong``: ``value``, that of the answer, lies in [0, 1];
``format`` is 1 for a tidy response and 0 for any other; ``overlong`` lies in [0, 1]. A response that cannot be read earns
``malformed`` and nothing else. The weights together have to stay below ``-malformed``, so that nothing is worse than a response
that cannot be read.

``format_weight`` is 0.05 by default: an untidy response that can still be read costs a twentieth of the worst mistake, so that
among equally good answers the tidy one is learned. A smaller mistake, which ``graded`` and ``cost_aware`` have, costs less than
untidiness. It is a deduction and not a bonus, so that a perfect answer earns 1 and the mean of random tidy answers is not
shifted.

``overlong`` is the soft overlong punishment of DAPO (Yu et al. 2025, arXiv 2503.14476, equation 13), in characters, as a
reward function sees no tokens: 0 up to ``free_chars``, then rising to 1 at ``max_chars``. By default its weight is 0, and it
is only logged.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from reward_fns.answers import NO_ANSWER, NOT_A_CANDIDATE, OK, PARTIAL, SEVERAL

# What verl's reward managers pass beside the row: the addresses of a reward model and of a sandbox.
VERL_PASSES = frozenset(
    {"reward_router_address", "reward_model_tokenizer", "sandbox_fusion_url", "concurrent_semaphore", "memory_limit_mb"}
)
MALFORMED = -0.5
FORMAT_WEIGHT = 0.05
# The reward_kwargs that every reward has, besides its kind.
SHAPING_SETTINGS = ("malformed", "format_weight", "length_weight", "free_chars", "max_chars")
_REASON_PARTS = {"no_answer": NO_ANSWER, "not_a_candidate": NOT_A_CANDIDATE, "several_answers": SEVERAL}
# Why an answer could not be read, as parts that verl can average.
STATUS_PARTS = {
    status: {part: float(status == reason) for part, reason in _REASON_PARTS.items()}
    for status in (OK, PARTIAL, *_REASON_PARTS.values())
}


@dataclass(frozen=True)
class Shaping:
    """The terms besides the value of an answer, each a reward_kwarg. Raise ValueError where a malformed response would not earn the least."""

    malformed: float = MALFORMED
    format_weight: float = FORMAT_WEIGHT
    length_weight: float = 0.0
    free_chars: float = 4_000
    max_chars: float = 8_000

    def __post_init__(self) -> None:
        if not -math.inf < self.malformed < 0:  # false for NaN, too
            raise ValueError(f"malformed must be below 0, the worst of all rewards, got {self.malformed}")
        if not (self.format_weight >= 0 and self.length_weight >= 0):
            raise ValueError(
                f"format_weight and length_weight must be 0 or more, got {self.format_weight} and {self.length_weight}"
            )
        self.check_room(0.0)
        if not 0 <= self.free_chars < self.max_chars:
            raise ValueError(f"free_chars must be below max_chars, got {self.free_chars} and {self.max_chars}")

    def check_room(self, others: float) -> None:
        """Raise ValueError where these weights and ``others`` could make a readable response earn as little as a malformed one."""
        total = self.format_weight + self.length_weight + others
        if not total < -self.malformed:
            raise ValueError(
                f"the weights of format, length and the like add up to {total:g}; they must stay below {-self.malformed:g}, "
                "so that a malformed answer is the worst of all"
            )

    def overlong(self, characters: int) -> float:
        """Return how far a response is over the free length, in [0, 1]."""
        if characters <= self.free_chars:
            return 0.0
        return min(1.0, (characters - self.free_chars) / (self.max_chars - self.free_chars))

    def reward(self, value: float, tidy: bool, overlong: float) -> float:
        """Return the reward of a readable response."""
        return value - self.format_weight * (not tidy) - self.length_weight * overlong


_DEFAULT = Shaping()
_shaping = lru_cache(maxsize=64)(Shaping)


def shaping_of(settings: Mapping[str, Any], own: Sequence[str]) -> Shaping:
    """Return the :class:`Shaping` of a recipe's reward_kwargs, without ``kind`` and the reward's ``own``.

    Raise ValueError for an unknown one, which would have no effect, and for values that a Shaping refuses.
    """
    if not settings:
        return _DEFAULT
    known = {name: settings[name] for name in SHAPING_SETTINGS if name in settings}
    if unknown := sorted(set(settings) - set(known) - VERL_PASSES):
        names = ", ".join(("kind", *SHAPING_SETTINGS, *own))
        raise ValueError(f"unknown reward_kwargs {unknown[0]!r}; known are {names}")
    return _shaping(**known)


def in_batches(compute_score: Callable[..., dict[str, float]]) -> Callable[..., list[dict[str, float]]]:
    """Return a reward function of verl's batch signature for one of its single signature."""

    def compute_score_batch(
        data_sources: Sequence[str],
        solution_strs: Sequence[str],
        ground_truths: Sequence[dict[str, Any]],
        extra_infos: Sequence[dict[str, Any] | None] | None = None,
        **reward_kwargs: Any,
    ) -> list[dict[str, float]]:
        extras = extra_infos if extra_infos is not None else [None] * len(solution_strs)
        rows = zip(data_sources, solution_strs, ground_truths, extras, strict=True)
        return [compute_score(*row, **reward_kwargs) for row in rows]

    return compute_score_batch
