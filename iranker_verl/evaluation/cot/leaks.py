"""Proof that no reasoning trace in a store is of a test query: an example would otherwise give a test answer away.

A trace leaks if, for any test task,

* the task is the same: dataset and id;
* the group is the same: the query (of routing and passages, in any dataset) or the user (within a dataset);
* the contexts are near-duplicates in the same scenario, by :mod:`data_prep.duplicates`: the Jaccard similarity of their
  word sets reaches a threshold. The search is exact. For routing it compares the queries (the groups) where all are known,
  because contexts also hold a preference, which makes all of them more alike.

Words are separated by white space and punctuation, so in a script without spaces only whole sentences are told apart.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from data_prep.duplicates import pairs, words
from data_prep.schema import read_manifest, read_rows
from iranker_verl.errors import UserError
from iranker_verl.evaluation.cot.store import Store
from iranker_verl.ranking import RankingTask

NEAR_DUPLICATE = 0.8  # the default of preparation, too
_NAMED = 3  # leaks in an error message

Groups = Mapping[tuple[str, str], str]  # (dataset, task id) to group


@dataclass(frozen=True)
class Leak:
    """The trace at ``index`` in the store is of a test query: of the task ``test_id``, for this ``reason``."""

    index: int
    test_id: str
    reason: str


@dataclass(frozen=True)
class Proof:
    """What was compared without finding a leak; ``groups`` counts the test tasks whose group was compared."""

    store_hash: str
    traces: int
    test_tasks: int
    groups: int
    threshold: float

    def to_json(self) -> dict[str, Any]:
        """Return the proof in the form of ``results.json``."""
        return asdict(self)


@dataclass(frozen=True)
class _Query:
    id: str
    dataset: str
    scenario: str
    group: str
    context: str

    @property
    def scope(self) -> str:
        """Where a group is unique: queries are shared by the datasets of a scenario, users belong to one dataset."""
        return self.dataset if self.scenario == "recommendation" else self.scenario


def prove_no_leaks(
    store: Store, tasks: Sequence[RankingTask], *, groups: Groups | None = None, threshold: float = NEAR_DUPLICATE
) -> Proof:
    """Return the proof over the test ``tasks``; ``groups`` holds those of their groups that are to be compared.

    Raise UserError, with the first leaks, where there is one.
    """
    if found := find_leaks(store, tasks, groups=groups, threshold=threshold):
        first = "; ".join(
            f"the trace of task {store.traces[leak.index].task_id!r}: {leak.reason} test task {leak.test_id!r}"
            for leak in found[:_NAMED]
        )
        more = f", and {len(found) - _NAMED} more" if len(found) > _NAMED else ""
        raise UserError(
            f"{len(found)} of {len(store.traces)} reasoning traces are of test queries: {first}{more}; "
            "collect the store again with --test and this data"
        )
    grouped = sum(bool((groups or {}).get((t.dataset, t.id))) for t in tasks)
    return Proof(store.hash, len(store.traces), len(tasks), grouped, threshold)


def prove_for_data(store: Store, data: Path, near_duplicate: float = NEAR_DUPLICATE) -> Proof:
    """Return the proof over the test tasks of prepared data. Raise UserError where a trace is of one of them."""
    tasks, groups = read_test_side(data)
    return prove_no_leaks(store, tasks, groups=groups, threshold=near_duplicate)


def without_leaks(
    store: Store, tasks: Sequence[RankingTask], *, groups: Groups | None = None, threshold: float = NEAR_DUPLICATE
) -> Store:
    """Return the store without the traces that leak; its manifest counts them as ``of test queries``."""
    leaking = {leak.index for leak in find_leaks(store, tasks, groups=groups, threshold=threshold)}
    kept = tuple(trace for index, trace in enumerate(store.traces) if index not in leaking)
    counts = {**store.manifest.get("counts", {}), "of test queries": len(leaking), "kept": len(kept)}
    return Store(kept, {**store.manifest, "counts": counts})


def find_leaks(
    store: Store, tasks: Sequence[RankingTask], *, groups: Groups | None = None, threshold: float = NEAR_DUPLICATE
) -> list[Leak]:
    """Return the first leak of every trace that has one, in the store's order."""
    if not 0 < threshold <= 1:
        raise UserError(f"a near-duplicate's Jaccard similarity is above 0 and at most 1, got {threshold}")
    groups = groups or {}
    tests = [_Query(t.id, t.dataset, t.scenario, groups.get((t.dataset, t.id), ""), t.context) for t in tasks]
    ours = [_Query(t.task_id, t.dataset, t.scenario, t.group, t.context) for t in store.traces]
    by_id = {(q.dataset, q.id): q for q in tests}
    by_group = {(q.scope, q.group): q for q in tests if q.group}
    near = _near_duplicates(ours, tests, threshold)
    found = []
    for index, query in enumerate(ours):
        if same := by_id.get((query.dataset, query.id)):
            found.append(Leak(index, same.id, "the same as"))
        elif query.group and (same := by_group.get((query.scope, query.group))):
            found.append(Leak(index, same.id, "the same query or user as"))
        elif index in near:
            test, similarity = near[index]
            found.append(Leak(index, tests[test].id, f"a context of similarity {similarity:.2f} to that of"))
    return found


def _near_duplicates(ours: Sequence[_Query], tests: Sequence[_Query], threshold: float) -> dict[int, tuple[int, float]]:
    """Return the first near-duplicate among the tests, and its similarity, of every query of ours that has one; by index."""
    found: dict[int, tuple[int, float]] = {}
    for scenario in sorted({q.scenario for q in ours}):
        left, right = ([(i, q) for i, q in enumerate(side) if q.scenario == scenario] for side in (ours, tests))
        use_groups = scenario == "routing" and all(q.group for _, q in (*left, *right))
        asked = {i: words(q.group if use_groups else q.context) for i, q in left}
        tested: dict[tuple[str, ...], int] = {}  # word set: the first test that has it
        for j, query in right:
            tested.setdefault(words(query.group if use_groups else query.context), j)
        keys = list(dict.fromkeys([*asked.values(), *tested]))
        alike = {key: [key] for key in keys}
        for a, b in pairs([" ".join(key) for key in keys], threshold):
            alike[keys[a]].append(keys[b])
            alike[keys[b]].append(keys[a])
        for i, key in asked.items():
            if close := [(tested[other], other) for other in alike[key] if other in tested]:
                j, other = min(close)
                found[i] = j, len({*key} & {*other}) / len({*key} | {*other})
    return found


def read_test_side(data: Path) -> tuple[list[RankingTask], dict[tuple[str, str], str]]:
    """Read the test tasks of prepared data, and their groups by dataset and task id.

    The users of a split by time are left out of the groups: they are on both sides on purpose, with different contexts.
    """
    by_time = read_manifest(data)["options"]["split"] == "time"
    tasks: list[RankingTask] = []
    groups: dict[tuple[str, str], str] = {}
    for row in read_rows(data / "test.parquet"):
        task = RankingTask.from_row(row)
        tasks.append(task)
        if not (by_time and task.scenario == "recommendation"):
            groups[task.dataset, task.id] = row["extra_info"]["group"] or ""
    return tasks, groups
