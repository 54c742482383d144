"""The verdicts of an audit on a reward function: each looks for one fault, and is flagged only on the evidence it states."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from numbers import Integral
from statistics import fmean, pstdev
from typing import Any

from iranker_verl.audit.policies import Task, dialects
from iranker_verl.audit.scorer import EPSILON, Evidence, Parts, Scorer, Verdict, raised

# A random valid answer that earns this share of the span between the worst and the perfect one leaves little to learn.
SATURATED = 0.8
# Checks that need calls of their own make them on so many tasks.
FEW = 20


def not_deterministic(evidence: Evidence) -> Verdict:
    """Check that the same call scores the same twice; otherwise no other verdict can compare two calls."""
    for task, responses, parts in list(zip(evidence.tasks, evidence.responses, evidence.parts, strict=True))[:FEW]:
        for policy in ("oracle", "anti-oracle", "verbose", "empty"):
            first, again = parts[policy][0]["score"], evidence.scorer.score(task, responses[policy][0])
            if abs(first - again) > EPSILON:
                text = f"{policy} earns {first:.6g} in one call and {again:.6g} in the same call again"
                return Verdict("not deterministic", True, text)
    return Verdict("not deterministic", False, "the same call earns the same again")


def crashes(scorer: Scorer) -> Verdict:
    """Check that no call raised an exception."""
    found = scorer.crashes
    return Verdict("crashes", bool(found), f"{len(found)}: {found[0]}" if found else "none")


def no_signal(evidence: Evidence) -> Verdict:
    """Check that a perfect answer earns more than the worst valid one."""
    oracle, worst = evidence.mean("oracle"), evidence.mean("anti-oracle")
    flagged = not evidence.span > EPSILON
    return Verdict("no signal", flagged, f"a perfect answer earns {oracle:.3g}, the worst valid one {worst:.3g}")


def constant_term(evidence: Evidence) -> Verdict:
    """Check that nothing is always deducted: a perfect answer earns something, and no part but ``expected`` is constant."""
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
            fewer, evidence.dialect.answer(fewer, evidence.dialect.right(fewer))
        ).items():
            seen.setdefault(key, set()).add(value)
        if fixed := {key: min(v) for key, v in seen.items() if len(v) == 1 and v != {0.0} and key != "expected"}:
            key, value = next(iter(fixed.items()))
            return Verdict("constant term", True, f"{key} is {value:.3g} whatever is answered")
    return Verdict("constant term", False, f"a perfect answer earns {oracle:.3g}; every part varies")


def saturation(evidence: Evidence) -> Verdict:
    """Check that a learner can subtract what random answers earn: it is returned as ``expected``, or equal at all pool sizes."""
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
    unknown = []  # what random exclusions earn beyond ``expected``, in pools of several sizes
    for task in evidence.tasks[:FEW]:
        some = sorted({task.best, task.worst, *range(0, len(task.texts), 2)})
        for pool in [task, task.reordered(some)]:
            parts = [evidence.scorer.parts(pool, evidence.dialect.answer(pool, [i])) for i in range(len(pool.texts))]
            unknown.append(fmean(p["score"] - p.get("expected", 0.0) for p in parts))
    sizes = {len(task.texts) for task in evidence.tasks[:FEW]}
    return max(unknown) - min(unknown) <= EPSILON and (sizes != {2} or abs(unknown[0]) <= EPSILON)


def wrong_expectation(evidence: Evidence) -> Verdict:
    """Check that ``expected`` is the mean reward of random valid answers."""
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
    """Return how far the mean of ``random`` may be off: it has all exclusions, and a sample of whole rankings."""
    if not evidence.dialect.ranking:
        return EPSILON
    scores = [score for of_task in evidence.scores("random") for score in of_task]
    return 4 * pstdev(scores) / math.sqrt(len(scores)) + EPSILON


def prompt_leaks(evidence: Evidence) -> Verdict:
    """Check that the reward of a response does not depend on the prompt, and that repeating the prompt is no answer."""
    dialect, scorer = evidence.dialect, evidence.scorer
    for task in evidence.tasks[:FEW]:
        prompts = [task] + [
            task.with_prompt_suffix(dialect.answer(task, names)) for names in (dialect.right(task), dialect.wrong(task))
        ]
        for response, what in (
            ("", "an empty response"),
            (dialect.answer(task, dialect.right(task)), "a perfect answer"),
        ):
            scores = [scorer.score(t, response) for t in prompts]
            if max(scores) - min(scores) > EPSILON:
                text = f"{what} earns {min(scores):.3g} or {max(scores):.3g}, depending on answers in the prompt"
                return Verdict("prompt leaks", True, text)
    count, most = evidence.paid_as_valid("prompt echo")
    if count:
        return Verdict("prompt leaks", True, f"repeating the prompt earns up to {most:.3g}, in {count} tasks")
    return Verdict("prompt leaks", False, f"the prompt has no influence; repeating it earns {most:.3g} at most")


def not_answering_pays(evidence: Evidence) -> Verdict:
    """Check that a response without an answer earns less than any valid one."""
    count, most = evidence.paid_as_valid("empty", "refusal", "wrong language", "hostile")
    low = min(min(scores) for scores in evidence.valid() if scores)
    text = f"no answer earns {most:.3g} at most, a valid one {low:.3g} at least"
    return Verdict("not answering pays", bool(count), text + (f"; in {count} tasks it pays as much" if count else ""))


def guesses(evidence: Evidence) -> Verdict:
    """Check that a name which is nearly a candidate's earns less than any valid answer."""
    count, most = evidence.paid_as_valid("near miss")
    return Verdict(
        "guesses", bool(count), f"a name that is nearly a candidate's earns {most:.3g} at most; as valid in {count}"
    )


def several_answers(evidence: Evidence) -> Verdict:
    """Check that naming several candidates at once earns less than any valid answer."""
    if not any(evidence.scores("several answers")):
        return Verdict("several answers", None, "bare rankings cannot be told from a longer one")
    count, most = evidence.paid_as_valid("several answers")
    return Verdict(
        "several answers", bool(count), f"naming several at once earns {most:.3g} at most; as valid in {count}"
    )


def order_violations(evidence: Evidence) -> Verdict:
    """Check that no better answer earns less, and that nothing earns more than the perfect one."""
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
    """Return pairs of answers, the better one first, with what they earn."""
    if evidence.dialect.ranking:
        order = task.ranked()
        chain = [[*order[1:k], order[0], *order[k:]] for k in range(1, len(order) + 1)]
        earned = [evidence.scorer.score(task, evidence.dialect.answer(task, indices)) for indices in chain]
        named = [(f"the best at rank {rank}", score) for rank, score in enumerate(earned, 1)]
        named.append(("the best behind items that name no candidate", of_task["unread items"][0]["score"]))
        return list(itertools.pairwise(named))
    scores = [parts["score"] for parts in of_task["random"]]
    named = [(f"excluding relevance {r:g}", s) for r, s in zip(task.relevance, scores, strict=True)]
    return [
        (named[i], named[j])
        for i, j in itertools.permutations(range(len(named)), 2)
        if task.relevance[i] < task.relevance[j]
    ]


def position_bias(evidence: Evidence) -> Verdict:
    """Check that the same answer about the same candidates in another order of the prompt earns the same."""
    dialect, scorer = evidence.dialect, evidence.scorer
    for task in evidence.tasks[:FEW]:
        indices = list(range(len(task.texts)))
        if len(set(task.texts)) < len(indices):
            continue
        answers = [dialect.right(task), dialect.wrong(task)] if dialect.ranking else [[i] for i in indices]
        for order in (indices[::-1], indices[1:] + indices[:1]):
            other = task.reordered(order)
            for names in answers:
                here = scorer.score(task, dialect.answer(task, names))
                there = scorer.score(other, dialect.answer(other, [order.index(i) for i in names]))
                if abs(here - there) > EPSILON:
                    text = f"one answer earns {here:.3g} or {there:.3g}, depending on the order of the prompt"
                    return Verdict("position bias", True, text)
    return Verdict("position bias", False, "the order of the prompt changes nothing")


def equal_texts_collapse(evidence: Evidence) -> Verdict:
    """Check that of two candidates with one text, the best and the worst, some answer can name the right one."""
    score, ranking = evidence.scorer.score, evidence.dialect.ranking
    told = merged = 0
    for task in evidence.tasks[:FEW]:
        right, wrong = evidence.dialect.right(task), evidence.dialect.wrong(task)
        if (
            not score(task, evidence.dialect.answer(task, right))
            > score(task, evidence.dialect.answer(task, wrong)) + EPSILON
        ):
            continue  # excluding the best costs nothing here: another is as good
        twins = task.with_equal_texts()
        if ranking:  # the perfect order, and the one with these two exchanged
            wrong = [{task.best: task.worst, task.worst: task.best}.get(i, i) for i in right]
        answers = [(d.answer(twins, right), d.answer(twins, wrong)) for d in dialects(ranking)]
        apart = any(score(twins, better) > score(twins, worse) + EPSILON for better, worse in answers)
        told, merged = told + apart, merged + (not apart)
    if not told + merged:
        return Verdict("equal texts collapse", None, "no signal to lose")
    text = f"two candidates of one text, the best and the worst, are told apart in {told} of {told + merged} tasks"
    return Verdict("equal texts collapse", merged > 0, text)


def failures_not_counted(evidence: Evidence) -> Verdict:
    """Check that a part besides the score tells responses that could not be read from all that could, untidy ones too."""
    dialect, untidy = evidence.dialect, list[Parts]()
    for task in evidence.tasks[:FEW]:
        answers = [dialect.answer(task, names) for names in (dialect.right(task), dialect.wrong(task))]
        better, worse = (evidence.scorer.parts(task, f"Sure. {answer}") for answer in answers)
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
    """Check that the parser of test time reads no candidate from a response that names none.

    Raise ValueError for a parser that raises, or returns something of another kind than :func:`audit.audit` allows.
    """
    if parser is None:
        return Verdict("parser guesses", None, "no parser given")
    parsed = made_up = 0
    for task, of_task in zip(evidence.tasks, evidence.responses, strict=True):
        for policy in ("near miss", "refusal", "wrong language", "empty"):
            for response in of_task[policy]:
                parsed += 1
                made_up += _names_a_candidate(parser, response, task.texts)
    return Verdict(
        "parser guesses", made_up > 0, f"{made_up} of {parsed} responses that name no candidate were read as one"
    )


def _names_a_candidate(parser: Callable[[str, Sequence[str]], Any], response: str, texts: Sequence[str]) -> bool:
    try:
        read = parser(response, texts)
    except (Exception, SystemExit) as error:  # a parser may raise anything
        raise ValueError(
            f"the parser raises {raised(error)} on {response[:40]!r}; it is called as parser(response, candidates), and "
            "returns None where a response names no candidate"
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
        f"the parser returns a {type(read).__name__} on {response[:40]!r}; it has to return None, an index, a text, a list of "
        "them, or an answer with an attribute index or order"
    )
