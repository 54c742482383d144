"""The published code's faults, stated again from their description, each on its own switch; nothing is copied.

:func:`published_reward` is the exclusion reward as a whole, for speed and for its numbers. :class:`Published` is a small,
clean reward, parser, data set and test loop, into which ``Published(n)`` puts fault n of the list in the paper's notes:

1. the format is matched from the start of prompt + response, so it never matches;
2. the answer is looked for in prompt + response, and the prompt holds the tags itself;
3. the ranking reward goes through the characters of a line instead of the items of a list;
4. the exclusion reward is 1, 0 and -0.5, and a random valid exclusion earns (N - 1) / N of it;
5. the split is drawn over elimination states, and test states list the models in one fixed order;
6. what the test cannot read becomes the nearest candidate, and the reward says nothing but its sum;
7. the test loop runs in lock step;
8. relevance is kept in a dict keyed by the candidate's text.
"""

from __future__ import annotations

import math
import random
import re
from typing import Any

TURN = "<|im_start|>assistant\n"
ASKED = " Show your work in <think> </think> tags. And return the final answer in <answer> </answer> tags."
MODELS = [f"model-{name} (price {i / 10})" for i, name in enumerate("abcdefghij")]


# ---------------------------------------------------------------- the reward as it was


def published_reward(text: str, ground_truth: dict[str, Any]) -> float:
    """The published exclusion reward of ``text``, prompt + response: format, tags, and 1, 0, -0.5 or -1."""
    blanks = ("\n", r"\s")
    layouts = [rf"^<think>{a}.*?{a}</think>\n<answer>{b}.*?{b}</answer>$" for a in blanks for b in blanks]
    form = 0.0 if any([re.match(layout, text, re.DOTALL | re.MULTILINE) for layout in layouts]) else -1.0
    marks = (
        r"<think>\n|<think>\s",
        r"\n</think>\n|\s</think>\n",
        r"\n<answer>\n|\n<answer>\s",
        r"\n</answer>|\s</answer>",
    )
    form -= 0.25 * sum(len(re.findall(mark, text)) != 1 for mark in marks)
    answer = _published_answer(text)
    if answer is None:
        return form - 1.0
    candidates = list(ground_truth["candidates"])
    line = answer.split("\n")[0]
    if line not in candidates:
        return form - 0.5
    return form + (0.0 if line == candidates[ground_truth["target"]] else 1.0)


def _published_answer(text: str) -> str | None:
    loose = r"<answer>\s*(.*?)\s*</answer>"
    found = list(re.finditer(loose, text, re.DOTALL))
    if len(found) > 1:
        return found[-1][1].strip()
    strict = re.search(r"<answer>\n(.*?)\n</answer>", text, re.DOTALL)
    if strict:
        return strict[1]
    once = re.search(loose, text, re.DOTALL)
    return once[1].strip() if once else None


# ---------------------------------------------------------------- one fault at a time


def letter(index: int) -> str:
    return f"[{chr(ord('A') + index)}]"


class Published:
    """The clean thing, with the faults that are asked for. Its answers are ``<think>…</think>`` and ``<answer>…</answer>``."""

    def __init__(self, *faults: int) -> None:
        self.faults = set(faults)

    def exclusion(
        self, data_source: str, solution_str: str, ground_truth: dict[str, Any], extra_info: Any = None
    ) -> Any:
        candidates, worth = self._worth(ground_truth)
        answer = self._answer(solution_str)
        named = [i for i, text in enumerate(candidates) if answer in (letter(i), text)]
        form = self._format(solution_str)
        if not named:
            score = (-0.5 if 4 in self.faults else -1.0) + form
        elif 8 in self.faults:
            score = {text: w for text, w in zip(candidates, worth, strict=True)}[candidates[named[0]]] + form
        else:
            score = worth[named[0]] + form
        return score if 6 in self.faults else {"score": score, "format": form, "malformed": float(not named)}

    def direct(self, data_source: str, solution_str: str, ground_truth: dict[str, Any], extra_info: Any = None) -> Any:
        candidates, form = list(ground_truth["candidates"]), self._format(solution_str)
        items: Any = re.split(r"\n| > ", self._answer(solution_str) or "")
        if 3 in self.faults:
            items = items[0]  # a text, not a list
        order: list[int] = []
        for item in items:
            for i, text in enumerate(candidates):
                exact = item in (letter(i), text)
                if i not in order and (exact or (3 in self.faults and item in text)):
                    order.append(i)
                    break
        if len(order) < len(items) and 3 not in self.faults:
            order = []
        target = ground_truth["target"]
        gain = 1 / math.log2(order.index(target) + 2) if target in order else 0.0
        return {"score": gain - (not order) + form, "format": form, "malformed": float(not order)}

    def parse(self, response: str, candidates: list[str]) -> int | None:
        """What reads answers at test time: a candidate's index or None."""
        answer = self._answer(response)
        named = [i for i, text in enumerate(candidates) if answer in (letter(i), text)]
        if named or 6 not in self.faults:
            return named[0] if named else None
        words = set((answer or response[-40:]).lower().split())
        return max(range(len(candidates)), key=lambda i: len(words & set(candidates[i].lower().split())))

    def _worth(self, ground_truth: dict[str, Any]) -> tuple[list[str], list[float]]:
        candidates = list(ground_truth["candidates"])
        worth = [float(i != ground_truth["target"]) for i in range(len(candidates))]
        mean = 0.0 if 4 in self.faults else sum(worth) / len(worth)
        return candidates, [w - mean for w in worth]

    def _format(self, text: str) -> float:
        text = text if 1 in self.faults else text.rpartition(TURN)[2]
        tidy = (
            text.startswith("<think>\n") and text.endswith("\n</answer>") and text.count("\n</think>\n<answer>\n") == 1
        )
        return 0.0 if tidy else -1.0

    def _answer(self, text: str) -> str | None:
        text = text if 2 in self.faults else text.rpartition(TURN)[2]
        blocks = {
            piece.partition("</answer>")[0].strip() for piece in text.split("<answer>")[1:] if "</answer>" in piece
        }
        blocks.discard("")
        return blocks.pop() if len(blocks) == 1 else None

    # ------------------------------------------------------------ data

    def recommendation(self, tasks: int, candidates: int = 20, seed: int = 0) -> list[dict[str, Any]]:
        """Rows of one positive among candidates of one's own."""
        draw = random.Random(seed)
        titles = [f"Film {draw.randrange(10**6)} ({1950 + i % 70})" for i in range(600)]
        rows = []
        for number in range(tasks):
            texts = draw.sample(titles, candidates)
            split = "test" if number % 5 == 0 else "train"
            rows.append(
                row("rec-movie", split, f"user {number} liked {draw.choice(titles)}", texts, draw.randrange(candidates))
            )
        return rows

    def routing(self, queries: int, seed: int = 0) -> list[dict[str, Any]]:
        """Rows that are elimination states of queries over ten models."""
        draw = random.Random(seed)
        rows = []
        for number in range(queries):
            test = draw.random() < 0.2
            best = draw.randrange(len(MODELS))
            for size in range(2, len(MODELS) + 1):
                if 5 in self.faults:
                    test = draw.random() < 0.2
                others = draw.sample([i for i in range(len(MODELS)) if i != best], size - 1)
                shown = [best, *others]
                draw.shuffle(shown)
                if 5 in self.faults and test:
                    shown.sort()
                texts = [MODELS[i] for i in shown]
                query = f"Query number {number} about {number * 37 % 101}"
                rows.append(row("router-balance", "test" if test else "train", query, texts, shown.index(best)))
        return rows

    # ------------------------------------------------------------ test loop

    def requests(self, tasks: int = 6, steps: int = 4) -> list[dict[str, Any]]:
        """The log of a test run in which task t's answers take 1 + t seconds."""
        log, clock = [], dict.fromkeys(range(tasks), 0.0)
        for step in range(steps):
            for task in range(tasks):
                start, end = clock[task], clock[task] + 1.0 + task
                log.append({"task": task, "step": step, "start": start, "end": end})
                clock[task] = end
            if 7 in self.faults:
                clock = dict.fromkeys(clock, max(clock.values()))
        return log


def row(source: str, split: str, context: str, texts: list[str], target: int) -> dict[str, Any]:
    """A row of prepared data, with a prompt that says how to answer as the published one does."""
    shown = "\n".join(f"{letter(i)} {text}" for i, text in enumerate(texts))
    return {
        "data_source": source,
        "prompt": [{"role": "user", "content": f"{context}\nCandidates:\n{shown}\nWhich is the worst?{ASKED}"}],
        "ability": "ranking",
        "reward_model": {"style": "rule", "ground_truth": {"candidates": texts, "target": target, "relevance": None}},
        "extra_info": {"split": split, "context": context, "task_id": f"{source}/{context}"},
    }
