"""Tasks to rows of Parquet, column by column: candidate orders, elimination states, and prompts.

The prompts are those of ``Template.messages``, rendered from the same pieces for a whole table at once.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from data_prep.hashing import draws, keys, mix
from data_prep.options import Options
from data_prep.schema import AGENTS, ROW_KINDS, SCHEMA
from data_prep.tasks import TASKS, Draft, tables
from iranker_verl.files import replacing_file
from iranker_verl.ranking import RankingTask
from iranker_verl.ranking.templates import Template
from reward_fns.answers import label


@dataclass(frozen=True)
class Shown:
    """Which candidates of which task a row shows.

    Row ``i`` is of task ``task[i]`` and shows the flat candidates ``places[offsets[i]:offsets[i + 1]]`` in that order.
    """

    task: np.ndarray
    offsets: np.ndarray
    places: np.ndarray

    def lists(self, flat: pa.Array) -> pa.ListArray:
        """Return a column of lists from the tasks' flat values."""
        return self.of(flat.take(pa.array(self.places)))

    def of(self, shown: pa.Array) -> pa.ListArray:
        """Return a column of lists from values that are in the rows' own order already."""
        return pa.ListArray.from_arrays(pa.array(self.offsets, pa.int32()), shown)

    @property
    def rows(self) -> np.ndarray:
        """Return the row of every candidate shown."""
        return np.repeat(np.arange(len(self.task)), np.diff(self.offsets))


def rows(tasks: pa.Table, template: Template, options: Options, split: str, start: int) -> pa.Table:
    """Return the rows of ``tasks`` (a table of :data:`~data_prep.tasks.TASKS`, of one side) in the schema of prepared data.

    Rows follow the tasks' order; a task's states grow from two candidates to all. What is tested is whole tasks, as
    published, even where training has states. ``start`` is the first row's index.
    """
    tasks = tasks.combine_chunks()
    lists = _flat(tasks, "candidate_ids")
    relevance = _values(tasks, "relevance").to_numpy()
    kind = ROW_KINDS["episodes" if options.rows == "states" and split == "test" else options.rows]
    shown = _states(tasks, lists, relevance, options) if kind == "state" else _orders(tasks, lists, options)
    return _table(tasks, shown, relevance, template, kind, split, start)


def episode_rows(tasks: Iterable[RankingTask], template: Template, split: str) -> pa.Table:
    """Return an episode row for each task, its candidates in the order they have."""
    table = pa.concat_tables([TASKS.empty_table(), *tables(Draft(t, t.id) for t in tasks)]).combine_chunks()
    lists, relevance = _flat(table, "candidate_ids"), _values(table, "relevance").to_numpy()
    shown = Shown(np.arange(table.num_rows), lists, np.arange(lists[-1]))
    return _table(table, shown, relevance, template, ROW_KINDS["episodes"], split, 0)


def write_tasks(path: Path, tasks: Iterable[RankingTask], template: Template, split: str) -> int:
    """Write tasks as episode rows, in their order; returns how many. The file appears whole or not at all."""
    written = episode_rows(tasks, template, split)
    with replacing_file(path) as part:
        pq.write_table(written, part)
    return written.num_rows


def _table(
    tasks: pa.Table, shown: Shown, relevance: np.ndarray, template: Template, kind: str, split: str, start: int
) -> pa.Table:
    of_task = pa.array(shown.task)
    count = len(shown.task)

    def repeated(name: str) -> pa.Array:
        return tasks[name].combine_chunks().take(of_task)

    candidates, truth = _ground_truth(shown, _values(tasks, "candidates"), relevance)
    context, datasets, scenarios = repeated("context"), repeated("dataset"), repeated("scenario")
    info = {
        "index": pa.array(np.arange(start, start + count)),
        "split": pa.repeat(split, count),
        "row_kind": pa.repeat(kind, count),
        "task_id": repeated("task_id"),
        "scenario": scenarios,
        "group": repeated("group"),
        "time": repeated("time"),
        "context": context,
        "candidate_ids": shown.lists(_values(tasks, "candidate_ids")),
        "history_ids": repeated("history_ids"),
        "template_id": pa.repeat(template.id, count),
        "template_hash": pa.repeat(template.hash, count),
    }
    style = pa.repeat("rule", count)
    columns = {
        "data_source": datasets,
        "prompt": prompts(template, datasets, scenarios, context, shown, candidates),
        "ability": pa.repeat("ranking", count),
        "reward_model": _struct("reward_model", {"style": style, "ground_truth": truth}),
        "agent_name": pa.repeat(AGENTS[kind], count),
        "extra_info": _struct("extra_info", info),
    }
    return pa.table([columns[name] for name in SCHEMA.names], schema=SCHEMA)


# ------------------------------------------------------------------------------------------------ what a row shows


def _flat(tasks: pa.Table, column: str) -> np.ndarray:
    """Return the offsets of a list column, from 0."""
    offsets = tasks[column].combine_chunks().offsets.to_numpy()
    return (offsets - offsets[0]).astype(np.int64)


def _values(tasks: pa.Table, column: str) -> pa.Array:
    """Return the flat values of a list column."""
    return tasks[column].combine_chunks().flatten()


def _priorities(key: np.ndarray, row: np.ndarray, within: np.ndarray) -> np.ndarray:
    """Return a random uint64 for each entry of ragged rows, from the row's key and the entry's place in the row."""
    with np.errstate(over="ignore"):
        return mix(key[row] + mix(within.astype(np.uint64)))


def _ragged(sizes: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return ``(offsets, row of each entry, place within its row)`` of ragged rows."""
    offsets = np.concatenate([[0], np.cumsum(sizes)])
    row = np.repeat(np.arange(len(sizes)), sizes)
    return offsets, row, np.arange(len(row)) - offsets[row]


def _orders(tasks: pa.Table, lists: np.ndarray, options: Options) -> Shown:
    """Return every task whole, in ``options.orders`` random orders."""
    ids = tasks["task_id"].to_pylist()
    task = np.repeat(np.arange(len(ids)), options.orders)
    key = np.stack([keys(ids, options.seed, f"candidates:{o}") for o in range(options.orders)], axis=1).ravel()
    offsets, row, within = _ragged(np.diff(lists)[task])
    order = np.lexsort((_priorities(key, row, within), row))
    return Shown(task, offsets, (lists[task][row] + within)[order])


def _states(tasks: pa.Table, lists: np.ndarray, relevance: np.ndarray, options: Options) -> Shown:
    """Return the paper's states: for k = 1 … N - 1, k random others and the best candidate, in random order.

    A state whose candidates are all equally good (graded relevance) has nothing to be decided and is left out.
    """
    ids = tasks["task_id"].to_pylist()
    sizes = np.diff(lists)
    _, task, k = _ragged((sizes - 1) * options.orders)
    others = k // options.orders + 1
    key = draws(keys(ids, options.seed, "states"), 0, int(sizes.max(initial=2)) * options.orders)[task, k]
    _, state, within = _ragged(sizes[task])
    flat = lists[task][state] + within
    first = _first_best(lists, relevance)
    is_best = within == first[task][state]
    chance = _priorities(key, state, within)
    # the best first, the others at random, and of these as many as the state has room for
    order = np.lexsort((chance, ~is_best, state))
    kept = within <= others[state]  # the rank within the state, which runs as ``within`` does
    flat, state = flat[order][kept], state[kept]
    again = _priorities(mix(key), state, flat - lists[task][state])
    shown = Shown(task, np.concatenate([[0], np.cumsum(others + 1)]), flat[np.lexsort((again, state))])
    return _undecided(shown, relevance)


def _undecided(shown: Shown, relevance: np.ndarray) -> Shown:
    """Return only the rows whose candidates differ in relevance."""
    if not len(shown.task):
        return shown
    values, starts = relevance[shown.places], shown.offsets[:-1]
    open = np.maximum.reduceat(values, starts) > np.minimum.reduceat(values, starts)
    sizes = np.diff(shown.offsets)
    offsets = np.concatenate([[0], np.cumsum(sizes[open])])
    return Shown(shown.task[open], offsets, shown.places[np.repeat(open, sizes)])


def _first_best(offsets: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return the place, within each ragged row, of the first of its largest values."""
    if len(offsets) == 1:
        return np.zeros(0, np.int64)
    best = np.maximum.reduceat(values, offsets[:-1])
    place = np.where(values == np.repeat(best, np.diff(offsets)), np.arange(len(values)), len(values))
    return np.minimum.reduceat(place, offsets[:-1]) - offsets[:-1]


def _ground_truth(shown: Shown, texts: pa.Array, relevance: np.ndarray) -> tuple[pa.ListArray, pa.StructArray]:
    """Return the candidates' texts, and verl's ``ground_truth`` around them (as ``RankingTask.ground_truth``)."""
    values = relevance[shown.places]
    target = _first_best(shown.offsets, values)
    if len(target):
        largest = np.maximum.reduceat(values, shown.offsets[:-1])
        graded = (largest != 1.0) | (np.add.reduceat((values != 0).astype(int), shown.offsets[:-1]) != 1)
    else:
        graded = np.zeros(0, bool)
    # a list is null where its mask says so; its values stay in the buffer, unread
    grades = pa.ListArray.from_arrays(
        pa.array(shown.offsets, pa.int32()), pa.array(values), type=pa.list_(pa.float64()), mask=pa.array(~graded)
    )
    candidates = shown.lists(texts)
    type = SCHEMA.field("reward_model").type.field("ground_truth").type
    truth = {"candidates": candidates, "target": pa.array(target, pa.int64()), "relevance": grades}
    return candidates, pa.StructArray.from_arrays([truth[f.name] for f in type], fields=list(type))


def _struct(column: str, fields: dict[str, pa.Array]) -> pa.StructArray:
    type = SCHEMA.field(column).type
    return pa.StructArray.from_arrays([fields[f.name] for f in type], fields=list(type))


# ----------------------------------------------------------------------------------------------------------- prompts


def prompts(
    template: Template,
    datasets: pa.Array,
    scenarios: pa.Array,
    context: pa.Array,
    shown: Shown,
    candidates: pa.ListArray,
) -> pa.ListArray:
    """Return the chat messages of each row, as ``Template.messages`` gives them."""
    _, _, within = _ragged(np.diff(shown.offsets))
    labels = pa.array([label(i) for i in range(int(within.max(initial=-1)) + 1)], pa.string())
    fields = {"label": labels.take(pa.array(within)), "text": candidates.flatten()}
    lines = shown.of(_joined(template.candidate_pieces, fields))
    fields = {
        "context": context,
        "candidates": pc.binary_join(lines, "\n"),
        "n": pc.cast(pa.array(np.diff(shown.offsets)), pa.string()),
    }
    user = _by_dataset(template, datasets, scenarios, fields)
    count = len(user)
    fixed = {"system": template.system, "user": None, "assistant": template.begin}
    said = {role: pa.repeat(text, count) if text else user for role, text in fixed.items() if text or role == "user"}
    contents = pa.concat_arrays(list(said.values()))
    contents = contents.take(pa.array(np.arange(len(said) * count).reshape(len(said), count).T.ravel()))
    roles = pa.array(list(said), pa.string()).take(pa.array(np.tile(np.arange(len(said)), count)))
    type = SCHEMA.field("prompt").type
    messages = pa.StructArray.from_arrays([roles, contents], fields=list(type.value_type))
    offsets = np.arange(count + 1, dtype=np.int32) * len(said)
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), messages)


def _by_dataset(template: Template, datasets: pa.Array, scenarios: pa.Array, fields: dict[str, pa.Array]) -> pa.Array:
    """Return the user message of each row: a template's text may differ from one dataset to the next."""
    kinds = pc.dictionary_encode(pc.binary_join_element_wise(datasets, scenarios, "\0"))
    place = kinds.indices.to_numpy(zero_copy_only=False)
    parts, order = [], []
    for number, kind in enumerate(kinds.dictionary.to_pylist()):
        where = np.flatnonzero(place == number)
        chosen = {name: values.take(pa.array(where)) for name, values in fields.items()}
        parts.append(_joined(template.user_pieces(*kind.split("\0")), chosen))
        order.append(where)
    if not parts:
        return pa.array([], pa.string())
    return pa.concat_arrays(parts).take(pa.array(np.argsort(np.concatenate(order), kind="stable")))


def _joined(pieces: tuple[str, ...], fields: dict[str, pa.Array]) -> pa.Array:
    """Join literal, field, literal, …, literal for every row."""
    parts = [fields[piece] if i % 2 else pa.scalar(piece, pa.string()) for i, piece in enumerate(pieces)]
    return pc.binary_join_element_wise(*parts, pa.scalar("", pa.string()))
