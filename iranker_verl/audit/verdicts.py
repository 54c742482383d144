"""The verdicts of an audit on a reward function: each looks for one fault, and is flagged only on the evidence it states."""

from __future__ import annotations

import asyncio
import inspect
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from statistics import fmean, pstdev
from typing import Any

from iranker_verl.audit.limit import TooSlow, limited
from iranker_verl.audit.policies import Dialect, Task, dialects

# Rewards that differ by less are equal.
EPSILON = 1e-9
# A random valid answer that earns this share of what lies between the worst and the perfect one leaves little to learn.
SATURATED = 0.8
# Seconds that a call may take; each call that ran out of them shortens it for the rest, so that an audit comes to its end.
LIMIT_S = 10.0
# Checks that need calls of their own make them on so many tasks.
FEW = 20
Parts = dict[str, float]


@dataclass(frozen=True)
class Verdict:
    """``flagged`` is None where there was nothing to examine; ``evidence`` says what was seen."""

    name: str
    flagged: bool | None
    evidence: str


def raised(error: BaseException) -> str:
    """An exception in one short line."""
    return f"{type(error).__name__} ({' '.join(str(error).split())[:80]})"


class Scorer:
    """A reward function with its settings, called as verl calls it; it keeps what went wrong, and what took too long.

    With ``sees_prompt`` the function gets prompt and response in one text, as the reward managers of early verl gave it.
    """

    def __init__(self, reward: Callable[..., Any], reward_kwargs: Mapping[str, Any], sees_prompt: bool) -> None:
        self.reward, self.reward_kwargs, self.sees_prompt = reward, dict(reward_kwargs), sees_prompt
        self.crashes: list[str] = []
        self.slow: list[str] = []

    def call(self, task: Task, response: str) -> Any:
        """What the function returns, or raises; of a coroutine function, what it comes to."""
        truth, extra = task.handed()
        result = self.reward(
            data_source=task.source,
            solution_str=task.prompt + response if self.sees_prompt else response,
            ground_truth=truth,
            extra_info=extra,
            **self.reward_kwargs,
        )
        return asyncio.run(result) if inspect.iscoroutine(result) else result

    def parts(self, task: Task, response: str) -> Parts:
        """The score and all other numbers that the function returns; a crash scores NaN, and so does a call without end."""
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
        return self.parts(task, response)["score"]


@dataclass(frozen=True)
class Evidence:
    """What the verdicts judge: ``responses[i][policy]`` to ``tasks[i]``, and the parts that each of them was given."""

    scorer: Scorer
    dialect: Dialect
    tasks: list[Task]
    responses: list[dict[str, list[str]]]
    parts: list[dict[str, list[Parts]]]

    def scores(self, policy: str) -> list[list[float]]:
        """A list of scores for each task; crashed ones are left out."""
        return [[p["score"] for p in of[policy] if not math.isnan(p["score"])] for of in self.parts]

    def mean(self, policy: str) -> float:
        """The mean over tasks of the mean over responses."""
        means = [fmean(scores) for scores in self.scores(policy) if scores]
        return fmean(means) if means else math.nan

    def valid(self) -> list[list[float]]:
        """The scores of all valid answers, for each task."""
        policies = zip(*map(self.scores, ("oracle", "anti-oracle", "random")), strict=True)
        return [[score for scores in of_task for score in scores] for of_task in policies]

    def paid_as_valid(self, *names: str) -> tuple[int, float]:
        """In how many tasks a response of these policies earns no less than some valid answer, and the most it earns."""
        earned = [[s for scores in of for s in scores] for of in zip(*map(self.scores, names), strict=True)]
        pairs = [(max(e), min(v)) for e, v in zip(earned, self.valid(), strict=True) if e and v]
        return sum(e >= v - EPSILON for e, v in pairs), max((e for e, _ in pairs), default=math.nan)

    @property
    def span(self) -> float:
        """How much more a perfect answer earns than the worst valid one."""
        return self.mean("oracle") - self.mean("anti-oracle")


def not_deterministic(evidence: Evidence) -> Verdict:
    """The same call is worth the same twice; where it is not, no other verdict can compare what two calls earn."""
    for task, responses, parts in list(zip(evidence.tasks, evidence.responses, evidence.parts, strict=True))[:FEW]:
        for policy in ("oracle", "anti-oracle", "verbose", "empty"):
            first, again = parts[policy][0]["score"], evidence.scorer.score(task, responses[policy][0])
            if abs(first - again) > EPSILON:
                text = f"{policy} earns {first:.6g} in one call and {again:.6g} in the same call again"
                return Verdict("not deterministic", True, text)
    return Verdict("not deterministic", False, "the same call earns the same again")


def crashes(scorer: Scorer) -> Verdict:
    found = scorer.crashes
    return Verdict("crashes", bool(found), f"{len(found)}: {found[0]}" if found else "none")


def no_signal(evidence: Evidence) -> Verdict:
    oracle, worst = evidence.mean("oracle"), evidence.mean("anti-oracle")
    flagged = not evidence.span > EPSILON
    return Verdict("no signal", flagged, f"a perfect answer earns {oracle:.3g}, the worst valid one {worst:.3g}")


def constant_term(evidence: Evidence) -> Verdict:
    """A perfect answer that earns nothing says that something is always deducted; so does a part that never changes, other
    than ``expected``, which may be the same in truth (``wrong_expectation`` judges it)."""
    oracle = evidence.mean("oracle")
    if oracle <= EPSILON:
        return Verdict("constant term", True, f"a perfect, perfectly written answer earns {oracle:.3g}")
    seen: dict[str, set[float]] = {}
    for of_task in evidence.parts:
        for policy in of_task.values():
            for parts in policy:
                for key, value in parts.items():
                    seen.setdefault(key, set()).add(value)
    smaller = next((task for task in evidence.tasks if len(task.texts) > 2), None)
    if smaller is not None:  # what belongs to the pool, such as its size, changes with it
        fewer = smaller.reordered([i for i in range(len(smaller.texts)) if i != smaller.worst])
        for key, value in evidence.scorer.parts(
            fewer, evidence.dialect.say(fewer, evidence.dialect.right(fewer))
        ).items():
            seen.setdefault(key, set()).add(value)
        if fixed := {key: min(v) for key, v in seen.items() if len(v) == 1 and v != {0.0} and key != "expected"}:
            key, value = next(iter(fixed.items()))
            return Verdict("constant term", True, f"{key} is {value:.3g} whatever is answered")
    return Verdict("constant term", False, f"a perfect answer earns {oracle:.3g}; every part varies")


def saturation(evidence: Evidence) -> Verdict:
    """What random answers earn has to be known, so that a learner can subtract it: stated as ``expected``, or the same
    whatever the size of the pool."""
    if not evidence.span > EPSILON:
        return Verdict("saturation", None, "no signal to saturate")
    random = evidence.mean("random")
    share = (random - evidence.mean("anti-oracle")) / evidence.span
    text = f"a random valid answer earns {random:.3g}, {share:.0%} of the way from the worst to the perfect one"
    known = share >= SATURATED and _baseline_is_known(evidence)
    return Verdict("saturation", share >= SATURATED and not known, text + ("; that is accounted for" if known else ""))


def _baseline_is_known(evidence: Evidence) -> bool:
    if evidence.dialect.ranking:
        return abs(evidence.mean("random") - (_expected(evidence) or 0.0)) <= _error_of_random(evidence)
    unknown = []  # what random exclusions earn beyond what is stated, in pools of several sizes
    for task in evidence.tasks[:FEW]:
        some = sorted({task.best, task.worst, *range(0, len(task.texts), 2)})
        for pool in [task, task.reordered(some)]:
            parts = [evidence.scorer.parts(pool, evidence.dialect.say(pool, [i])) for i in range(len(pool.texts))]
            unknown.append(fmean(p["score"] - p.get("expected", 0.0) for p in parts))
    sizes = {len(task.texts) for task in evidence.tasks[:FEW]}
    return max(unknown) - min(unknown) <= EPSILON and (sizes != {2} or abs(unknown[0]) <= EPSILON)


def wrong_expectation(evidence: Evidence) -> Verdict:
    expected, random = _expected(evidence), evidence.mean("random")
    if expected is None:
        return Verdict("wrong expectation", None, "the reward states none")
    flagged = abs(expected - random) > _error_of_random(evidence)
    return Verdict(
        "wrong expectation", flagged, f"expected says {expected:.3g}, a random valid answer earns {random:.3g}"
    )


def _expected(evidence: Evidence) -> float | None:
    stated = [[parts["expected"] for parts in of["random"] if "expected" in parts] for of in evidence.parts]
    return fmean(map(fmean, stated)) if all(stated) else None


def _error_of_random(evidence: Evidence) -> float:
    """How far the mean of ``random`` may be off: exclusions are all there, whole rankings are a sample."""
    if not evidence.dialect.ranking:
        return EPSILON
    scores = [score for of_task in evidence.scores("random") for score in of_task]
    return 4 * pstdev(scores) / math.sqrt(len(scores)) + EPSILON


def prompt_leaks(evidence: Evidence) -> Verdict:
    """The reward of a response must not hang on what the prompt shows, and to say the prompt again is no answer."""
    dialect, scorer = evidence.dialect, evidence.scorer
    for task in evidence.tasks[:FEW]:
        shown = [task] + [task.asked(dialect.say(task, names)) for names in (dialect.right(task), dialect.wrong(task))]
        for response, what in (("", "an empty response"), (dialect.say(task, dialect.right(task)), "a perfect answer")):
            scores = [scorer.score(t, response) for t in shown]
            if max(scores) - min(scores) > EPSILON:
                text = f"{what} earns {min(scores):.3g} or {max(scores):.3g}, depending on answers shown in the prompt"
                return Verdict("prompt leaks", True, text)
    count, most = evidence.paid_as_valid("prompt echo")
    if count:
        return Verdict("prompt leaks", True, f"saying the prompt again earns up to {most:.3g}, in {count} tasks")
    return Verdict("prompt leaks", False, f"the prompt has no say; saying it again earns {most:.3g} at most")


def not_answering_pays(evidence: Evidence) -> Verdict:
    count, most = evidence.paid_as_valid("empty", "refusal", "wrong language", "hostile")
    low = min(min(scores) for scores in evidence.valid() if scores)
    text = f"no answer earns {most:.3g} at most, a valid one {low:.3g} at least"
    return Verdict("not answering pays", bool(count), text + (f"; in {count} tasks it pays as much" if count else ""))


def guesses(evidence: Evidence) -> Verdict:
    count, most = evidence.paid_as_valid("near miss")
    return Verdict(
        "guesses", bool(count), f"a name that is nearly a candidate's earns {most:.3g} at most; as valid in {count}"
    )


def several_answers(evidence: Evidence) -> Verdict:
    if not any(evidence.scores("several answers")):
        return Verdict("several answers", None, "bare rankings cannot be told from a longer one")
    count, most = evidence.paid_as_valid("several answers")
    return Verdict(
        "several answers", bool(count), f"naming several at once earns {most:.3g} at most; as valid in {count}"
    )


def order_violations(evidence: Evidence) -> Verdict:
    """A better answer may not earn less, and nothing may earn more than the perfect one."""
    for of_task, task in zip(evidence.parts, evidence.tasks, strict=True):
        perfect = of_task["oracle"][0]["score"]
        for policy, given in of_task.items():
            if any(parts["score"] > perfect + EPSILON for parts in given):
                top = max(parts["score"] for parts in given)
                return Verdict("order violations", True, f"{policy} earns {top:.3g}, a perfect answer {perfect:.3g}")
        for (better, gain), (worse, loss) in _ordered(evidence, task, of_task):
            if loss > gain + EPSILON:
                return Verdict("order violations", True, f"{worse} earns {loss:.3g}, {better} {gain:.3g}")
    return Verdict("order violations", False, "no worse answer earns more")


def _ordered(
    evidence: Evidence, task: Task, of_task: dict[str, list[Parts]]
) -> list[tuple[tuple[str, float], tuple[str, float]]]:
    """Pairs of answers, the better one first, with what they earn."""
    if evidence.dialect.ranking:
        order = task.ranked()
        chain = [[*order[1:k], order[0], *order[k:]] for k in range(1, len(order) + 1)]
        earned = [evidence.scorer.score(task, evidence.dialect.say(task, places)) for places in chain]
        named = [(f"the best at rank {rank}", score) for rank, score in enumerate(earned, 1)]
        named.append(("the best behind items that name nobody", of_task["unread items"][0]["score"]))
        return list(itertools.pairwise(named))
    scores = [parts["score"] for parts in of_task["random"]]
    named = [(f"excluding relevance {r:g}", s) for r, s in zip(task.relevance, scores, strict=True)]
    return [
        (named[i], named[j])
        for i, j in itertools.permutations(range(len(named)), 2)
        if task.relevance[i] < task.relevance[j]
    ]


def position_bias(evidence: Evidence) -> Verdict:
    """The same answer about the same candidates, shown in another order, is worth the same."""
    dialect, scorer = evidence.dialect, evidence.scorer
    for task in evidence.tasks[:FEW]:
        places = list(range(len(task.texts)))
        if len(set(task.texts)) < len(places):
            continue
        answers = [dialect.right(task), dialect.wrong(task)] if dialect.ranking else [[i] for i in places]
        for order in (places[::-1], places[1:] + places[:1]):
            other = task.reordered(order)
            for names in answers:
                here = scorer.score(task, dialect.say(task, names))
                there = scorer.score(other, dialect.say(other, [order.index(i) for i in names]))
                if abs(here - there) > EPSILON:
                    text = f"one answer earns {here:.3g} or {there:.3g}, depending on the order shown"
                    return Verdict("position bias", True, text)
    return Verdict("position bias", False, "the order shown changes nothing")


def equal_texts_collapse(evidence: Evidence) -> Verdict:
    """Of two candidates with one text, one the best and one the worst, some answer must be able to mean the right one."""
    score, ranking = evidence.scorer.score, evidence.dialect.ranking
    told = merged = 0
    for task in evidence.tasks[:FEW]:
        right, wrong = evidence.dialect.right(task), evidence.dialect.wrong(task)
        if (
            not score(task, evidence.dialect.say(task, right))
            > score(task, evidence.dialect.say(task, wrong)) + EPSILON
        ):
            continue  # to exclude the best costs nothing here: there is another as good
        twins = task.with_twins()
        if ranking:  # the perfect order, and the one with the two of one text exchanged
            wrong = [{task.best: task.worst, task.worst: task.best}.get(i, i) for i in right]
        said = [(d.say(twins, right), d.say(twins, wrong)) for d in dialects(ranking)]
        apart = any(score(twins, better) > score(twins, worse) + EPSILON for better, worse in said)
        told, merged = told + apart, merged + (not apart)
    if not told + merged:
        return Verdict("equal texts collapse", None, "no signal to lose")
    text = f"two candidates of one text, the best and the worst, are told apart in {told} of {told + merged} tasks"
    return Verdict("equal texts collapse", merged > 0, text)


def failures_not_counted(evidence: Evidence) -> Verdict:
    """Some part besides the score has to tell an answer that could not be read from any that could, an untidy one too."""
    dialect, untidy = evidence.dialect, list[Parts]()
    for task in evidence.tasks[:FEW]:
        said = [dialect.say(task, names) for names in (dialect.right(task), dialect.wrong(task))]
        better, worse = (evidence.scorer.parts(task, f"Sure. {answer}") for answer in said)
        if abs(better["score"] - worse["score"]) > EPSILON:  # they were read
            untidy += [better, worse]

    def values(key: str, *policies: str) -> set[float]:
        given = [parts for of in evidence.parts for name in policies for parts in of[name]]
        return {parts.get(key, math.nan) for parts in given if not math.isnan(parts["score"])}

    keys = {key for of in evidence.parts for parts in of["oracle"] for key in parts} - {"score"}
    told = [
        key
        for key in sorted(keys)
        if len(lost := values(key, "empty")) == 1
        and len(read := values(key, "oracle", "anti-oracle", "random") | {p.get(key, math.nan) for p in untidy}) == 1
        and read != lost
    ]
    if told:
        return Verdict("failures not counted", False, f"{told[0]} tells them")
    return Verdict("failures not counted", True, "no part of the result tells an unreadable answer from a wrong one")


CHECKS = (
    no_signal,
    constant_term,
    saturation,
    wrong_expectation,
    prompt_leaks,
    not_answering_pays,
    guesses,
    several_answers,
    order_violations,
    position_bias,
    equal_texts_collapse,
    failures_not_counted,
)


def parser_guesses(parser: Callable[[str, Sequence[str]], Any] | None, evidence: Evidence) -> Verdict:
    """What reads answers at test time may not turn what names nobody into a candidate. ValueError for a parser that raises
    instead of reading, or returns what says neither whom it names nor that it names nobody."""
    if parser is None:
        return Verdict("parser guesses", None, "no parser given")
    asked = made_up = 0
    for task, of_task in zip(evidence.tasks, evidence.responses, strict=True):
        for policy in ("near miss", "refusal", "wrong language", "empty"):
            for response in of_task[policy]:
                asked += 1
                made_up += _names_somebody(parser, response, task.texts)
    return Verdict(
        "parser guesses", made_up > 0, f"{made_up} of {asked} answers that name nobody were given a candidate"
    )


def _names_somebody(parser: Callable[[str, Sequence[str]], Any], response: str, texts: Sequence[str]) -> bool:
    try:
        read = parser(response, texts)
    except (Exception, SystemExit) as error:  # whatever a parser raises is its user's to mend
        raise ValueError(
            f"the parser raises {raised(error)} on {response[:40]!r}; it is called as parser(response, candidates), and "
            "returns None where an answer names nobody"
        ) from error
    if read is None or isinstance(read, Integral):
        return read is not None
    if isinstance(read, Sequence):  # a text is one, too
        return len(read) > 0
    if getattr(read, "order", None) is not None:
        return bool(read.order)
    if hasattr(read, "index"):
        return read.index is not None
    raise ValueError(
        f"the parser returns a {type(read).__name__} on {response[:40]!r}; it has to return None, a place, a text, a list of "
        "them, or an answer with an attribute index or order"
    )
