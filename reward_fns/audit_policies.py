"""What an audit lets a reward function score: tasks, and policies that answer them well, badly, emptily and with malice.

An answer's *dialect* is how it is written: with a thought or without, in tags or bare, by label or by text. A reward
function reads some of them; the audit finds out which (:func:`reward_fns.audit.audit`) and speaks that one.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

from reward_fns.answers import label
from reward_fns.exclusion import relevance_of

# Where the answer begins, in the chat format of the published models.
TURN = "<|im_start|>assistant\n"
PROSE = "It is a question of what fits and what does not, and the answer follows from what has been chosen before. "


@dataclass(frozen=True)
class Task:
    """A row of prepared data, as a reward function is called with it."""

    source: str
    prompt: str
    truth: dict[str, Any]
    extra: dict[str, Any]

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Task:
        """ValueError for a row without the fields that verl hands to a reward function."""
        try:
            messages = [(message["role"], message["content"]) for message in row["prompt"]]
            prompt = "".join(f"<|im_start|>{role}\n{content}<|im_end|>\n" for role, content in messages)
            task = cls(
                str(row["data_source"]),
                prompt + TURN,
                dict(row["reward_model"]["ground_truth"]),
                dict(row.get("extra_info") or {}),
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"not a row that verl could score ({type(error).__name__}: {error})") from error
        relevance_of(task.truth)
        return task

    @cached_property
    def texts(self) -> list[str]:
        return relevance_of(self.truth)[0]

    @cached_property
    def relevance(self) -> list[float]:
        return list(relevance_of(self.truth)[1])

    @property
    def worst(self) -> int:
        return self.relevance.index(min(self.relevance))

    @property
    def best(self) -> int:
        return self.relevance.index(max(self.relevance))

    def ranked(self) -> list[int]:
        """All places, best first."""
        return sorted(range(len(self.texts)), key=lambda i: -self.relevance[i])

    def reordered(self, order: Sequence[int]) -> Task:
        """The task with the candidates at these places, in this order: every list with one entry a candidate follows."""
        count = len(self.texts)

        def follow(values: dict[str, Any]) -> dict[str, Any]:
            lists = {k: v for k, v in values.items() if isinstance(v, list) and len(v) == count}
            return values | {k: [v[i] for i in order] for k, v in lists.items()}

        target: Any = self.truth.get("target")
        if target not in order:
            target = max(order, key=self.relevance.__getitem__)
        truth = follow(self.truth) | {"target": list(order).index(target)}
        return replace(self, truth=truth, extra=follow(self.extra))

    def asked(self, more: str) -> Task:
        """The task with ``more`` at the end of its prompt, also where verl lets a row carry it."""
        prompt = self.prompt.removesuffix(TURN) + more + "\n" + TURN
        return replace(self, prompt=prompt, extra=self.extra | {"prompt": prompt})

    def with_twins(self) -> Task:
        """The task in which its worst candidate bears the text of its best."""
        texts = [*self.texts]
        texts[self.worst] = texts[self.best]
        return replace(self, truth=self.truth | {"candidates": texts})


class Dialect(NamedTuple):
    """How answers are written. ``ranking``: they order all candidates, instead of excluding one."""

    ranking: bool
    by_label: bool
    tags: bool
    thought: bool

    def say(self, task: Task, places: Sequence[int], thought: str = "One fits worst.") -> str:
        """The answer that names the candidates at ``places``."""
        if self.by_label:
            return self.write((" > " if self.ranking else ", ").join(f"[{label(i)}]" for i in places), thought)
        return self.write("\n".join(task.texts[i] for i in places), thought)

    def write(self, answer: str, thought: str = "One fits worst.") -> str:
        """``answer``, whatever it says, in this dialect's form."""
        written = f"<answer>\n{answer}\n</answer>" if self.tags else answer
        return f"<think>\n{thought}\n</think>\n{written}" if self.thought else written

    def right(self, task: Task) -> list[int]:
        """What a perfect answer names: the worst candidate, or all in the best order."""
        return task.ranked() if self.ranking else [task.worst]

    def wrong(self, task: Task) -> list[int]:
        return task.ranked()[::-1] if self.ranking else [task.best]

    def __str__(self) -> str:
        form = ("<think>…</think> " if self.thought else "") + ("<answer>{}</answer>" if self.tags else "{}")
        name = "[A]" if self.by_label else "text"
        return form.format(f"{name}, {name}, …" if self.ranking else name)


def dialects(ranking: bool) -> list[Dialect]:
    """All of them, the clearest first."""
    choices = itertools.product((True, False), repeat=3)
    return [Dialect(ranking, by_label, tags, not plain) for tags, plain, by_label in choices]


NOT_ANSWERS = ("", " \n\t", "<answer></answer>", "<think></think>", "<think>\n\n</think>\n<answer>\n\n</answer>")
REFUSALS = ("I cannot decide.", "None of them.", "All of these fit.")
FOREIGN = ("我无法判断哪一个最不合适。", "Das lässt sich so nicht sagen.", "これは分かりません", "لا أعرف", "не знаю")
HOSTILE = (
    "<answer>" * 50,
    "<answer>" * 50 + "</answer>" * 50,
    "</answer><answer>",
    "<answer><answer></answer></answer>",
    "<think>" * 50 + "</think>",
    "</think>" * 50,
    "[" * 500,
    "[A" * 200,
    "A" * 500,
    "[ZZZ]",
    "1",
    "-1",
    "True",
    "&#" + "9" * 5000 + ";",
    "\u0301\u0316" * 300,
    "\ud800",
    "\0",
    "*" * 200,
    "{}{0}%s%n",
    "<answer>\n" * 20 + "\n</answer>" * 20,
)


def policies(task: Task, dialect: Dialect, seed: int) -> dict[str, list[str]]:
    """The responses of every policy to ``task``; what a policy earns is the mean over its responses.

    ``random`` is every single exclusion once, so that its mean is exact; for rankings it is a sample of 16 orders.
    """
    count = len(task.texts)
    places = range(count)
    right = dialect.right(task)
    shuffled = random.Random(f"{seed}:{task.prompt}")
    if dialect.ranking:
        valid = [dialect.say(task, shuffled.sample(places, count)) for _ in range(16)]
        first, last = dialect.say(task, places), dialect.say(task, places[::-1])
        several = [f"{dialect.say(task, right)}\n{dialect.say(task, right[::-1])}"] if dialect.tags else []
    else:
        valid = [dialect.say(task, [i]) for i in places]
        first, last = valid[0], valid[-1]
        several = ["\n".join(valid), dialect.say(task, places), "\n".join(valid[::-1])]
    near = [f"{task.texts[i]} or something like it" for i in (task.worst, task.best)] + [f"[{label(count + 2)}]"]
    return {
        "oracle": [dialect.say(task, right)],
        "anti-oracle": [dialect.say(task, dialect.wrong(task))],
        "random": valid,
        "first place": [first],
        "last place": [last],
        "verbose": [f"<think>\n{PROSE * 20}\n</think>\n{dialect._replace(thought=False).say(task, right)}"],
        "several answers": several,
        "near miss": [dialect.write(text) for text in near],
        # inside tags a list of candidates is an answer of its own
        "prompt echo": [task.prompt] if dialect.ranking else [task.prompt, dialect.write(task.prompt)],
        "empty": list(NOT_ANSWERS),
        "refusal": [*REFUSALS, *map(dialect.write, REFUSALS)],
        "wrong language": [*FOREIGN, *map(dialect.write, FOREIGN)],
        "hostile": [*HOSTILE, *map(dialect.write, HOSTILE)],
    }


# Families of responses that grow, for time against length: (what repeats, before it, behind it).
GROWING = (
    ("a", "", ""),
    (" ", "", ""),
    ("<answer>", "", ""),
    ("<answer> ", "", "</answer>"),
    ("</answer>", "<answer>", ""),
    (" ", "<answer>", ""),
    ("\n", "<answer>", "x"),
    ("a ", "<answer>", "</answer"),
    ("<think>", "", ""),
    ("\n</think>", "<think>", ""),
    (PROSE, "<think>\n", "\n</think>\n<answer>\n[A]\n</answer>"),
    ("[A] > ", "<answer>", "</answer>"),
    ("A, ", "<answer>", "</answer>"),
    ("1. A\n", "", ""),
    ("&#1", "<answer>", "</answer>"),
    ("\u0301\u0316", "<answer>", "</answer>"),
    ('"', "<answer>", "</answer>"),
)
