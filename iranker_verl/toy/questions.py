"""What the tiny base is taught, as samples of chat text. Only *training* tasks come in here.

``language``   a context and the candidate that goes with it, as plain text
``best``       "Which fits best:" over a random part of a task's candidates, the positive among them; and at the end of
               every candidate's line, of the text so far: does this one fit, yes or no?
``exclusion``  the real prompt with a valid label drawn by dice: the form of an exclusion, nothing about which is good
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from iranker_verl.ranking import Elimination, RankingTask
from iranker_verl.ranking.templates import Message, Template, parse
from reward_fns.answers import label

BEST = parse(
    """
id: best
answer: label
candidate: "[{label}] {text}"
system: null
user:
  recommendation: "History: {context}\\nCandidates:\\n{candidates}\\nWhich fits best:"
  routing: "{context}\\nCandidates:\\n{candidates}\\nWhich fits best:"
  passage: "Query: {context}\\nCandidates:\\n{candidates}\\nWhich fits best:"
""",
    "best",
)
YES, NO = "yes", "no"


@dataclass(frozen=True)
class Sample:
    """A question (None: plain text) and its answer. ``asides`` are ``(line of the question, verdict)``: what the model
    would answer if it were asked right after that line. They are learned, but are in nobody's input: as many questions
    as there are lines, for one reading of the list."""

    messages: list[Message] | None
    answer: str
    asides: tuple[tuple[str, str], ...] = ()


def part_of(random: Random, task: RankingTask, largest: int | None = None) -> RankingTask:
    """The task with a random part of its candidates, two at least, a best one among them, in their order."""
    size = random.randint(2, min(len(task.candidates), largest or len(task.candidates)))
    others = [i for i in range(len(task.candidates)) if i != task.target]
    kept = sorted([task.target, *random.sample(others, size - 1)])
    if len({task.relevance[i] for i in kept}) == 1:  # several equally good ones, by chance: nothing to tell apart
        return task
    return task.at(kept)


def language(task: RankingTask) -> Sample:
    return Sample(None, f"{task.context}; {task.candidates[task.target].text}")


def best(task: RankingTask) -> Sample:
    state = Elimination(task)
    top = max(state.task.relevance)
    asides = tuple(
        (f"[{label(i)}] {candidate.text}\n", YES if relevance == top else NO)
        for i, (candidate, relevance) in enumerate(zip(state.pool, state.task.relevance, strict=True))
    )
    return Sample(BEST.messages(state), f"[{label(state.task.target)}]", asides)


def exclusion(random: Random, task: RankingTask, template: Template) -> Sample:
    """The template's own question, answered by dice: a random exclusion, or a random ranking of all."""
    state = template.start(task)
    count = len(state.pool)
    places = random.sample(range(count), count) if template.kind == "direct" else [random.randrange(count)]
    return Sample(template.messages(state), template.answer_for(state, *places))


KINDS = ("language", "best", "exclusion")


def make(kind: str, random: Random, task: RankingTask, template: Template, largest: int | None = None) -> Sample:
    """A sample of a kind over a random part of a task's candidates, ``largest`` of them at most."""
    if kind == "language":
        return language(task)
    part = part_of(random, task, largest)
    return best(part) if kind == "best" else exclusion(random, part, template)
