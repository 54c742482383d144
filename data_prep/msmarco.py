"""Passage tasks from MS MARCO v1.1's Parquet files (https://huggingface.co/datasets/microsoft/ms_marco).

Read are ``query`` and ``passages``, a struct of the lists ``is_selected`` and ``passage_text``. Dataset passage-N takes
the queries with exactly N passages of which exactly one is selected, whose passages together have no more than
``max_chars`` characters; all others are dropped and counted. Passages stand in random order, each on one line.

Where both train and test files are there, they are the split, and a training query whose text occurs in test too (in
any row, case and white space apart) is dropped. Otherwise the split is by query text, one for the three datasets.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from data_prep.lines import shown
from data_prep.sampling import Options, TaskSet, make_task, one_line, query_key, shuffled, split
from iranker_verl.errors import UserError
from iranker_verl.ranking import Candidate, RankingTask

SIZES = {"passage-5": 5, "passage-7": 7, "passage-9": 9}


@dataclass(frozen=True)
class Row:
    """One row: a query with its passages. ``name`` is file and row, e.g. ``train-00000:17``."""

    name: str
    query: str
    passages: tuple[str, ...]
    selected: tuple[int, ...]


def load(
    train: Sequence[Path], test: Sequence[Path], options: Options, datasets: Iterable[str] = tuple(SIZES)
) -> dict[str, TaskSet]:
    """The tasks, by dataset. With no ``test`` files (or no ``train`` files) the others are split by query."""
    names = list(datasets)
    result = {dataset: TaskSet() for dataset in names}
    sizes = {SIZES[dataset]: dataset for dataset in names}
    first, _ = _usable(train, sizes, options, result)
    second, queries = _usable(test, sizes, options, result)
    if train and test:
        for dataset, rows in first.items():
            fresh = [row for row in rows if query_key(row.query) not in queries]
            result[dataset].dropped["queries: in train and test"] += len(rows) - len(fresh)
            first[dataset] = fresh
    else:
        rows_of = first if train else second
        keys = [query_key(row.query) for rows in rows_of.values() for row in rows]
        chosen = set(split(keys, options, "passage")[1])
        first = {d: [r for r in rows if query_key(r.query) not in chosen] for d, rows in rows_of.items()}
        second = {d: [r for r in rows if query_key(r.query) in chosen] for d, rows in rows_of.items()}
    for dataset in names:
        rows = shuffled(first[dataset], options, f"{dataset}:train")[: options.max_train]
        result[dataset].train = [_task(dataset, row, options) for row in rows]
        rows = shuffled(second[dataset], options, f"{dataset}:test")[: options.max_test]
        result[dataset].test = [_task(dataset, row, options) for row in rows]
    return result


def _usable(
    files: Sequence[Path], sizes: dict[int, str], options: Options, result: dict[str, TaskSet]
) -> tuple[dict[str, list[Row]], set[str]]:
    """The rows that make a task, by dataset, and the keys of all queries."""
    usable: dict[str, list[Row]] = {dataset: [] for dataset in result}
    sizes_seen: Counter[int] = Counter()
    queries = set()
    for file in files:
        for row in read(file):
            queries.add(query_key(row.query))
            sizes_seen[len(row.passages)] += 1
            dataset = sizes.get(len(row.passages))
            if dataset is None:
                continue
            if reason := _unfit(row, options):
                result[dataset].dropped[reason] += 1
            else:
                usable[dataset].append(row)
    for size, dataset in sizes.items():
        result[dataset].dropped[f"queries: not {size} passages"] += sizes_seen.total() - sizes_seen[size]
    return usable, queries


def _unfit(row: Row, options: Options) -> str | None:
    if sum(row.selected) != 1:
        return "queries: not exactly one selected passage"
    if not row.query:
        return "queries: empty"
    if not all(row.passages):
        return "queries: an empty passage"
    if sum(map(len, row.passages)) > options.max_chars:
        return f"queries: passages longer than {options.max_chars} characters"
    return None


def _task(dataset: str, row: Row, options: Options) -> RankingTask:
    candidates = [Candidate(str(i), passage) for i, passage in enumerate(row.passages)]
    return make_task(f"{dataset}:{row.name}", dataset, row.query, candidates, str(row.selected.index(1)), options)


def is_msmarco(path: Path) -> bool:
    """Whether the file has the columns. UserError for a file that is not whole Parquet."""
    names = _open(path).schema_arrow.names
    return "query" in names and "passages" in names


def read(path: Path) -> Iterator[Row]:
    """The rows of a file. UserError names the file, the row (1-based) and what is wrong."""
    file = _open(path)
    if missing := [c for c in ("query", "passages") if c not in file.schema_arrow.names]:
        raise UserError(f"{path}: no column {missing[0]!r}; MS MARCO v1.1 has query and passages")
    name = re.sub(r"-of-\d+$", "", path.stem)
    number = 0
    try:
        for batch in file.iter_batches(batch_size=1024, columns=["query", "passages"]):
            for row in batch.to_pylist():
                number += 1
                yield _row(row, f"{name}:{number}", f"{path} row {number}")
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{path}: unreadable after row {number} ({_first_line(error)}); fetch it again") from error


def _row(row: dict[str, Any], name: str, where: str) -> Row:
    query, passages = row["query"], row["passages"]
    if not isinstance(query, str):
        raise UserError(f"{where}: query is {shown(str(query))}, not a text")
    texts, flags = (passages.get(k) if isinstance(passages, dict) else None for k in ("passage_text", "is_selected"))
    if not isinstance(texts, list) or not isinstance(flags, list):
        raise UserError(f"{where}: passages is not a struct of the lists passage_text and is_selected")
    if len(texts) != len(flags):
        raise UserError(f"{where}: {len(texts)} passages but {len(flags)} is_selected flags")
    if not all(isinstance(text, str) for text in texts):
        raise UserError(f"{where}: a passage_text is not a text")
    if bad := [flag for flag in flags if flag not in (0, 1)]:
        raise UserError(f"{where}: is_selected is {shown(str(bad[0]))}, not 0 or 1")
    return Row(name, one_line(query), tuple(map(one_line, texts)), tuple(map(int, flags)))


def _open(path: Path) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(path)
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file; check the path") from error
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{path}: not a whole Parquet file ({_first_line(error)}); fetch it again") from error


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
