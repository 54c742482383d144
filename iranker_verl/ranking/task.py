"""A ranking task: one context, N candidates, and which of them are good."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from iranker_verl.errors import UserError

SCENARIOS = ("recommendation", "routing", "passage")
RELEVANCE_LIMIT = 1e100  # as of the rewards: sums and differences of what is smaller stay finite

# The nine tasks of the paper (arXiv 2506.21638, table 1), in its order.
DATASETS: dict[str, str] = {
    "rec-movie": "recommendation",
    "rec-music": "recommendation",
    "rec-game": "recommendation",
    "router-performance": "routing",
    "router-cost": "routing",
    "router-balance": "routing",
    "passage-5": "passage",
    "passage-7": "passage",
    "passage-9": "passage",
}


@dataclass(frozen=True)
class Candidate:
    """A candidate. ``id`` identifies it, so two candidates with one text stay two."""

    id: str
    text: str


@dataclass(frozen=True)
class RankingTask:
    """A context and the candidates to rank for it.

    ``relevance[i]`` belongs to ``candidates[i]``; one positive is 1.0 among 0.0. It is empty where it is unknown, in serving: such a
    task can be ranked, but neither trained on nor measured. ``history`` holds the ids of the items that the context tells of,
    oldest first (recommendation; empty elsewhere). ``group`` is what may not stand on both sides of a split (a user, a query;
    empty where that is unknown).

    Raises :class:`UserError` for fewer than two candidates, a repeated id, an empty text, relevance of another length,
    not within ±:data:`RELEVANCE_LIMIT`, or all equal (nothing to rank).
    """

    id: str
    scenario: str
    dataset: str
    context: str
    candidates: tuple[Candidate, ...]
    relevance: tuple[float, ...]
    history: tuple[str, ...] = ()
    group: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        where = f"task {self.id!r} of {self.dataset!r}"
        if self.scenario not in SCENARIOS:
            raise UserError(f"{where}: unknown scenario {self.scenario!r}; choose one of {', '.join(SCENARIOS)}")
        if len(self.candidates) < 2:
            raise UserError(f"{where}: {len(self.candidates)} candidate(s); ranking needs at least 2")
        ids = [c.id for c in self.candidates]
        if len(set(ids)) != len(ids):
            twice = next(i for i in ids if ids.count(i) > 1)
            raise UserError(f"{where}: candidate id {twice!r} occurs twice; ids have to be unique within a task")
        if empty := [c.id for c in self.candidates if not c.text.strip()]:
            raise UserError(f"{where}: candidate {empty[0]!r} has an empty text")
        if self.relevance == ():
            return
        if len(self.relevance) != len(self.candidates):
            raise UserError(f"{where}: {len(self.candidates)} candidates but {len(self.relevance)} relevance values")
        if beyond := [r for r in self.relevance if not -RELEVANCE_LIMIT < r < RELEVANCE_LIMIT]:  # NaN is not, either
            raise UserError(
                f"{where}: its relevance {beyond[0]:g} is not within ±{RELEVANCE_LIMIT:g}; scale the relevances down"
            )
        if max(self.relevance) == min(self.relevance):
            raise UserError(f"{where}: no positive candidate (all relevance values are {self.relevance[0]:g})")

    @classmethod
    def with_positive(
        cls, id: str, scenario: str, dataset: str, context: str, candidates: tuple[Candidate, ...], positive: str
    ) -> RankingTask:
        """Return a task with one positive, named by its candidate id. UserError where that id is not a candidate."""
        if positive not in {c.id for c in candidates}:
            raise UserError(f"task {id!r} of {dataset!r}: its positive {positive!r} is not among the candidates")
        relevance = tuple(float(c.id == positive) for c in candidates)
        return cls(id, scenario, dataset, context, tuple(candidates), relevance)

    @property
    def target(self) -> int:
        """The index of the best candidate (of the first, where several are equally good)."""
        return self.relevance.index(max(self.relevance))

    @property
    def graded(self) -> bool:
        """Whether there is more than one positive, or more than two grades."""
        return sorted(self.relevance)[:-1] != [0.0] * (len(self.relevance) - 1) or max(self.relevance) != 1.0

    def at(self, indices: Sequence[int]) -> RankingTask:
        """Return the task with the candidates at these indices, in this order, with their relevances. UserError as above."""
        return replace(
            self,
            candidates=tuple(self.candidates[i] for i in indices),
            relevance=tuple(self.relevance[i] for i in indices),
        )

    def ground_truth(self) -> dict[str, Any]:
        """Return verl's ``reward_model.ground_truth``, in the shape that :mod:`reward_fns.exclusion` reads."""
        truth: dict[str, Any] = {"candidates": [c.text for c in self.candidates], "target": self.target}
        if self.graded:
            truth["relevance"] = list(self.relevance)
        return truth

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> RankingTask:
        """Return the task of a row of prepared Parquet (see :mod:`data_prep.schema`). UserError for a missing field."""
        try:
            truth, extra = row["reward_model"]["ground_truth"], row["extra_info"]
            texts = [str(t) for t in truth["candidates"]]
            ids = [str(i) for i in extra["candidate_ids"]]
            graded = truth.get("relevance")
            if graded is not None and len(graded) > 0:
                relevance = tuple(float(r) for r in graded)
            else:
                relevance = tuple(float(i == int(truth["target"])) for i in range(len(texts)))
            return cls(
                str(extra["task_id"]),
                str(extra["scenario"]),
                str(row["data_source"]),
                str(extra["context"]),
                tuple(Candidate(i, t) for i, t in zip(ids, texts, strict=True)),
                relevance,
                tuple(str(i) for i in extra.get("history_ids") or ()),
                str(extra.get("group") or ""),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(
                f"not a row of `iranker prepare` ({type(error).__name__}: {error}); prepare the data again"
            ) from error


def by_dataset(tasks: Iterable[RankingTask]) -> dict[str, list[RankingTask]]:
    """Return the tasks of each dataset, in their order; datasets in the order of their first task."""
    groups: dict[str, list[RankingTask]] = {}
    for task in tasks:
        groups.setdefault(task.dataset, []).append(task)
    return groups


def tasks_hash(tasks: Iterable[RankingTask]) -> str:
    """Return 16 hex digits of SHA-256 over the content of tasks, in order."""
    digest = hashlib.sha256()
    for t in tasks:
        content = [t.id, t.dataset, t.context, [[c.id, c.text] for c in t.candidates], list(t.relevance), t.history]
        digest.update(json.dumps(content, ensure_ascii=False).encode() + b"\n")
    return digest.hexdigest()[:16]
