"""What an audit lets a reward function score: tasks, and policies that answer them perfectly, wrongly, emptily or with malice.

The *dialect* of an answer is its form: with reasoning or without, in tags or bare, by label or by text. A reward function reads
some of them; :func:`iranker_verl.audit.audit.audit` finds out which and uses that one.
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
        """Return the task of a prepared row. Raise ValueError for one without the fields that verl passes to a reward function."""
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
        """Return the candidates' texts, in prompt order."""
        return relevance_of(self.truth)[0]

    @cached_property
    def relevance(self) -> list[float]:
        """Return the candidates' relevance, in prompt order."""
        return list(relevance_of(self.truth)[1])

    @property
    def worst(self) -> int:
        """Return the index of the first candidate of the lowest relevance."""
        return self.relevance.index(min(self.relevance))

    @property
    def best(self) -> int:
        """Return the index of the first candidate of the highest relevance."""
        return self.relevance.index(max(self.relevance))

    def ranked(self) -> list[int]:
        """Return all indices, best first."""
        return sorted(range(len(self.texts)), key=lambda i: -self.relevance[i])

    @cached_property
    def _packed(self) -> bytes:
        given = {"prompt": self.prompt, "num_turns": 2, "rollout_reward_scores": {}}
        return pickle.dumps((self.truth, given | self.extra))

    def call_arguments(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return ``ground_truth`` and ``extra_info`` for one call, with the fields that verl's manager and our agent loop add.

        They are new objects every time, as a reward function may write into them.
        """
        truth, extra = pickle.loads(self._packed)
        return truth, extra

    def reordered(self, order: Sequence[int]) -> Task:
        """Return the task with the candidates at the indices ``order``, and the row's other values of each of them."""
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

    def with_prompt_suffix(self, more: str) -> Task:
        """Return the task with ``more`` at the end of its prompt."""
        return replace(self, prompt=self.prompt.removesuffix(TURN) + more + "\n" + TURN)

    def with_equal_texts(self) -> Task:
        """Return the task in which the worst candidate has the text of the best."""
        texts = [*self.texts]
        texts[self.worst] = texts[self.best]
        return replace(self, truth=self.truth | {"candidates": texts})


def tasks_of(rows: Iterable[Mapping[str, Any]]) -> list[Task]:
    """Return :meth:`Task.from_row` of each row. Raise its ValueError with the row's number, from 0."""
    tasks = []
    for number, row in enumerate(rows):
        try:
            tasks.append(Task.from_row(row))
        except ValueError as error:
            raise ValueError(f"row {number}: {error}") from error
    return tasks


class Dialect(NamedTuple):
    """A form of answers. ``ranking``: they order all candidates, instead of excluding one."""

    ranking: bool
    by_label: bool
    tags: bool
    reasoning: bool

    def answer(self, task: Task, indices: Sequence[int], reasoning: str = "One fits worst.") -> str:
        """Return the answer that names the candidates at ``indices``."""
        return self.answer_of_items(self.names(task, indices), reasoning)

    def names(self, task: Task, indices: Sequence[int]) -> list[str]:
        """Return the names of the candidates at ``indices``."""
        return [f"[{label(i)}]" if self.by_label else task.texts[i] for i in indices]

    def answer_of_items(self, items: Sequence[str], reasoning: str = "One fits worst.") -> str:
        """Return the answer with these items, valid or not."""
        between = "\n" if not self.by_label else " > " if self.ranking else ", "
        return self.write(between.join(items), reasoning)

    def write(self, answer: str, reasoning: str = "One fits worst.") -> str:
        """Return any ``answer`` in this dialect's form."""
        written = f"<answer>\n{answer}\n</answer>" if self.tags else answer
        return f"<think>\n{reasoning}\n</think>\n{written}" if self.reasoning else written

    def right(self, task: Task) -> list[int]:
        """Return the indices that a perfect answer names: the worst candidate, or all in the best order."""
        return task.ranked() if self.ranking else [task.worst]

    def wrong(self, task: Task) -> list[int]:
        """Return the indices that the worst valid answer names."""
        return task.ranked()[::-1] if self.ranking else [task.best]

    def __str__(self) -> str:
        form = ("<think>…</think> " if self.reasoning else "") + ("<answer>{}</answer>" if self.tags else "{}")
        name = "[A]" if self.by_label else "text"
        return form.format(f"{name}, {name}, …" if self.ranking else name)


def dialects(ranking: bool) -> list[Dialect]:
    """Return all dialects, the clearest first."""
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
    """Return the responses of every policy to ``task``; a policy earns the mean over its responses.

    ``random`` is every single exclusion once, so that its mean is exact; for rankings it is a sample of 16 orders.
    """
    count = len(task.texts)
    indices = range(count)
    right = dialect.right(task)
    shuffled = random.Random(f"{seed}:{task.prompt}")
    if dialect.ranking:
        valid = [dialect.answer(task, shuffled.sample(indices, count)) for _ in range(16)]
        first, last = dialect.answer(task, indices), dialect.answer(task, indices[::-1])
        several = [f"{dialect.answer(task, right)}\n{dialect.answer(task, right[::-1])}"] if dialect.tags else []
    else:
        valid = [dialect.answer(task, [i]) for i in indices]
        first, last = valid[0], valid[-1]
        several = ["\n".join(valid), dialect.answer(task, indices), "\n".join(valid[::-1])]
    # "[B] (so so) > [A]": an item that cannot be read keeps its rank, so A's is the second
    *others, best = dialect.names(task, right[::-1])
    unread = [dialect.answer_of_items([*(f"{name} (so so)" for name in others), best])]
    near = [f"{task.texts[i]} or something like it" for i in (task.worst, task.best)] + [f"[{label(count + 2)}]"]
    return {
        "oracle": [dialect.answer(task, right)],
        "anti-oracle": [dialect.answer(task, dialect.wrong(task))],
        "random": valid,
        "first place": [first],
        "last place": [last],
        "verbose": [f"<think>\n{PROSE * 20}\n</think>\n{dialect._replace(reasoning=False).answer(task, right)}"],
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
