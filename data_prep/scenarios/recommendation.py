"""The one sampler of recommendation tasks, whatever format the interactions came in.

A task a user, as in the paper: the user's events in time order (ties keep the file's order), a repeated item counted
once, at its first place. The last item is the positive (with ``tasks_per_user``, of training users also the items before it,
one a task), the ``history`` items before it are the context (oldest first, joined by "; "), and the negatives are items that
the user never touched but somebody did (a shop's list of products holds many that nobody bought): drawn uniformly, by
popularity (how many events an item has), or the ones that BM25 finds closest to the history. The split is by user. With
``history_from="first"`` the user's first items stand for all, and with ``negatives_avoid="task"`` a negative may be an item that
the user touched at another time; both are what IRanker's public code does.

An item is what is shown of it, its first ``max_title_chars`` characters. Ids with one text (two editions of a film) are one item, called by the first of them in
order; the others are counted. So no candidate reads like another one, like an item of the history, or like anything else
that the user touched. An id with two texts in the files of items is refused.

With ``split="time"`` the cut is a time that ``test_fraction`` of all events are not before. What comes before it makes
the training tasks, and knows nothing of what comes after; a user whose last event is not before it makes a test task.

Events are streamed once, into buckets of whole users (by a hash of the user), and each bucket is sampled by itself, as
columns: memory is bounded by the largest bucket, and the buckets run side by side.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_prep.hashing import keys
from data_prep.options import Options
from data_prep.scenarios import negatives
from data_prep.scenarios.buckets import arrow_columns, cut_time, fill_buckets, fill_catalogue
from data_prep.scenarios.interactions import Interactions
from data_prep.split import TEST, TRAIN
from data_prep.tasks import TASKS, Dropped, Source, Unit
from data_prep.work import Job, Work
from iranker_verl.files import read_json

BUCKET_BYTES = 32 << 20  # of raw events: some hundred MB of memory while a bucket is sampled
CHUNK = 2048  # users sampled at a time


def interaction_source(format: str, data: Interactions) -> Source:
    """Return the source that a recommendation format has found."""
    files = tuple(dict.fromkeys([*data.events, *data.items]))
    return Source(format, (data.dataset,), files, partial(bucket_units, data))


def bucket_units(data: Interactions, options: Options, work: Work) -> list[Unit]:
    """Read the items, stream the events into buckets, and give a unit a bucket."""
    buckets = max(1, -(-sum(_raw_bytes(path) for path in data.events) // BUCKET_BYTES))
    (catalogue,) = work.run([Job(f"{data.dataset}:items", fill_catalogue, _shown(data, options))])
    jobs = [
        Job(f"{data.dataset}:events:{i}", fill_buckets, (data, path, catalogue, options.seed, buckets))
        for i, path in enumerate(data.events)
    ]
    folders = tuple(work.run(jobs))
    cut = cut_time(folders, options.test_fraction) if options.split == "time" else None
    return [
        Unit(f"{data.dataset}:{bucket:04d}", sample_bucket, (catalogue, folders, bucket, cut))
        for bucket in range(buckets)
    ]


def _shown(data: Interactions, options: Options) -> tuple[Interactions, bool, int | None]:
    """Return the arguments of ``fill_catalogue``."""
    return data, options.item_text == "title", options.max_title_chars


def _raw_bytes(path: Path) -> int:
    return path.stat().st_size * (6 if path.suffix.lower() == ".gz" else 1)


@dataclass(frozen=True)
class Sequences:
    """What the users of a bucket touched, each item once, user by user and oldest first.

    ``items`` and ``times`` of shape (events,); user ``u`` has the events ``starts[u]`` to ``ends[u]``.
    """

    users: pa.Array
    items: np.ndarray
    times: np.ndarray
    starts: np.ndarray
    ends: np.ndarray

    def before(self, cut: float) -> Sequences:
        """Return the events before a time. Events are in time order, so these are the first ones of each user."""
        early = np.concatenate([[0], np.cumsum(self.times < cut)])
        return Sequences(
            self.users, self.items, self.times, self.starts, self.starts + early[self.ends] - early[self.starts]
        )

    def first(self, count: int) -> Sequences:
        """Return each user's first ``count`` events."""
        return replace(self, ends=np.minimum(self.ends, self.starts + count))

    def without_last(self, count: int) -> Sequences:
        """Return the events without each user's last ``count``."""
        return replace(self, ends=np.maximum(self.ends - count, self.starts))

    def last(self, count: int) -> Sequences:
        """Return each user's last ``count`` events."""
        return replace(self, starts=np.maximum(self.starts, self.ends - count))


def sample_bucket(
    catalogue: Path,
    folders: Sequence[Path],
    bucket: int,
    cut: float | None,
    options: Options,
    datasets: Sequence[str],
    dropped: Dropped,
) -> Iterator[pa.Table]:
    """Yield the tasks of one bucket (a unit)."""
    (dataset,) = datasets
    ids, texts = arrow_columns(catalogue / "items.arrow")
    counts = dropped[dataset]
    if bucket == 0:  # what the first stage dropped, once
        for folder in (catalogue, *folders):
            counts.update(read_json(folder / "dropped.json"))
    popularity = sum((np.load(folder / "popularity.npy") for folder in folders), np.zeros(len(ids), np.int64))
    touched = np.flatnonzero(popularity)
    ids, texts, popularity = ids.take(pa.array(touched)), texts.take(pa.array(touched)), popularity[touched]
    sequences = _sequences(folders, bucket, touched, counts)
    draw = negatives.sampler(options, texts, popularity)

    def tasks(of: Sequences, users: np.ndarray, side: str | None, suffix: str) -> Iterator[pa.Table]:
        seen = negatives.Seen(of.starts, of.ends, of.items, len(ids))
        if options.history_from == "first":
            of = of.first(options.history + 1)
        most = 1 if side == TEST else options.tasks_per_user  # of users whose side is not known yet, see TASKS.earlier
        for earlier in range(most):
            users = users[(of.ends - of.starts)[users] > options.history + earlier]
            if not len(users):
                return
            if options.negatives_avoid == "task":
                own = of.without_last(earlier).last(options.history + 1)
                seen = negatives.Seen(own.starts, own.ends, own.items, len(ids))
            for start in range(0, len(users), CHUNK):
                some = users[start : start + CHUNK]
                yield _tables(dataset, of, some, earlier, seen, draw, ids, texts, options, side, suffix)

    if cut is None:
        yield from tasks(sequences, _eligible(sequences, len(ids), options, counts), None, "")
        return
    late = sequences.ends > sequences.starts
    late[late] = sequences.times[sequences.ends[late] - 1] >= cut
    past = sequences.before(cut)
    some = past.ends > past.starts
    counts["users: no item with a title"] += int((~some & ~late).sum())
    yield from tasks(past, _eligible(past, len(ids), options, counts, some, "before the cut"), TRAIN, ":past")
    yield from tasks(sequences, _eligible(sequences, len(ids), options, counts, late, "in all"), TEST, "")


def _sequences(folders: Sequence[Path], bucket: int, touched: np.ndarray, dropped: Counter[str]) -> Sequences:
    """Return the bucket's events; items are numbered by their place in ``touched``, the catalogue's items that have events."""
    parts = []
    for folder in folders:
        with pa.memory_map(str(folder / f"bucket-{bucket:04d}.arrow")) as file:
            parts.append(pa.ipc.open_file(file).read_all())
    table = pa.concat_tables(parts).combine_chunks()
    users = pc.dictionary_encode(table["user"]).combine_chunks()
    user = users.indices.to_numpy().astype(np.int64)
    known = pc.is_valid(table["item"]).to_numpy(zero_copy_only=False)
    place = np.zeros(touched.max(initial=0) + 1, np.int64)
    place[touched] = np.arange(len(touched))
    item = place[pc.fill_null(table["item"], 0).to_numpy()]
    time = table["time"].to_numpy()
    dropped["events: item without a title"] += int((~known).sum())
    order = _by_user_and_time(user, time, table["rest"].to_numpy())
    order = order[known[order]]
    first = _firsts(user[order] * len(touched) + item[order])  # each user's first event with each item
    dropped["events: repeated item"] += len(order) - int(first.sum())
    order = order[first]
    per_user = np.bincount(user[order], minlength=len(users.dictionary))
    ends = np.cumsum(per_user)
    return Sequences(users.dictionary, item[order], time[order], ends - per_user, ends)


def _by_user_and_time(user: np.ndarray, time: np.ndarray, rest: np.ndarray) -> np.ndarray:
    """Return the order of events user by user and oldest first; ties keep the file's order. Users are numbers from 0."""
    if rest.any():
        return np.lexsort((rest, time, user))
    with np.errstate(over="ignore"):
        span = float(np.ptp(time)) + 1 if len(time) else math.inf
    # whole seconds, as nearly always: user and time in one number are sorted several times as fast
    if span < 2**53 and span * (user.max() + 1) < 2**63 and (np.floor(time) == time).all():
        return np.argsort(user * int(span) + (time - time.min()).astype(np.int64), kind="stable")
    return np.lexsort((time, user))


def _firsts(values: np.ndarray) -> np.ndarray:
    """Return whether each value is there for the first time, bool."""
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    first = np.ones(len(values), bool)
    first[order[1:][ordered[1:] == ordered[:-1]]] = False
    return first


def _eligible(
    sequences: Sequences,
    items: int,
    options: Options,
    dropped: Counter[str],
    of: np.ndarray | None = None,
    when: str = "",
) -> np.ndarray:
    """Return the users (all, or those in ``of``) who can make a task; the others are counted."""
    length = sequences.ends - sequences.starts
    asked = np.ones(len(length), bool) if of is None else of
    short = asked & (length < options.history + 1)
    avoided = length if options.negatives_avoid == "user" else np.minimum(length, options.history + 1)
    full = asked & ~short & (items - avoided < options.candidates - 1)
    when = f" {when}" if when else ""
    dropped[f"users: fewer than {options.history + 1} items{when}"] += int(short.sum())
    dropped[f"users: fewer than {options.candidates - 1} items never seen{when}"] += int(full.sum())
    return np.flatnonzero(asked & ~short & ~full)


def _tables(
    dataset: str,
    of: Sequences,
    users: np.ndarray,
    earlier: int,
    seen: negatives.Seen,
    draw: negatives.Draw,
    ids: pa.Array,
    texts: pa.Array,
    options: Options,
    side: str | None,
    suffix: str,
) -> pa.Table:
    """Return a task a user: the item ``earlier`` places before the last is the positive."""
    names = of.users.take(pa.array(users)).to_pylist()
    last = of.ends[users] - 1 - earlier
    stream = f"{dataset}:negatives" + (f":{earlier}" if earlier else "")
    suffix += f":{earlier} earlier" if earlier else ""
    history = of.items[last[:, None] - np.arange(options.history, 0, -1)]  # (users, history), oldest first
    drawn = draw(users, keys(names, options.seed, stream), history, seen)
    candidates = np.concatenate([of.items[last][:, None], drawn], axis=1)
    relevance = np.zeros(candidates.shape)
    relevance[:, 0] = 1.0
    count = len(users)
    columns = {
        "task_id": pa.array([f"{dataset}:{name}{suffix}" for name in names]),
        "dataset": pa.repeat(dataset, count),
        "scenario": pa.repeat("recommendation", count),
        "context": pc.binary_join(_lists(history, texts), "; "),
        "candidate_ids": _lists(candidates, ids),
        "candidates": _lists(candidates, texts),
        "relevance": _lists(relevance),
        "group": pa.array(names),
        "side": pa.nulls(count, pa.string()) if side is None else pa.repeat(side, count),
        "history_ids": _lists(history, ids),
        "time": pa.array(of.times[last]),
        "earlier": pa.repeat(pa.scalar(earlier, pa.int32()), count),
    }
    return pa.table([columns[name] for name in TASKS.names], schema=TASKS)


def _lists(matrix: np.ndarray, values: pa.Array | None = None) -> pa.ListArray:
    """Return the rows of a matrix as lists: of its numbers, or of the ``values`` at those places."""
    flat = pa.array(matrix.ravel())
    offsets = np.arange(0, matrix.size + 1, matrix.shape[1], dtype=np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), flat if values is None else values.take(flat))
