"""What an audit examines besides the reward: prepared rows, and the log of a test run."""

from __future__ import annotations

import itertools
import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from data_prep.checks.folder import LEAST_P
from data_prep.checks.positions import p_values
from data_prep.duplicates import words
from iranker_verl.audit.policies import Task, tasks_of
from iranker_verl.audit.scorer import Verdict

# A pair of candidates has to occur so often before its order says anything.
TOGETHER = 6
# Of such pairs, 3 % have one order by chance; above this share the order is fixed.
FIXED = 0.9
# No more rows are read once so many different pairs are known, to bound memory.
PAIRS = 200_000


def examine_rows(rows: Sequence[Mapping[str, Any]]) -> list[Verdict]:
    """Return the verdicts on the data: split leaks, a fixed order, and a place that gives the best candidate away."""
    tasks = [(str(task.extra.get("split")), task) for task in tasks_of(rows)]
    return [split_leaks(tasks), fixed_order(tasks), place_of_the_best(tasks)]


def split_leaks(tasks: Sequence[tuple[str, Task]]) -> Verdict:
    """Check that no query is on both sides of the split, of rows that need not come from a prepared folder.

    A query is known by the words of its context, whatever candidates its prompt shows, and by its group, where rows name one. A
    row with a time may be split by it, with its user on both sides. ``iranker check`` proves more of a prepared folder.
    """
    if len({split for split, _ in tasks}) < 2:
        return Verdict("split leaks", None, "rows of one split only")
    sides: dict[tuple[str, ...], set[str]] = defaultdict(set)
    for split, task in tasks:
        sides["context", *words(_context(task))].add(split)
        if (group := task.extra.get("group")) and task.extra.get("time") is None:
            sides["group", task.source, str(group)].add(split)
    both = [query for query, on in sides.items() if len(on) > 1]
    text = f"{len(both)} queries are on both sides of the split"
    return Verdict("split leaks", bool(both), text + (f", such as {' '.join(both[0][1:])[-60:]!r}" if both else ""))


def _context(task: Task) -> str:
    context = task.extra.get("context")
    if isinstance(context, str) and context:
        return context
    prompt = task.prompt
    for text in sorted(task.texts, key=len, reverse=True):
        prompt = prompt.replace(text, "")
    return prompt


def fixed_order(tasks: Sequence[tuple[str, Task]]) -> Verdict:
    """Check that candidates which often occur together do not always have the same order."""
    rows: dict[tuple[str, str], list[Task]] = defaultdict(list)
    for split, task in tasks:
        rows[split, task.source].append(task)
    worst, examined = (0.0, ""), False
    for (split, source), of_source in rows.items():
        pairs: dict[tuple[str, str], Counter[bool]] = defaultdict(Counter)
        for task in random.Random(1).sample(of_source, len(of_source)):
            if len(pairs) > PAIRS:
                break
            for a, b in itertools.combinations(dict.fromkeys(task.texts), 2):
                pairs[min(a, b), max(a, b)][a < b] += 1
        often = [counts for counts in pairs.values() if counts.total() >= TOGETHER]
        if len(often) < 3:
            continue
        examined = True
        fixed = sum(len(counts) == 1 for counts in often)
        text = f"in {split} rows of {source} {fixed} of {len(often)} pairs often shown together are always in one order"
        worst = max(worst, (fixed / len(often), text))
    if not examined:
        return Verdict("fixed order", None, "no candidates are shown together often enough")
    return Verdict("fixed order", worst[0] > FIXED, worst[1] or "no pair is always in one order")


def place_of_the_best(tasks: Sequence[tuple[str, Task]]) -> Verdict:
    """Check that the index of the best candidate is uniform, by the chi-squared test of :mod:`data_prep.checks`."""
    indices: dict[tuple[str, str, int], list[int]] = defaultdict(list)
    for split, task in tasks:
        if task.relevance.count(max(task.relevance)) == 1:
            indices[split, task.source, len(task.texts)].append(task.best)
    counts = {key: np.bincount(of_key, minlength=key[-1]) for key, of_key in indices.items()}
    found = [(p, key) for key, count in counts.items() for p in p_values({key[-1]: count}).values()]
    if not found:
        return Verdict("place of the best", None, "too few tasks to tell")
    p, (split, source, size) = min(found)
    if p * len(found) >= LEAST_P:  # Bonferroni
        return Verdict("place of the best", False, "no rank in the prompt has it more often than uniformly")
    count = counts[split, source, size]
    text = (
        f"{count.max()} of {count.sum()} {split} tasks of {source} have it at position {count.argmax() + 1} of {size}"
    )
    return Verdict("place of the best", True, f"{text} (p = {p:.2g})")


def lock_step(requests: Iterable[Mapping[str, Any]] | None) -> Verdict:
    """Check that the steps of a test run do not wait for the slowest task of the step before.

    ``requests`` has one entry an LLM call: ``task``, ``step`` (a number), ``start`` and ``end`` (seconds, one clock).
    """
    steps: dict[int, list[tuple[str, float, float]]] = defaultdict(list)
    for request in requests or ():
        steps[int(request["step"])].append((str(request["task"]), float(request["start"]), float(request["end"])))
    rounds = [steps[step] for step in sorted(steps)]
    if len(rounds) < 2 or len({task for task, *_ in rounds[0]}) < 2:
        return Verdict("lock step", None, "no log of a test run with several tasks and steps")
    waited_s = busy_s = 0.0
    for before, after in itertools.pairwise(rounds):
        starts, ends = {task: start for task, start, _ in after}, {task: end for task, _, end in before}
        last = max(ends.values())
        if min(starts.values()) < last:
            return Verdict("lock step", False, "tasks continue while others still wait for their answer")
        waited_s += sum(last - ends[task] for task in starts if task in ends)
        busy_s += sum(end - start for _, start, end in before)
    if not waited_s:
        return Verdict("lock step", None, "no task was slower than another")
    text = f"no step begins before the last answer of the step before; waiting is {waited_s / (waited_s + busy_s):.0%} of the time"
    return Verdict("lock step", True, text)
