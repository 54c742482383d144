"""The one sampler of recommendation tasks, whatever format the interactions came in.

A task a user, as in the paper: his events in time order (ties keep the file's order), a repeated item counted once, at
its first place. The last item is the positive, the ``history`` items before it are the context (oldest first, joined by
"; "), and the negatives are drawn uniformly from the items he never touched. The split is by user.
"""

from __future__ import annotations

import html
import re
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from data_prep.lines import number
from data_prep.sampling import Options, TaskSet, make_task, one_line, split
from iranker_verl.errors import UserError
from iranker_verl.ranking import Candidate, RankingTask

# A tag, or one that was cut off at the end of the text. "I <3 You" is no tag.
_TAG = re.compile(r"</?[a-zA-Z!][^<>]*(?:>|$)")
_YEAR = re.compile(r"\d{4}")
_NO_GENRE = {"", "unknown", "(no genres listed)"}


@dataclass
class Interactions:
    """Raw data in one neutral form. ``events`` holds each user's ``(time, item)`` pairs in the file's order; ``texts``
    what an item is shown as. An item without a title is in ``events`` at most, never in ``texts``."""

    events: dict[str, list[tuple[float, str]]] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)
    dropped: Counter[str] = field(default_factory=Counter)

    def add_event(self, user: str, item: str, time: str, path: Path, row: int) -> None:
        """Take an interaction in. UserError where an id is missing or the time is not a number."""
        if not user or not item:
            raise UserError(f"{path} row {row}: the {'item' if user else 'user'} is empty; correct or remove the row")
        self.events.setdefault(user, []).append((number(time, path, row, "the time"), sys.intern(item)))

    def add_item(self, item: str, title: str, year: str = "", genres: Sequence[str] = ()) -> None:
        """Take an item in, or count why not."""
        text = item_text(title, year, genres)
        if not text:
            self.dropped["items: no title"] += 1
        elif item in self.texts:
            self.dropped["items: repeated id"] += 1
        else:
            self.texts[sys.intern(item)] = text


def item_text(title: str, year: str = "", genres: Sequence[str] = ()) -> str:
    """``Title (Year), Genre, Genre`` on one line, without HTML; "" where nothing is left of the title."""
    title = one_line(_TAG.sub(" ", html.unescape(html.unescape(title))))
    if not title:
        return ""
    if _YEAR.fullmatch(year) and not title.endswith(f"({year})"):
        title = f"{title} ({year})"
    return ", ".join([title, *(g for g in map(one_line, genres) if g not in _NO_GENRE)])


def make_tasks(dataset: str, data: Interactions, options: Options) -> TaskSet:
    """The dataset's tasks, one a user; users who cannot make one are dropped and counted."""
    result = TaskSet(dropped=Counter(data.dropped))
    needed = options.history + 1
    items = sorted(data.texts)
    sequences: dict[str, list[str]] = {}
    for user, events in data.events.items():
        sequence = _sequence(events, data.texts, result.dropped)
        if len(sequence) < needed:
            result.dropped[f"users: fewer than {needed} items"] += 1
        elif len(items) - len(sequence) < options.candidates - 1:
            result.dropped[f"users: fewer than {options.candidates - 1} items never seen"] += 1
        else:
            sequences[user] = sequence
    train, test = split(sequences, options, dataset)
    result.train = [_task(dataset, u, sequences[u], items, data.texts, options) for u in train[: options.max_train]]
    result.test = [_task(dataset, u, sequences[u], items, data.texts, options) for u in test[: options.max_test]]
    return result


def _sequence(events: list[tuple[float, str]], texts: dict[str, str], dropped: Counter[str]) -> list[str]:
    """A user's items, oldest first, each once."""
    known = [event for event in events if event[1] in texts]
    dropped["events: item without a title"] += len(events) - len(known)
    sequence = list(dict.fromkeys(item for _, item in sorted(known, key=lambda event: event[0])))
    dropped["events: repeated item"] += len(known) - len(sequence)
    return sequence


def _task(
    dataset: str, user: str, sequence: list[str], items: list[str], texts: dict[str, str], options: Options
) -> RankingTask:
    id = f"{dataset}:{user}"
    *history, positive = sequence[-options.history - 1 :]
    # Of k + len(seen) different items at least k are new, and the first k new ones are a uniform draw of the new.
    seen = set(sequence)
    wanted = options.candidates - 1
    drawn = Random(f"{options.seed}:{id}:negatives").sample(items, min(len(items), wanted + len(seen)))
    negatives = [item for item in drawn if item not in seen][:wanted]
    candidates = [Candidate(item, texts[item]) for item in [positive, *negatives]]
    return make_task(id, dataset, "; ".join(texts[item] for item in history), candidates, positive, options)
