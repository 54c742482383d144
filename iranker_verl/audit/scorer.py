"""Call a reward function as verl does, and keep what it gave: the evidence that verdicts judge."""

from __future__ import annotations

import asyncio
import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from numbers import Real
from statistics import fmean
from typing import Any

from iranker_verl.audit.limit import TooSlow, limited
from iranker_verl.audit.policies import Dialect, Task

# Rewards that differ by less are equal.
EPSILON = 1e-9
# Seconds that a call may take. Each call that takes longer shortens it for the rest, so that an audit ends.
LIMIT_S = 10.0
# The score and all other numbers that a reward function returns for one response.
Parts = dict[str, float]


@dataclass(frozen=True)
class Verdict:
    """The outcome of one check. ``flagged`` is None where there was nothing to examine; ``evidence`` says what was found."""

    name: str
    flagged: bool | None
    evidence: str


def raised(error: BaseException) -> str:
    """Return an exception as one short line."""
    return f"{type(error).__name__} ({' '.join(str(error).split())[:80]})"


class Scorer:
    """A reward function with its settings, called as verl calls it. ``crashes`` and ``slow`` keep calls that failed.

    With ``sees_prompt`` the function gets prompt and response in one text, as the reward managers of early verl passed them.
    """

    def __init__(self, reward: Callable[..., Any], reward_kwargs: Mapping[str, Any], sees_prompt: bool) -> None:
        """Wrap ``reward``, which is called with ``reward_kwargs``."""
        self.reward, self.reward_kwargs, self.sees_prompt = reward, dict(reward_kwargs), sees_prompt
        self.crashes: list[str] = []
        self.slow: list[str] = []

    def call(self, task: Task, response: str) -> Any:
        """Return what the function returns, of a coroutine function its result; raise what it raises."""
        truth, extra = task.call_arguments()
        result = self.reward(
            data_source=task.source,
            solution_str=task.prompt + response if self.sees_prompt else response,
            ground_truth=truth,
            extra_info=extra,
            **self.reward_kwargs,
        )
        return asyncio.run(result) if inspect.iscoroutine(result) else result

    def parts(self, task: Task, response: str) -> Parts:
        """Return the score and all other numbers that the function returns; a crash and a call that ran out of time score NaN."""
        limit = LIMIT_S / (1 + len(self.slow))
        try:
            with limited(limit):
                result = self.call(task, response)
            given = result if isinstance(result, dict) else {"score": result}
            if not isinstance(given.get("score"), Real):
                raise TypeError(f"the score is a {type(given.get('score')).__name__}; it has to be a real number")
            parts = {key: float(value) for key, value in given.items() if isinstance(value, Real)}  # NumPy's too
            if not math.isfinite(parts["score"]):
                raise ValueError(f"the score is {parts['score']}")
        except TooSlow:
            self.slow.append(f"more than {limit:.3g} s on {response[:40]!r}")
            return {"score": math.nan}
        except (Exception, SystemExit) as error:  # whatever a reward function raises is a finding
            self.crashes.append(f"{raised(error)} on {response[:40]!r}")
            return {"score": math.nan}
        return parts

    def score(self, task: Task, response: str) -> float:
        """Return the score alone."""
        return self.parts(task, response)["score"]


@dataclass(frozen=True)
class Evidence:
    """What verdicts judge: ``responses[i][policy]`` to ``tasks[i]``, and the ``parts`` that each of them earned."""

    scorer: Scorer
    dialect: Dialect
    tasks: list[Task]
    responses: list[dict[str, list[str]]]
    parts: list[dict[str, list[Parts]]]

    def scores(self, policy: str) -> list[list[float]]:
        """Return a list of scores for each task, without crashes."""
        return [[p["score"] for p in of[policy] if not math.isnan(p["score"])] for of in self.parts]

    def mean(self, policy: str) -> float:
        """Return the mean over tasks of the mean over responses."""
        means = [fmean(scores) for scores in self.scores(policy) if scores]
        return fmean(means) if means else math.nan

    def valid(self) -> list[list[float]]:
        """Return the scores of all valid answers, for each task."""
        policies = zip(*map(self.scores, ("oracle", "anti-oracle", "random")), strict=True)
        return [[score for scores in of_task for score in scores] for of_task in policies]

    def paid_as_valid(self, *names: str) -> tuple[int, float]:
        """Return in how many tasks a response of these policies earns at least as much as a valid answer, and the most it earns."""
        earned = [[s for scores in of for s in scores] for of in zip(*map(self.scores, names), strict=True)]
        pairs = [(max(e), min(v)) for e, v in zip(earned, self.valid(), strict=True) if e and v]
        return sum(e >= v - EPSILON for e, v in pairs), max((e for e, _ in pairs), default=math.nan)

    @property
    def span(self) -> float:
        """Return how much more a perfect answer earns than the worst valid one."""
        return self.mean("oracle") - self.mean("anti-oracle")
