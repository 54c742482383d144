"""Samples of chat text on which the tiny base is trained, made of *training* tasks only.

``language``   a context and its positive candidate, as plain text
``best``       "Which fits best:" over a random part of a task's candidates, the positive among them; and at the end of
               every candidate's line, whether this candidate fits, yes or no
``choice``     the same question without the verdicts
``worse``      "Which fits worse:" of two, one of them the positive: what the opposite of the question above is
``name``       the first question, answered by the candidate's text
``exclusion``  the real prompt with a valid label, uniformly at random: the form of an exclusion, not which is good
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from random import Random

from iranker_verl.ranking import Elimination, RankingTask
from iranker_verl.ranking.templates import Message, Template, parse
from reward_fns.answers import label

_QUESTION = """
id: WHICH
answer: label
candidate: "[{label}] {text}"
system: null
user:
  recommendation: "History: {context}\\nCandidates:\\n{candidates}\\nWhich fits WHICH:"
  routing: "{context}\\nCandidates:\\n{candidates}\\nWhich fits WHICH:"
  passage: "Query: {context}\\nCandidates:\\n{candidates}\\nWhich fits WHICH:"
"""
BEST, WORSE = (parse(_QUESTION.replace("WHICH", which), which) for which in ("best", "worse"))
YES, NO = "yes", "no"


@dataclass(frozen=True)
class Sample:
    """A question (None: plain text) and its answer.

    ``asides`` are ``(line of the question, verdict)``: the target right after that line. They are targets only and not
    part of the input, so one pass over a list has as many targets as lines.
    """

    messages: list[Message] | None
    answer: str
    asides: tuple[tuple[str, str], ...] = ()


def part_of(random: Random, task: RankingTask, largest: int | None = None) -> RankingTask:
    """Return the task with at least two random candidates, a best one among them, in their order."""
    size = random.randint(2, min(len(task.candidates), largest or len(task.candidates)))
    others = [i for i in range(len(task.candidates)) if i != task.target]
    kept = sorted([task.target, *random.sample(others, size - 1)])
    if len({task.relevance[i] for i in kept}) == 1:  # all equally good: nothing to distinguish
        return task
    return task.at(kept)


def language(task: RankingTask, place: int | None = None) -> Sample:
    """Return a context and its positive, or the candidate at ``place``, as plain text."""
    chosen = task.candidates[task.target if place is None else place]
    return Sample(None, f"{task.context}; {chosen.text}")


def best(task: RankingTask) -> Sample:
    """Return the question for the best candidate, with a verdict a line."""
    state = Elimination(task)
    top = max(state.task.relevance)
    asides = tuple(
        (f"[{label(i)}] {candidate.text}\n", YES if relevance == top else NO)
        for i, (candidate, relevance) in enumerate(zip(state.pool, state.task.relevance, strict=True))
    )
    return Sample(BEST.messages(state), f"[{label(state.task.target)}]", asides)


def choice(task: RankingTask) -> Sample:
    """Return the question for the best candidate, without verdicts."""
    return replace(best(task), asides=())


def worse(random: Random, task: RankingTask) -> Sample:
    """Return the question for the worse of two candidates."""
    state = Elimination(part_of(random, task, 2))
    least = min(range(len(state.pool)), key=lambda place: state.task.relevance[place])
    return Sample(WORSE.messages(state), f"[{label(least)}]")


def name(task: RankingTask) -> Sample:
    """Return the question for the best candidate, answered by its text; of a passage, plain text."""
    if task.scenario == "passage":
        return language(task)
    return Sample(BEST.messages(Elimination(task)), f" {task.candidates[task.target].text}")


def exclusion(random: Random, task: RankingTask, template: Template) -> Sample:
    """Return the template's question with a uniformly random answer: an exclusion, or a ranking of all."""
    state = template.start(task)
    count = len(state.pool)
    indices = random.sample(range(count), count) if template.kind == "direct" else [random.randrange(count)]
    return Sample(template.messages(state), template.answer_for(state, *indices))


KINDS = ("language", "best", "choice", "worse", "name", "exclusion")


def make_sample(kind: str, random: Random, task: RankingTask, template: Template, largest: int | None = None) -> Sample:
    """Return a sample of a kind over a random part of a task's candidates, at most ``largest`` of them."""
    if kind == "language":
        return language(task)
    if kind == "worse":
        return worse(random, task)
    part = part_of(random, task, largest)
    if kind == "exclusion":
        return exclusion(random, part, template)
    return {"best": best, "choice": choice, "name": name}[kind](part)
