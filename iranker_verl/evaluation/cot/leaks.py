"""Proof that no test query's thought is in a store: otherwise an example would show the model its own answer.

A thought offends where, against any test task,

* its task is the same: dataset and id;
* its group is the same: the query (of routing and passages, whatever the dataset) or the user (within a dataset);
* its context is the same in the same scenario, case and everything but letters and digits aside;
* its context is nearly the same in the same scenario: the sets of their words have a Jaccard similarity of at least a
  threshold. No such pair is missed. Of routing the queries (the groups) are compared, where all are known: contexts say a
  preference besides, which makes all of them more alike.

Words are what stands between spaces and signs, so in a script without spaces only whole sentences are told apart.
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from iranker_verl.errors import UserError
from iranker_verl.evaluation.cot.store import Store
from iranker_verl.ranking import RankingTask

NEAR_DUPLICATE = 0.8  # what preparation keeps on one side of the split, too
_SHOWN = 3
_WORD = re.compile(r"[^\W_]+")


@dataclass(frozen=True)
class Offence:
    """The thought at ``place`` in the store is of a test query: of the task ``test_id``, and ``why``."""

    place: int
    test_id: str
    why: str


@dataclass(frozen=True)
class Proof:
    """What was compared and nothing was found in; for ``results.json``. ``groups`` is how many test tasks had theirs
    compared."""

    store_hash: str
    thoughts: int
    test_tasks: int
    groups: int
    threshold: float

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class _Query:
    id: str
    dataset: str
    scenario: str
    group: str
    context: str

    @property
    def family(self) -> str:
        """What its group is known within: queries are shared by the datasets of a scenario, users are each dataset's own."""
        return self.dataset if self.scenario == "recommendation" else self.scenario


def guard(
    store: Store,
    tasks: Sequence[RankingTask],
    *,
    groups: Mapping[tuple[str, str], str] | None = None,
    threshold: float = NEAR_DUPLICATE,
) -> Proof:
    """The proof, over the test ``tasks``; ``groups`` gives theirs by dataset and task id, as far as they are to be compared.

    UserError, naming the first offenders, where there is one.
    """
    found = offences(store, tasks, groups=groups, threshold=threshold)
    if found:
        first = "; ".join(
            f"the thought of task {store.thoughts[o.place].task_id!r}: {o.why} test task {o.test_id!r}"
            for o in found[:_SHOWN]
        )
        more = f", and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
        raise UserError(
            f"{len(found)} of {len(store.thoughts)} thoughts are of test queries: {first}{more}; "
            "collect the store again with --test and this data"
        )
    grouped = sum(bool((groups or {}).get((t.dataset, t.id))) for t in tasks)
    return Proof(store.hash, len(store.thoughts), len(tasks), grouped, threshold)


def without(
    store: Store,
    tasks: Sequence[RankingTask],
    *,
    groups: Mapping[tuple[str, str], str] | None = None,
    threshold: float = NEAR_DUPLICATE,
) -> Store:
    """The store without what offends; its manifest counts it as ``of test queries``."""
    bad = {o.place for o in offences(store, tasks, groups=groups, threshold=threshold)}
    kept = tuple(t for place, t in enumerate(store.thoughts) if place not in bad)
    counts = {**store.manifest.get("counts", {}), "of test queries": len(bad), "kept": len(kept)}
    return Store(kept, {**store.manifest, "counts": counts})


def offences(
    store: Store,
    tasks: Sequence[RankingTask],
    *,
    groups: Mapping[tuple[str, str], str] | None = None,
    threshold: float = NEAR_DUPLICATE,
) -> list[Offence]:
    """The first offence of every thought that has one, in the store's order."""
    if not 0 < threshold <= 1:
        raise UserError(f"a near-duplicate's Jaccard similarity is above 0 and at most 1, got {threshold}")
    groups = groups or {}
    tests = [_Query(t.id, t.dataset, t.scenario, groups.get((t.dataset, t.id), ""), t.context) for t in tasks]
    ours = [_Query(t.task_id, t.dataset, t.scenario, t.group, t.context) for t in store.thoughts]
    by_id = {(q.dataset, q.id): q for q in tests}
    by_group = {(q.family, q.group): q for q in tests if q.group}
    by_words = {(q.scenario, _normal(q.context)): q for q in tests}
    near = _near(ours, tests, threshold)
    found = []
    for place, query in enumerate(ours):
        if same := by_id.get((query.dataset, query.id)):
            found.append(Offence(place, same.id, "the same as"))
        elif query.group and (same := by_group.get((query.family, query.group))):
            found.append(Offence(place, same.id, "the same query or user as"))
        elif same := by_words.get((query.scenario, _normal(query.context))):
            found.append(Offence(place, same.id, "the same context as"))
        elif place in near:
            test, alike = near[place]
            found.append(Offence(place, tests[test].id, f"a context {alike:.2f} like that of"))
    return found


def _near(ours: Sequence[_Query], tests: Sequence[_Query], threshold: float) -> dict[int, tuple[int, float]]:
    """For every query of ours that is nearly one of the tests: which one, and how alike they are."""
    found: dict[int, tuple[int, float]] = {}
    for scenario in sorted({q.scenario for q in ours}):
        left, right = ({i: q for i, q in enumerate(side) if q.scenario == scenario} for side in (ours, tests))
        queries = scenario == "routing" and all(q.group for q in (*left.values(), *right.values()))
        a, b = ({i: set(_words(q.group if queries else q.context)) for i, q in side.items()} for side in (left, right))
        found |= _join(a, b, threshold)
    return found


def _join(left: dict[int, set[str]], right: dict[int, set[str]], threshold: float) -> dict[int, tuple[int, float]]:
    """For every set of ``left`` the first of ``right`` with a Jaccard similarity of at least ``threshold``.

    Exact by prefix filtering (Bayardo et al. 2007): sets of Jaccard t share one of the first ``n - ceil(t n) + 1`` words of
    either, with the words of all sets in one order, here the rarest first.
    """
    often = Counter(word for words in (*left.values(), *right.values()) for word in words)

    def prefix(words: set[str]) -> list[str]:
        ordered = sorted(words, key=lambda w: (often[w], w))
        return ordered[: len(words) - math.ceil(threshold * len(words) - 1e-9) + 1]

    holders: dict[str, list[int]] = defaultdict(list)
    for j, words in right.items():
        for word in prefix(words):
            holders[word].append(j)
    found: dict[int, tuple[int, float]] = {}
    for i, words in left.items():
        for j in sorted({j for word in prefix(words) for j in holders.get(word, ())}):
            shared = len(words & right[j])
            alike = shared / (len(words) + len(right[j]) - shared)
            if alike >= threshold - 1e-9:
                found[i] = (j, alike)
                break
    return found


def _words(text: str) -> list[str]:
    return _WORD.findall(text.casefold())


def _normal(text: str) -> str:
    return " ".join(_words(text)) or text
