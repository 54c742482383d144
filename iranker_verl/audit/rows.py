"""What an audit examines besides the reward: prepared rows, and the log of a test run."""

from __future__ import annotations

import itertools
import math
import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from iranker_verl.audit.policies import Task, tasks_of
from iranker_verl.audit.verdicts import Verdict

# Two candidates have to be shown together so often before their order says anything.
TOGETHER = 6
# Of such pairs, 3 % have one order by chance; above this share it is none.
FIXED = 0.9
# No more rows are read for that once so many different pairs are known: they take memory.
PAIRS = 200_000
# So many standard deviations above its share is a place where the best candidate stands too often.
DEVIATIONS = 5.0


def examine_rows(rows: Sequence[Mapping[str, Any]]) -> list[Verdict]:
    """Verdicts on the data: one query on both sides of the split, a fixed order, and a place that gives the best away."""
    tasks = [(str(task.extra.get("split")), task) for task in tasks_of(rows)]
    return [split_leaks(tasks), fixed_order(tasks), place_of_the_best(tasks)]


def split_leaks(tasks: Sequence[tuple[str, Task]]) -> Verdict:
    """A query is known by its context, whatever candidates are shown with it, and by its group, where rows name one (but
    rows with a time may be split by it, and then a user is on both sides)."""
    if len({split for split, _ in tasks}) < 2:
        return Verdict("split leaks", None, "rows of one split only")
    sides: dict[tuple[str, ...], set[str]] = defaultdict(set)
    for split, task in tasks:
        sides["context", _context(task)].add(split)
        if (group := task.extra.get("group")) and task.extra.get("time") is None:
            sides["group", task.source, str(group)].add(split)
    both = [query for query, on in sides.items() if len(on) > 1]
    text = f"{len(both)} queries are on both sides of the split"
    return Verdict("split leaks", bool(both), text + (f", such as {both[0][-1][-60:]!r}" if both else ""))


def _context(task: Task) -> str:
    context = task.extra.get("context")
    if isinstance(context, str) and context:
        return " ".join(context.split())
    prompt = task.prompt
    for text in sorted(task.texts, key=len, reverse=True):
        prompt = prompt.replace(text, "")
    return prompt


def fixed_order(tasks: Sequence[tuple[str, Task]]) -> Verdict:
    """Candidates that are shown together again and again, and always in the same order."""
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
        text = (
            f"in {split} rows of {source} {fixed} of {len(often)} pairs often shown together stand in one order always"
        )
        worst = max(worst, (fixed / len(often), text))
    if not examined:
        return Verdict("fixed order", None, "no candidates are shown together often enough")
    return Verdict("fixed order", worst[0] > FIXED, worst[1] or "no pair stands in one order always")


def place_of_the_best(tasks: Sequence[tuple[str, Task]]) -> Verdict:
    """A place at which the best candidate stands more often than chance would put it there."""
    places: dict[tuple[str, str, int], Counter[int]] = defaultdict(Counter)
    for split, task in tasks:
        if task.relevance.count(max(task.relevance)) == 1:
            places[split, task.source, len(task.texts)][task.best] += 1
    worst, examined = (0.0, ""), False
    for (split, source, count), seen in places.items():
        total = seen.total()
        if total / count < 5:
            continue
        examined = True
        place, times = seen.most_common(1)[0]
        excess = (times - total / count) / math.sqrt(total / count * (1 - 1 / count))
        worst = max(
            worst, (excess, f"{times} of {total} {split} tasks of {source} have it at place {place + 1} of {count}")
        )
    if not examined:
        return Verdict("place of the best", None, "too few tasks to tell")
    flagged = worst[0] > DEVIATIONS
    return Verdict("place of the best", flagged, worst[1] if flagged else "no place has it more often than chance")


def lock_step(requests: Iterable[Mapping[str, Any]] | None) -> Verdict:
    """A test run in which every step waits for the slowest task of the step before.

    ``requests`` holds one entry an LLM call: ``task``, ``step`` (a number), ``start`` and ``end`` (seconds, one clock).
    """
    steps: dict[int, list[tuple[str, float, float]]] = defaultdict(list)
    for request in requests or ():
        steps[int(request["step"])].append((str(request["task"]), float(request["start"]), float(request["end"])))
    rounds = [steps[step] for step in sorted(steps)]
    if len(rounds) < 2 or len({task for task, *_ in rounds[0]}) < 2:
        return Verdict("lock step", None, "no log of a test run with several tasks and steps")
    waited = took = 0.0
    for before, after in itertools.pairwise(rounds):
        starts, ends = {task: start for task, start, _ in after}, {task: end for task, _, end in before}
        last = max(ends.values())
        if min(starts.values()) < last:
            return Verdict("lock step", False, "tasks go on while others still wait for their answer")
        waited += sum(last - ends[task] for task in starts if task in ends)
        took += sum(end - start for _, start, end in before)
    if not waited:
        return Verdict("lock step", None, "no task was slower than another")
    text = f"no step begins before the last answer of the step before; waiting is {waited / (waited + took):.0%} of the time"
    return Verdict("lock step", True, text)
