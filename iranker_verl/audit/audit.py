"""An audit of a reward function: what does it pay policies whose value is known, and is that order right?

:func:`audit` runs any function of verl's signature over rows of prepared data, as verl would, and returns what each policy
(:mod:`iranker_verl.audit.policies`) earns and a verdict on each fault that a reward can have
(:mod:`iranker_verl.audit.verdicts`). It examines the rows, too, and the parser and the log of a test run, if given
(:mod:`iranker_verl.audit.rows`). A verdict is flagged only on evidence, which it states.

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
from iranker_verl.audit.scorer import Evidence, Scorer, Verdict, raised
from iranker_verl.audit.verdicts import CHECKS, FEW, crashes, not_deterministic, parser_guesses


@dataclass(frozen=True)
class Paid:
    """What a policy earns: the mean over tasks of the mean over its responses, and the lowest and highest of all."""

    policy: str
    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Report:
    """The outcome of an audit. ``dialect`` is the form of answers that the reward function reads."""

    tasks: int
    dialect: str
    paid: list[Paid]
    verdicts: list[Verdict]

    @property
    def flagged(self) -> list[str]:
        """Return the names of the faults found."""
        return [verdict.name for verdict in self.verdicts if verdict.flagged]

    def as_dict(self) -> dict[str, Any]:
        """Return the report for JSON; a mean of nothing (every call crashed) is None."""
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

    Args:
        reward: A function of verl's signature.
        rows: Prepared rows; all of them are examined.
        reward_kwargs: Settings to call ``reward`` with.
        ranking: Whether answers are whole rankings; otherwise they are exclusions.
        sees_prompt: Whether ``reward`` gets prompt and response in one text.
        parser: What reads answers at test time, called as ``parser(response, candidates)``; it returns what the response
            names, or None or a failed answer of :mod:`reward_fns.answers`.
        requests: The log of a test run (:func:`iranker_verl.audit.rows.lock_step`).
        limit: The number of tasks, drawn by ``seed``, that policies answer.
        seed: Of the draw, and of the random policies.

    Raise ValueError where no row has candidates of different relevance, no answer can be scored at all, or the parser cannot
    be used.
    """
    rows = list(rows)
    tasks = [task for task in tasks_of(rows) if max(task.relevance) > min(task.relevance)]
    if not tasks:
        raise ValueError("no row has candidates of different relevance; there is nothing to audit on")
    if len(tasks) > limit:
        tasks = random.Random(seed).sample(tasks, limit)
    scorer = Scorer(reward, reward_kwargs or {}, sees_prompt)
    dialect = _dialect_of(scorer, tasks[:FEW], ranking)
    responses = [policies(task, dialect, seed) for task in tasks]
    parts = [
        {policy: [scorer.parts(task, response) for response in of_policy] for policy, of_policy in of_task.items()}
        for task, of_task in zip(tasks, responses, strict=True)
    ]
    evidence = Evidence(scorer, dialect, tasks, responses, parts)
    random_scores = not_deterministic(evidence)
    verdicts = [random_scores, *(_unless(random_scores.flagged, check, evidence) for check in CHECKS)]
    verdicts += [super_linear_time(scorer, tasks[0]), crashes(scorer), parser_guesses(parser, evidence)]
    verdicts += [*examine_rows(rows), lock_step(requests)]
    return Report(len(tasks), str(dialect), [_paid(evidence, policy) for policy in responses[0]], verdicts)


def _unless(random_scores: bool | None, check: Callable[[Evidence], Verdict], evidence: Evidence) -> Verdict:
    """Return the verdict of ``check``, which compares scores, unless the same call scores differently each time."""
    if random_scores:
        return Verdict(check.__name__.replace("_", " "), None, "the same call earns one thing or another")
    return check(evidence)


def _dialect_of(scorer: Scorer, tasks: Sequence[Task], ranking: bool) -> Dialect:
    """Return the dialect in which a perfect answer earns most; among equals, the one with the largest lead over the worst."""

    def earned(dialect: Dialect) -> tuple[float, float]:
        pairs = [
            (scorer.score(t, dialect.answer(t, dialect.right(t))), scorer.score(t, dialect.answer(t, dialect.wrong(t))))
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
    """Return a function by ``pkg://package.module[:name]`` or ``path/to/file.py[:name]``.

    Modules of the current folder are found, as with ``python -m verl…``. Raise ValueError, in one line, where there is none.
    """
    source, _, name = spec.rpartition(":")
    if not source or not name.isidentifier():
        source, name = spec, default
    path = None if source.startswith("pkg://") else os.path.abspath(source.removeprefix("file://"))
    found = importlib.util.spec_from_file_location(f"custom_module_{abs(hash(path))}", path) if path else None
    if path and (found is None or found.loader is None or not os.path.isfile(path)):
        raise ValueError(f"{source}: no such Python file; give a file, or pkg://package.module")
    here = os.getcwd()
    sys.path.insert(0, here)
    try:
        if found is None or found.loader is None:
            module = importlib.import_module(source.removeprefix("pkg://").replace("/", "."))
        else:
            module = importlib.util.module_from_spec(found)
            found.loader.exec_module(module)
    except ImportError as error:
        raise ValueError(f"{source}: cannot be imported ({' '.join(str(error).split())})") from error
    except (Exception, SystemExit) as error:  # a module may raise, or exit, whatever it likes while it is loaded
        raise ValueError(f"{source}: cannot be loaded, it raises {raised(error)}") from error
    finally:
        with contextlib.suppress(ValueError):  # the module may have changed it
            sys.path.remove(here)
    function = getattr(module, name, None)
    if not callable(function):
        raise ValueError(f"{source} has no function {name!r}; name it as {source}:function")
    return function
