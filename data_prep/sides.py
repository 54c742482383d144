"""Which side of the split each spooled task is on, and which ones are left out: no leaks, and no contradictions."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_prep.duplicates import clusters
from data_prep.hashing import examples
from data_prep.options import Options
from data_prep.split import TEST, TRAIN, sides
from data_prep.spool import read_columns
from data_prep.tasks import Dropped
from iranker_verl.errors import UserError
from iranker_verl.ranking import DATASETS

LEAKED = "tasks: of a (nearly) equal test query or user"
CONTRADICTED = "tasks: of one query under several ids, with two grades for one passage"


def family(dataset: str) -> str:
    """Return what ``dataset`` shares its split with: datasets made from the same queries (routers; passages) have one."""
    scenario = DATASETS.get(dataset)
    return scenario if scenario in ("routing", "passage") else dataset


class Sides:
    """The side of every task: as the raw files or the source say, else by group. ``split`` says how, by family."""

    def __init__(self, folders: Sequence[Path], options: Options) -> None:
        self.split: dict[str, str] = {}
        self._side: dict[tuple[str, str], str] = {}
        self._leaked: set[tuple[str, str]] = set()
        groups, scenario = _groups(folders)
        shown = _shown(folders) if options.split == "group" and "recommendation" in scenario.values() else {}
        alike = _alike(shown)
        for name, by_side in sorted(groups.items()):
            queries = scenario[name] != "recommendation"
            if options.split == "test":
                self.split[name] = "all test"
                self._decide(name, TEST, set().union(*by_side.values()))
            elif "" not in by_side:
                self.split[name] = "by time" if options.split == "time" and not queries else "by the source"
            elif len(by_side) > 1:
                raise UserError(
                    f"{name}: some of the raw files say which side of the split they are on (train, test) and some do "
                    "not; name all of them, or prepare them separately"
                )
            else:
                self.split[name] = "by query, near-duplicates together" if queries else "by user"
                side_of = sides(by_side[""], options, name, queries=queries, alike=alike[name])
                for side in (TRAIN, TEST):
                    by_side[side] = {group for group, own in side_of.items() if own == side}
                    self._decide(name, side, by_side[side])
        if options.split != "test":
            self._find_leaks(groups, scenario, options)
        self._find_equal_examples(shown)
        self._contradicted = _contradicted(folders) if "passage" in scenario.values() else set[tuple[str, str]]()

    def _decide(self, name: str, side: str, groups: Iterable[str]) -> None:
        self._side |= {(name, group): side for group in groups}

    def _find_leaks(self, groups: _Groups, scenario: dict[str, str], options: Options) -> None:
        """Find training groups that are test groups too, or near-duplicates of some, in any dataset of the scenario.

        Users are users of one dataset; and in a split by time they are on both sides, on purpose.
        """
        for kind in sorted(set(scenario.values())):
            if kind == "recommendation" and options.split == "time":
                continue
            names = [name for name in groups if scenario[name] == kind]
            own = [(name, side, group) for name in names for side in (TRAIN, TEST) for group in groups[name][side]]
            if kind == "recommendation":
                cluster = {(name, group): f"{name} {group}" for name, _, group in own}
            else:
                texts = sorted({group for _, _, group in own})
                found = dict(zip(texts, clusters(texts, options.near_duplicate), strict=True))
                cluster = {(name, group): found[group] for name, _, group in own}
            tested = {cluster[name, group] for name, side, group in own if side == TEST}
            self._leaked |= {(n, group) for n, side, group in own if side == TRAIN and cluster[n, group] in tested}

    def _find_equal_examples(self, shown: _Shown) -> None:
        """Find training users of whom any task shows what a test user's does; the sides of both are known now."""
        users = {user: self._side.get(user, told[0].side) for user, told in shown.items()}
        tested = {(user[0], one.example) for user, told in shown.items() if users[user] == TEST for one in told[:1]}
        for user, told in shown.items():
            if users[user] == TRAIN and any((user[0], one.example) in tested for one in told):
                self._leaked.add(user)

    def __call__(self, tasks: pa.Table, dropped: Dropped) -> np.ndarray:
        """Return the side of each task, "" for one that is dropped (and counted)."""
        result = np.empty(tasks.num_rows, dtype=object)
        columns = (tasks[name].to_pylist() for name in ("dataset", "group", "side", "earlier"))
        for i, (dataset, group, own, earlier) in enumerate(zip(*columns, strict=True)):
            key = (family(dataset), group)
            result[i] = self._side.get(key, own)
            if result[i] == TEST and earlier:  # made before the user's side was known
                result[i] = ""
            elif (dataset, group) in self._contradicted:
                result[i] = ""
                dropped[dataset][CONTRADICTED] += 1
            elif result[i] == TRAIN and key in self._leaked:
                result[i] = ""
                dropped[dataset][LEAKED] += 1
        return result


# {family: {side as the source says, or "": groups}}
_Groups = dict[str, dict[str, set[str]]]


def _groups(folders: Sequence[Path]) -> tuple[_Groups, dict[str, str]]:
    """Return the groups of each family by side, and each family's scenario."""
    groups: _Groups = defaultdict(lambda: defaultdict(set))
    scenario: dict[str, str] = {}
    for batch in read_columns(folders, ["dataset", "scenario", "group", "side"]):
        distinct = pa.Table.from_batches([batch]).group_by(batch.schema.names).aggregate([])
        for row in distinct.to_pylist():
            name = family(row["dataset"])
            groups[name][row["side"] or ""].add(row["group"])
            scenario[name] = row["scenario"]
    return groups, scenario


class _Example(NamedTuple):
    """What a recommendation task shows, and how many of the user's items come after it."""

    earlier: int
    example: str
    side: str | None


# {(dataset, user): what the user's tasks show, the latest first}
_Shown = dict[tuple[str, str], list[_Example]]


def _shown(folders: Sequence[Path]) -> _Shown:
    """Return what the tasks of each user show."""
    found: _Shown = defaultdict(list)
    columns = ["dataset", "scenario", "context", "candidates", "relevance", "group", "side", "earlier"]
    for batch in read_columns(folders, columns):
        rows = batch.filter(pc.equal(batch["scenario"], "recommendation"))
        positives = rows["candidates"].flatten().filter(pc.equal(rows["relevance"].flatten(), 1.0))
        told = (rows[name].to_pylist() for name in ("dataset", "group", "earlier", "side"))
        for example, dataset, user, earlier, side in zip(
            examples(rows["context"], positives).to_pylist(), *told, strict=True
        ):
            found[dataset, user].append(_Example(earlier, example, side))
    return {user: sorted(told, key=lambda one: one.earlier) for user, told in found.items()}


def _alike(shown: _Shown) -> dict[str, dict[str, str]]:
    """Return, by dataset, what each user is called together with those whose latest task shows the same."""
    first: dict[tuple[str, str], str] = {}
    called: dict[str, dict[str, str]] = defaultdict(dict)
    for dataset, user in sorted(shown):
        called[dataset][user] = first.setdefault((dataset, shown[dataset, user][0].example), user)
    return called


def _contradicted(folders: Sequence[Path]) -> set[tuple[str, str]]:
    """Return ``(dataset, group)`` of passage queries that have several ids, and two grades for one passage's text."""
    passages = pc.field("scenario") == "passage"
    parts = [
        pa.Table.from_batches([batch]).filter(passages).select(["dataset", "group"])
        for batch in read_columns(folders, ["dataset", "scenario", "group"])
    ]
    counted = pa.concat_tables(parts).group_by(["dataset", "group"]).aggregate([([], "count_all")])
    again = pc.unique(counted.filter(pc.field("count_all") > 1)["group"])
    if not len(again):
        return set()
    graded = []
    for batch in read_columns(folders, ["dataset", "scenario", "group", "candidates", "relevance"]):
        rows = pa.Table.from_batches([batch]).filter(passages & pc.field("group").isin(again)).combine_chunks()
        row = pc.list_parent_indices(rows["candidates"])
        columns = {name: rows[name].take(row) for name in ("dataset", "group")}
        columns |= {name: pc.list_flatten(rows[name]) for name in ("candidates", "relevance")}
        graded.append(pa.table(columns))
    keys = ["dataset", "group", "candidates"]
    found = pa.concat_tables(graded).group_by(keys).aggregate([("relevance", "min"), ("relevance", "max")])
    found = found.filter(pc.field("relevance_min") < pc.field("relevance_max"))
    return set(zip(found["dataset"].to_pylist(), found["group"].to_pylist(), strict=True))
