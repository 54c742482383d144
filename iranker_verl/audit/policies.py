"""What an audit lets a reward function score: tasks, and policies that answer them well, badly, emptily and with malice.

An answer's *dialect* is how it is written: with a thought or without, in tags or bare, by label or by text. A reward
function reads some of them; the audit finds out which (:func:`iranker_verl.audit.audit.audit`) and speaks that one.
"""

from __future__ import annotations

import itertools
import pickle
import random
from collections.abc import Iterable, Mapping, Sequence
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

    @cached_property
    def _packed(self) -> bytes:
        return pickle.dumps((self.truth, self.extra | {"num_turns": 2, "rollout_reward_scores": {}}))

    def handed(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """``ground_truth`` and ``extra_info`` for one call, with the two fields that verl's manager adds: new ones every time,
        as a reward function may write into them."""
        truth, extra = pickle.loads(self._packed)
        return truth, extra

    def reordered(self, order: Sequence[int]) -> Task:
        """The task with the candidates at these places, in this order, and all that the row says of each candidate."""
        count = len(self.texts)

        def follow(values: Any) -> Any:
            return [values[i] for i in order] if isinstance(values, list) and len(values) == count else values

        target: Any = self.truth.get("target")
        if target not in order:
            target = max(order, key=self.relevance.__getitem__)
        truth = {key: follow(values) for key, values in self.truth.items()} | {"target": list(order).index(target)}
        # a list of other things, such as the history's ids, may have as many entries
        extra = {key: follow(values) if key == "candidate_ids" else values for key, values in self.extra.items()}
        return replace(self, truth=truth, extra=extra)

    def asked(self, more: str) -> Task:
        """The task with ``more`` at the end of its prompt, also where verl lets a row carry it."""
        prompt = self.prompt.removesuffix(TURN) + more + "\n" + TURN
        return replace(self, prompt=prompt, extra=self.extra | {"prompt": prompt})

    def with_twins(self) -> Task:
        """The task in which its worst candidate bears the text of its best."""
        texts = [*self.texts]
        texts[self.worst] = texts[self.best]
        return replace(self, truth=self.truth | {"candidates": texts})


def tasks_of(rows: Iterable[Mapping[str, Any]]) -> list[Task]:
    """:meth:`Task.from_row` of each; its ValueError names the row, counted from 0."""
    tasks = []
    for number, row in enumerate(rows):
        try:
            tasks.append(Task.from_row(row))
        except ValueError as error:
            raise ValueError(f"row {number}: {error}") from error
    return tasks


class Dialect(NamedTuple):
    """How answers are written. ``ranking``: they order all candidates, instead of excluding one."""

    ranking: bool
    by_label: bool
    tags: bool
    thought: bool

    def say(self, task: Task, places: Sequence[int], thought: str = "One fits worst.") -> str:
        """The answer that names the candidates at ``places``."""
        return self.items(self.names(task, places), thought)

    def names(self, task: Task, places: Sequence[int]) -> list[str]:
        return [f"[{label(i)}]" if self.by_label else task.texts[i] for i in places]

    def items(self, items: Sequence[str], thought: str = "One fits worst.") -> str:
        """The answer of these items, whatever they say."""
        between = "\n" if not self.by_label else " > " if self.ranking else ", "
        return self.write(between.join(items), thought)

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
    # "[B] (so so) > [A]": what nobody can read has a rank, and so A's is the second
    *others, best = dialect.names(task, right[::-1])
    unread = [dialect.items([*(f"{name} (so so)" for name in others), best])]
    near = [f"{task.texts[i]} or something like it" for i in (task.worst, task.best)] + [f"[{label(count + 2)}]"]
    return {
        "oracle": [dialect.say(task, right)],
        "anti-oracle": [dialect.say(task, dialect.wrong(task))],
        "random": valid,
        "first place": [first],
        "last place": [last],
        "verbose": [f"<think>\n{PROSE * 20}\n</think>\n{dialect._replace(thought=False).say(task, right)}"],
        "several answers": several,
        **({"unread items": unread} if dialect.ranking else {}),
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
    ("<answer>[A]</answer>", "", ""),
    ("[", "", ""),
    ("<", "", ""),
    ("{", "", ""),
    ("&", "", ""),
    ("\\boxed{", "", ""),
    ("[A] > ", "<answer>", "</answer>"),
    ("A, ", "<answer>", "</answer>"),
    ("1. A\n", "", ""),
    ("&#1", "<answer>", "</answer>"),
    ("\u0301\u0316", "<answer>", "</answer>"),
    ('"', "<answer>", "</answer>"),
)
