"""Check that a prepared folder holds what its manifest says, from the files alone.

What a check compares with what is its ``how``; docs/checks.md says why. Each file is read once (:mod:`data_prep.checks.side`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from data_prep.checks.positions import Places, p_values
from data_prep.checks.side import Distinct, Side, read
from data_prep.duplicates import pairs, words
from data_prep.readers.text import shown
from data_prep.schema import SPLITS, ContentHash
from iranker_verl.errors import UserError
from iranker_verl.provenance import file_digest

LEAST_P = 1e-4


@dataclass(frozen=True)
class Check:
    """The outcome of a check.

    ``how`` says in one sentence what was compared with what, ``counted`` how many of them; ``detail`` is the first offence, or a
    number that was found.
    """

    name: str
    how: str
    ok: bool
    counted: int
    detail: str = ""


def check_folder(folder: Path, manifest: Mapping[str, Any]) -> list[Check]:
    """Return all checks of a prepared folder against its manifest.

    Where a file cannot be read because it is not the one that was written, that is all there is to say, and the only
    check returned. Raise UserError where a file is as it was written and cannot be read nevertheless.
    """
    files = _files(folder, manifest)
    options = manifest["options"]
    by_time = options["split"] == "time"
    try:
        train, test = (read(folder / f"{split}.parquet", by_time=by_time) for split in SPLITS)
    except UserError:
        if files.ok:
            raise
        return [files]
    return [
        files,
        _data_hash(train, test, manifest["data_hash"]),
        _groups(train, test, by_time),
        _examples(train, test),
        _near_duplicates(train, test, options["near_duplicate"]),
        _tasks(train, test, options["orders"]),
        _rows(
            "history", "each row's candidates with its own history: no item and no shown text is in both", train, test
        ),
        _times(train, test),
        _rows("candidate ids", "the candidate ids of each row with each other: none occurs twice", train, test),
        _rows("candidate texts", "equal texts among the candidates of each row: all have one relevance", train, test),
        _position(train, test),
    ]


def _files(folder: Path, manifest: Mapping[str, Any]) -> Check:
    faults, files = [], manifest["files"]
    for name, promised in files.items():
        try:
            found = file_digest(folder / name)
        except UserError as error:
            faults.append(str(error).removeprefix(f"{folder}/"))
            continue
        if found["bytes"] != promised["bytes"]:
            faults.append(f"{name} has {found['bytes']} bytes, the manifest says {promised['bytes']}")
        elif found != promised:
            faults.append(
                f"{name} has SHA-256 {str(found['sha256'])[:16]}…, the manifest says {promised['sha256'][:16]}…"
            )
    return _verdict("files", "size and SHA-256 of each file with the manifest", len(files), faults)


def _data_hash(train: Side, test: Side, promised: str) -> Check:
    found = ContentHash.of(train.content, test.content)
    fault = [] if found == promised else [f"the rows have {found}, the manifest says {promised}"]
    return _verdict("data hash", "the hash of what all rows say with the manifest", 1, fault, found)


def _groups(train: Side, test: Side, by_time: bool) -> Check:
    left, right = train.groups.table(), test.groups.table()
    faults = (
        f"{shown(group)} of {family} is in {train.name} row {row} and in {test.name} row {other}"
        for family, group, row, other in _both(left, right, "family", "group")
    )
    how = "queries" if by_time else "users and queries"
    how += " of training with those of test: none is in both"
    return _verdict("groups", how, len(left) + len(right), faults)


def _examples(train: Side, test: Side) -> Check:
    left, right = train.examples.table(), test.examples.table()
    faults = (
        f"a user of {dataset} in {train.name} row {row} and another in {test.name} row {other} have one history and one "
        "best candidate"
        for dataset, _, row, other in _both(left, right, "dataset", "example")
    )
    how = "history and best candidate of each user of training with those of test, by text: no two are equal"
    return _verdict("examples", how, len(left) + len(right), faults)


def _near_duplicates(train: Side, test: Side, threshold: float) -> Check:
    left, right = train.queries.table(), test.queries.table()
    how = f"queries of training with queries of test: the words of no two are {threshold:g} alike (Jaccard) or more"
    faults = _alike(train.name, left, test.name, right, threshold)
    return _verdict("near-duplicates", how, len(left) + len(right), faults)


def _alike(left_name: str, left: pa.Table, right_name: str, right: pa.Table, threshold: float) -> Iterator[str]:
    for scenario in pc.unique(left["scenario"]).to_pylist():
        ours, theirs = (t.filter(pc.equal(t["scenario"], scenario)) for t in (left, right))
        texts = ours["query"].to_pylist() + theirs["query"].to_pylist()
        rows = ours["row"].to_pylist() + theirs["row"].to_pylist()
        if not len(theirs):
            continue
        for i, j in pairs(texts, threshold):
            if i < len(ours) <= j:
                a, b = set(words(texts[i])), set(words(texts[j]))
                yield (
                    f"{left_name} row {rows[i]}, {shown(texts[i])}, and {right_name} row {rows[j]}, {shown(texts[j])}, "
                    f"are {len(a & b) / len(a | b):.2f} alike"
                )


def _times(train: Side, test: Side) -> Check:
    """Check that in a split by time all of training is before all of the test.

    Where there is a time that all of training is before and nothing of test, every training positive is before every test
    positive, and the other way round: so the cut itself need not be known.
    """
    faults = [side.offences["time"] for side in (train, test) if "time" in side.offences]
    for dataset in sorted(train.times.keys() & test.times.keys()):
        (late, row), (early, other) = train.times[dataset].last, test.times[dataset].first
        if late >= early:
            faults.append(
                f"{dataset}: time {late:.15g} of {train.name} row {row} is not before {early:.15g} of {test.name} row {other}"
            )
    how = "in a split by time, positives of training with those of test: all of training comes before all of test"
    return _verdict("time", how, train.counted["time"] + test.counted["time"], faults)


def _tasks(train: Side, test: Side, orders: int) -> Check:
    faults = [*_on_both_sides(train, test), *_too_often(train, orders), *_too_often(test, orders)]
    how = "tasks of training with those of test, and each with itself: none is in both"
    how += ", none twice" if orders == 1 else f", none in more than {orders} orders"
    counted = sum(len(_names(side.tasks)) for side in (train, test))
    return _verdict("tasks", how, counted, faults)


def _on_both_sides(train: Side, test: Side) -> Iterator[str]:
    both = _both(_names(train.tasks), _names(test.tasks), "dataset", "task_id")
    for dataset, task, row, other in both:
        yield f"{shown(task)} of {dataset} is in {train.name} row {row} and in {test.name} row {other}"


def _too_often(side: Side, orders: int) -> Iterator[str]:
    """Check that no row occurs twice: a task's states differ in size; rows of one size differ in order only."""
    found = side.tasks.table()
    for row in found.filter(pc.greater(found["count"], orders)).sort_by("row").slice(0, 1).to_pylist():
        yield f"{shown(row['task_id'])} of {row['dataset']} is {row['count']} times in {side.name}, first in row {row['row']}"


def _names(tasks: Distinct) -> pa.Table:
    found = tasks.table().group_by(["dataset", "task_id"]).aggregate([("row", "min")])
    return found.select(["dataset", "task_id", "row_min"]).rename_columns(["dataset", "task_id", "row"])


def _rows(name: str, how: str, train: Side, test: Side) -> Check:
    """Return a check that looks at each row by itself."""
    faults = [side.offences[name] for side in (train, test) if name in side.offences]
    return _verdict(name, how, train.counted[name] + test.counted[name], faults)


def _position(train: Side, test: Side) -> Check:
    how = f"the places of the best candidates with a uniform draw: chi-square has p ≥ {LEAST_P:g} (Bonferroni)"
    faults = [side.offences["position"] for side in (train, test) if "position" in side.offences]
    found = {(side.name, size): p for side in (train, test) for size, p in p_values(side.places).items()}
    detail = "too few rows to tell"
    if found:
        (name, size), p = min(found.items(), key=lambda item: item[1])
        p = min(1.0, p * len(found))
        of = "" if len(found) == 1 else f"the least of {len(found)}, "
        detail = f"p = {p:.2g} ({of}{name}, {size} candidates)"
        if p < LEAST_P:
            places = {side.name: side.places for side in (train, test)}[name]
            faults.append(f"{detail}: {_most(places, size)}")
    return _verdict("position", how, train.counted["position"] + test.counted["position"], faults, detail)


def _most(places: Places, size: int) -> str:
    counts = places[size]
    place = int(abs(counts - counts.mean()).argmax())
    return f"{counts[place]} at place {place + 1}, where {counts.mean():.0f} are expected"


def _both(left: pa.Table, right: pa.Table, *keys: str) -> Iterator[tuple[Any, ...]]:
    """Yield ``(*keys, row on the left, row on the right)`` of what both have, in the order of the left's rows."""
    right = right.select([*keys, "row"]).rename_columns([*keys, "other"])
    found = left.select([*keys, "row"]).join(right, keys=list(keys), join_type="inner").sort_by("row")
    for row in (row for batch in found.to_batches() for row in batch.to_pylist()):
        yield tuple(row[name] for name in (*keys, "row", "other"))


def _verdict(name: str, how: str, counted: int, faults: Iterable[str], detail: str = "") -> Check:
    first = next(iter(faults), None)
    return Check(name, how, first is None, counted, detail if first is None else first)
