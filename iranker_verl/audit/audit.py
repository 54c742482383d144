"""An audit of a reward function: what does it pay policies whose worth is known, and is that order right?

It runs any function of verl's signature over rows of prepared data, as verl would, and returns a table of what each policy
(:mod:`iranker_verl.audit.policies`) earns and a verdict on each fault that a reward can have
(:mod:`iranker_verl.audit.verdicts`). The rows are examined too, and so are the parser and the log of a test run, if given
(:mod:`iranker_verl.audit.rows`). A verdict is flagged only on evidence, which it states; what could not be examined is said
to be so.

    report = audit(load_function("pkg://reward_fns.exclusion"), rows, reward_kwargs={"kind": "graded"})
    report.flagged        # names of the faults that were found
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import math
import os
import random
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any

from iranker_verl.audit.growth import super_linear_time
from iranker_verl.audit.policies import Dialect, Task, dialects, policies, tasks_of
from iranker_verl.audit.rows import examine_rows, lock_step
from iranker_verl.audit.verdicts import (
    CHECKS,
    FEW,
    Evidence,
    Scorer,
    Verdict,
    crashes,
    not_deterministic,
    parser_guesses,
    raised,
)


@dataclass(frozen=True)
class Paid:
    """What a policy earns: the mean over tasks of the mean over its responses, and the lowest and highest of all."""

    policy: str
    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Report:
    """The outcome of an audit. ``dialect`` is how the reward function wants answers to be written."""

    tasks: int
    dialect: str
    paid: list[Paid]
    verdicts: list[Verdict]

    @property
    def flagged(self) -> list[str]:
        return [verdict.name for verdict in self.verdicts if verdict.flagged]

    def as_dict(self) -> dict[str, Any]:
        """All of it, ready for JSON: a mean of nothing (every call crashed) is None."""
        paid = [{k: None if v != v else v for k, v in asdict(row).items()} for row in self.paid]
        return {**asdict(self), "paid": paid, "flagged": self.flagged}


def audit(
    reward: Callable[..., Any],
    rows: Iterable[Mapping[str, Any]],
    *,
    reward_kwargs: Mapping[str, Any] | None = None,
    ranking: bool = False,
    sees_prompt: bool = False,
    parser: Callable[[str, Sequence[str]], Any] | None = None,
    requests: Iterable[Mapping[str, Any]] | None = None,
    limit: int = 100,
    seed: int = 1,
) -> Report:
    """Audit ``reward`` over ``rows`` of the shape that :mod:`data_prep.schema` describes.

    ``ranking``: answers are whole rankings, not exclusions. ``sees_prompt``: the function is given prompt and response in one
    text. ``parser(response, candidates)`` is what reads answers at test time: it returns None or a failed answer of ours, or
    whom it takes the response to name. ``requests`` is the log of a test run (:func:`iranker_verl.audit.rows.lock_step`).
    Policies are played on at most ``limit`` tasks, drawn by ``seed``; rows are examined whole. ValueError where there is
    nothing to audit on, no answer can be scored at all, or the parser cannot be used.
    """
    rows = list(rows)
    tasks = [task for task in tasks_of(rows) if max(task.relevance) > min(task.relevance)]
    if not tasks:
        raise ValueError("no row has candidates of different relevance; there is nothing to audit on")
    if len(tasks) > limit:
        tasks = random.Random(seed).sample(tasks, limit)
    scorer = Scorer(reward, reward_kwargs or {}, sees_prompt)
    dialect = _spoken(scorer, tasks[:FEW], ranking)
    responses = [policies(task, dialect, seed) for task in tasks]
    parts = [
        {policy: [scorer.parts(task, response) for response in of_policy] for policy, of_policy in of_task.items()}
        for task, of_task in zip(tasks, responses, strict=True)
    ]
    evidence = Evidence(scorer, dialect, tasks, responses, parts)
    drawn = not_deterministic(evidence)
    verdicts = [drawn, *(_unless(drawn.flagged, check, evidence) for check in CHECKS)]
    verdicts += [super_linear_time(scorer, tasks[0]), crashes(scorer), parser_guesses(parser, evidence)]
    verdicts += [*examine_rows(rows), lock_step(requests)]
    return Report(len(tasks), str(dialect), [_paid(evidence, policy) for policy in responses[0]], verdicts)


def _unless(drawn: bool | None, check: Callable[[Evidence], Verdict], evidence: Evidence) -> Verdict:
    """The verdict of ``check``, which compares scores, unless they are ``drawn`` anew in every call."""
    if drawn:
        return Verdict(check.__name__.replace("_", " "), None, "the same call earns one thing or another")
    return check(evidence)


def _spoken(scorer: Scorer, tasks: Sequence[Task], ranking: bool) -> Dialect:
    """The dialect in which a perfect answer earns most; among equals the one in which it stands out most."""

    def earned(dialect: Dialect) -> tuple[float, float]:
        pairs = [
            (scorer.score(t, dialect.say(t, dialect.right(t))), scorer.score(t, dialect.say(t, dialect.wrong(t))))
            for t in tasks
        ]
        pairs = [pair for pair in pairs if not any(map(math.isnan, pair))]
        if not pairs:
            return -math.inf, 0.0
        return round(fmean(right for right, _ in pairs), 9), round(fmean(right - wrong for right, wrong in pairs), 9)

    best = max(dialects(ranking), key=earned)
    if earned(best)[0] == -math.inf:
        raise ValueError(f"the reward function scores no answer at all: {(scorer.crashes + scorer.slow)[0]}")
    scorer.crashes.clear()
    return best


def _paid(evidence: Evidence, policy: str) -> Paid:
    scores = [score for of_task in evidence.scores(policy) for score in of_task]
    return Paid(policy, evidence.mean(policy), min(scores, default=math.nan), max(scores, default=math.nan))


def load_function(spec: str, default: str = "compute_score") -> Callable[..., Any]:
    """A function by ``pkg://package.module[:name]`` or ``path/to/file.py[:name]``, as ``python -m verl…`` loads it: modules
    of the current folder are found. ValueError, in one line, where there is none."""
    place, _, name = spec.rpartition(":")
    if not place or not name.isidentifier():
        place, name = spec, default
    path = None if place.startswith("pkg://") else os.path.abspath(place.removeprefix("file://"))
    found = importlib.util.spec_from_file_location(f"custom_module_{abs(hash(path))}", path) if path else None
    if path and (found is None or found.loader is None or not os.path.isfile(path)):
        raise ValueError(f"{place}: no such Python file; give a file, or pkg://package.module")
    here = os.getcwd()
    sys.path.insert(0, here)
    try:
        if found is None or found.loader is None:
            module = importlib.import_module(place.removeprefix("pkg://").replace("/", "."))
        else:
            module = importlib.util.module_from_spec(found)
            found.loader.exec_module(module)
    except ImportError as error:
        raise ValueError(f"{place}: cannot be imported ({' '.join(str(error).split())})") from error
    except (Exception, SystemExit) as error:  # a module may raise, or exit, whatever it likes while it is loaded
        raise ValueError(f"{place}: cannot be loaded, it raises {raised(error)}") from error
    finally:
        with contextlib.suppress(ValueError):  # the module may have changed it
            sys.path.remove(here)
    function = getattr(module, name, None)
    if not callable(function):
        raise ValueError(f"{place} has no function {name!r}; name it as {place}:function")
    return function
