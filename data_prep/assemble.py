"""From spooled tasks to ``train.parquet`` and ``test.parquet``: sides, caps, rows, in bounded memory."""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from data_prep.ahead import ahead
from data_prep.duplicates import clusters
from data_prep.hashing import examples
from data_prep.options import Options
from data_prep.rows import rows
from data_prep.schema import SCHEMA, SPLITS, ContentHash
from data_prep.split import TEST, TRAIN, sides
from data_prep.spool import read_columns, read_range
from data_prep.tasks import Dropped
from iranker_verl.errors import UserError
from iranker_verl.ranking import DATASETS
from iranker_verl.ranking.templates import Template

# Rows of a row group: some MB, so that verl's loader (Hugging Face datasets) reads a file in even pieces.
ROW_GROUP = 4096
LEAKED = "tasks: of a (nearly) equal test query or user"
CONTRADICTED = "tasks: of one query under several ids, with two grades for one passage"
# Called with a table of rows before they are written, e.g. to refuse prompts that are too long.
Inspect = Callable[[pa.Table], None]


@dataclass
class Made:
    """What came out: ``tasks[dataset][side]``, the largest pool of each dataset, rows a side, and how it was split."""

    tasks: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    candidates: Counter[str] = field(default_factory=Counter)
    rows: Counter[str] = field(default_factory=Counter)
    data_hash: str = ""
    split: dict[str, str] = field(default_factory=dict)


def assemble(
    folders: Sequence[Path],
    ranges: int,
    out: Path,
    template: Template,
    options: Options,
    dropped: Dropped,
    inspect: Inspect | None = None,
    progress: Callable[[str], None] = lambda line: None,
) -> Made:
    """Write both files into ``out`` from what the units spooled into ``folders``; ``dropped`` is added to."""
    made = Made()
    writers = {split: _Writer(out / f"{split}.parquet") for split in SPLITS}
    hashes = {split: ContentHash() for split in SPLITS}

    def parts() -> Iterator[tuple[str, pa.Table]]:
        """Yield some rows of a split at a time, in order."""
        side_of = _Sides(folders, options, made)
        for place in range(ranges):
            table = read_range(folders, place)
            _no_task_twice(table)
            side = side_of(table, dropped)
            for split, *caps in ((TRAIN, options.max_train, options.max_states), (TEST, options.max_test, None)):
                tasks = _capped(table.filter(pa.array(side == split)), *caps, split, made).drop_columns(["key"])
                for start in range(0, tasks.num_rows, ROW_GROUP):
                    written = rows(tasks.slice(start, ROW_GROUP), template, options, split, made.rows[split])
                    made.rows[split] += written.num_rows
                    yield split, written
            if ranges > 1:
                progress(f"rows: {place + 1} of {ranges} parts, {sum(made.rows.values())} rows")

    try:
        for split, written in ahead(parts()):
            if inspect is not None:
                inspect(written)
            writers[split].write(written)
            hashes[split].update(written)
    finally:
        for writer in writers.values():
            writer.close()
    made.data_hash = ContentHash.of(*(hashes[split] for split in SPLITS))
    return made


def _no_task_twice(table: pa.Table) -> None:
    ids = table["task_id"].to_pylist()  # equal ids have equal keys, so they meet in one range
    for one, two in itertools.pairwise(ids):
        if one == two:
            raise UserError(f"the task id {one!r} occurs twice in the raw data; ids have to be unique")


def _capped(tasks: pa.Table, cap: int | None, states: int | None, split: str, made: Made) -> pa.Table:
    """Return at most ``cap`` tasks of each dataset, and of at most ``states`` states, the first ones in order, counted."""
    datasets = pc.dictionary_encode(tasks["dataset"]).combine_chunks()
    if not tasks.num_rows:
        return tasks
    place = datasets.indices.to_numpy()
    keep = np.ones(len(place), bool)
    sizes = pc.list_value_length(tasks["candidates"]).to_numpy()
    for number, name in enumerate(datasets.dictionary.to_pylist()):
        own = np.flatnonzero(place == number)
        most = [] if cap is None else [cap]
        if states is not None and DATASETS.get(name) in ("recommendation", "passage"):
            most.append(states // max(int(sizes[own].max()) - 1, 1))
        room = max(0, min(most) - made.tasks[name][split]) if most else len(own)
        keep[own[room:]] = False
        made.tasks[name][split] += min(room, len(own))
        made.candidates[name] = max(made.candidates[name], int(sizes[own[:room]].max(initial=0)))
    return tasks.filter(pa.array(keep))


def family(dataset: str) -> str:
    """Return what ``dataset`` shares its split with: datasets made from the same queries (routers; passages) have one."""
    scenario = DATASETS.get(dataset)
    return scenario if scenario in ("routing", "passage") else dataset


class _Sides:
    """The side of every task: as the raw files or the source say, else by group."""

    def __init__(self, folders: Sequence[Path], options: Options, made: Made) -> None:
        self._side: dict[tuple[str, str], str] = {}
        self._leaked: set[tuple[str, str]] = set()
        groups, scenario = _groups(folders)
        shown = _shown(folders) if options.split == "group" and "recommendation" in scenario.values() else {}
        alike = _alike(shown)
        for name, by_side in sorted(groups.items()):
            queries = scenario[name] != "recommendation"
            if options.split == "test":
                made.split[name] = "all test"
                self._decide(name, TEST, set().union(*by_side.values()))
            elif "" not in by_side:
                made.split[name] = "by time" if options.split == "time" and not queries else "by the source"
            elif len(by_side) > 1:
                raise UserError(
                    f"{name}: some of the raw files say which side of the split they are on (train, test) and some do "
                    "not; name all of them, or prepare them apart"
                )
            else:
                made.split[name] = "by query, near-duplicates together" if queries else "by user"
                side_of = sides(by_side[""], options, name, queries=queries, alike=alike[name])
                for side in (TRAIN, TEST):
                    by_side[side] = {group for group, own in side_of.items() if own == side}
                    self._decide(name, side, by_side[side])
        if options.split != "test":
            self._find_leaks(groups, scenario, options)
        self._find_equal_examples(shown)
        self._contradicted = _contradicted(folders)

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
    if not parts:
        return set()
    counted = pa.concat_tables(parts).group_by(["dataset", "group"]).aggregate([([], "count_all")])
    again = pc.unique(counted.filter(pc.field("count_all") > 1)["group"])
    graded = []
    for batch in (
        read_columns(folders, ["dataset", "scenario", "group", "candidates", "relevance"]) if len(again) else ()
    ):
        rows = pa.Table.from_batches([batch]).filter(passages & pc.field("group").isin(again)).combine_chunks()
        row = pc.list_parent_indices(rows["candidates"])
        columns = {name: rows[name].take(row) for name in ("dataset", "group")}
        columns |= {name: pc.list_flatten(rows[name]) for name in ("candidates", "relevance")}
        graded.append(pa.table(columns))
    if not graded:
        return set()
    keys = ["dataset", "group", "candidates"]
    found = pa.concat_tables(graded).group_by(keys).aggregate([("relevance", "min"), ("relevance", "max")])
    found = found.filter(pc.field("relevance_min") < pc.field("relevance_max"))
    return set(zip(found["dataset"].to_pylist(), found["group"].to_pylist(), strict=True))


class _Writer:
    """A Parquet file in row groups of :data:`ROW_GROUP` rows, however the rows come in."""

    def __init__(self, path: Path) -> None:
        self._writer = pq.ParquetWriter(path, SCHEMA, compression="zstd")
        self._waiting: list[pa.Table] = []
        self._count = 0

    def write(self, table: pa.Table) -> None:
        self._waiting.append(table)
        self._count += table.num_rows
        if self._count >= ROW_GROUP:
            whole = pa.concat_tables(self._waiting)
            full = self._count // ROW_GROUP * ROW_GROUP
            self._writer.write_table(whole.slice(0, full), row_group_size=ROW_GROUP)
            self._waiting, self._count = [whole.slice(full)], self._count - full

    def close(self) -> None:
        if self._count:
            self._writer.write_table(pa.concat_tables(self._waiting), row_group_size=ROW_GROUP)
        self._writer.close()
