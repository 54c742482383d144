"""MS MARCO v1.1 and v2.1 (Bajaj et al. 2016, arXiv 1611.09268), as Parquet or as JSON.

=====================================  ==============================================================================
Parquet (Hugging Face's ms_marco)      ``query`` and ``passages``, a struct of the lists ``is_selected``,
                                       ``passage_text`` and ``url``; any number of shards
JSON objects (v1.1's own form)         ``{"query": …, "passages": [{"is_selected", "passage_text", "url"}, …], …}``, or
                                       ``passages`` as in Parquet
JSON columns (v2.1's own form)         ``{"passages": {"0": [{…}, …], …}, "query": {"0": …, …}, …}``, one object
=====================================  ==============================================================================

JSON may be gzipped. All files of one folder (of folders ``train/``, ``test/``, … beside each other) and of one form are
one source. Where names say train and test these are the sides of the split; a test file without labels (v2.1's: all flags
are -1 or absent) is replaced by the validation or dev file. Otherwise the split is by query.

Policy. What a preset takes and what it drops is in :mod:`data_prep.scenarios.passage`; no passage or several selected, an empty
query and an empty passage are dropped and counted. A query whose passages all lack ``is_selected``, or have -1, has none
selected. Rows with another number of passages than is wanted are counted and not looked into. Passages that occur twice
in a query both stay, as ids 0, 1, … in the file's order; HTML residue stays. Refused, by file and row: a file that is cut
off (JSON lines cut off between two lines look whole), what is no JSON object, a query or passage
that is no text, a flag that is not 0 or 1.

Memory is a batch of rows, however large a row group is. A v2.1 JSON file of some GB is read twice at once, its queries
beside its passages, so that it takes no more; it is one unit of work, where Parquet is cut into row groups: faster for
those who have the choice.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_prep.options import Options
from data_prep.readers.documents import json_columns, json_records
from data_prep.readers.filenames import TEST, home, sides, split_of
from data_prep.readers.lines import plain_text
from data_prep.readers.parquet import parquet_batches, parquet_file
from data_prep.readers.sniff import PARQUET, NotRead, RawFile
from data_prep.readers.text import shown
from data_prep.scenarios import passage
from data_prep.scenarios.passage import DATASETS, Query
from data_prep.tasks import Draft, Dropped, Source, Unit
from iranker_verl.errors import UserError

COLUMNS = ("query", "passages.is_selected", "passages.passage_text")
UNIT_ROWS = 50_000
_LOOKED_AT = 10_000  # queries, for one with a label
_COLUMN_NAMES = {"answers", "passages", "query", "query_id", "query_type", "wellFormedAnswers"}
Row = tuple[int, Any, Any]  # row, query, passages


def find_msmarco(files: Sequence[RawFile], raw: Path) -> Iterator[Source | NotRead]:
    """Yield a source for each folder and form. Raise UserError for a Parquet file that is broken, and one split twice."""
    found: dict[tuple[Path, str], list[Path]] = {}
    for file in files:
        if form := _form(file):
            found.setdefault((home(file.path, raw), form), []).append(file.path)
    for (folder, form), own in found.items():
        labelled = [path for path in own if split_of(path, raw) != TEST or _labelled(path, form)]
        named: dict[str, tuple[Path, str | None]] = {}
        for path, side in sides(labelled or own, raw):
            other, _ = named.setdefault(_name(path, folder), (path, side))
            if other != path:
                raise UserError(f"{other} and {path} have one name, like the same data twice; keep one of them")
        used = tuple(path for path, _ in named.values())
        units = [unit for name, (path, side) in named.items() for unit in _units(form, name, path, side)]
        yield Source("MS MARCO", DATASETS, used, units)
        for path in own:
            if path not in used:
                unread = "of another split" if path in labelled else "no passage is selected, so it has no labels"
                yield NotRead(path, f"{unread}; {', '.join(one.name for one in used[:3])} are read")


def _units(form: str, name: str, path: Path, side: str | None) -> Iterator[Unit]:
    """Yield a unit for a JSON file, and one for some row groups of a Parquet file at a time."""
    if form != PARQUET:
        yield Unit(f"msmarco:{name}", json_drafts, (path, name, side, form))
        return
    for groups, first in _ranges(path):
        yield Unit(f"msmarco:{name}:{first}", parquet_drafts, (path, name, side, groups, first))


def _form(file: RawFile) -> str:
    """Return ``parquet``, ``columns`` or ``records``; "" for a file of something else."""
    if file.form == "columns":
        known = file.has("query", "passages") or (len(file.columns) == 1 and _COLUMN_NAMES.issuperset(file.columns))
        return "columns" if known else ""  # of a large file, the first column alone is known
    if file.form == PARQUET:
        return PARQUET if file.has("query", "passages") else ""
    passages = file.first.get("passages") if isinstance(file.first, dict) and "query" in file.first else None
    return "records" if isinstance(passages, list | dict) else ""


def _name(path: Path, folder: Path) -> str:
    """Return the path below its source's folder, as ids and units show it: ``train-00000``, ``train-0000`` for ``train/0000``."""
    return re.sub(r"(-of-\d+)?(\.(parquet|jsonl?|gz))+$", "", "-".join(path.relative_to(folder).parts))


def _labelled(path: Path, form: str) -> bool:
    """Return whether any of a file's first queries has a selected passage."""
    rows = _parquet_rows(path) if form == PARQUET else _json_rows(path, form, Counter())
    return any(sum(_passages(passages, f"{path} row {row}")[1]) for row, _, passages in islice(rows, _LOOKED_AT))


def _ranges(path: Path) -> Iterator[tuple[list[int], int]]:
    """Yield row groups of about :data:`UNIT_ROWS` rows together, with the number of their first row."""
    with parquet_file(path) as file:
        groups: list[int] = []
        first = row = 1
        for group in range(file.num_row_groups):
            groups.append(group)
            row += file.metadata.row_group(group).num_rows
            if row - first >= UNIT_ROWS or group == file.num_row_groups - 1:
                yield groups, first
                groups, first = [], row


def parquet_drafts(
    path: Path,
    name: str,
    side: str | None,
    groups: Sequence[int],
    first: int,
    options: Options,
    datasets: Sequence[str],
    dropped: Dropped,
) -> Iterator[Draft]:
    """Yield the tasks of some row groups (a unit)."""
    wanted = sorted({passage.passages_of(dataset, options) for dataset in datasets})

    def queries() -> Iterator[Query]:
        for row, batch in _parquet_batches(path, groups, first):
            sizes = pc.list_value_length(pc.struct_field(batch["passages"], "passage_text"))
            fits = pc.is_in(sizes, value_set=pa.array(wanted, sizes.type))
            keep = pc.or_(fits, pc.is_null(sizes)).to_numpy(
                zero_copy_only=False
            )  # null: to be looked into, and refused
            for dataset in datasets:
                dropped[dataset][passage.not_of_size(passage.passages_of(dataset, options))] += int((~keep).sum())
            fit = batch.filter(pa.array(keep))
            for place, *cells in zip(
                np.flatnonzero(keep), *(column.to_pylist() for column in fit.columns), strict=True
            ):
                yield _query(path, name, (row + int(place), *cells))

    yield from passage.preset_drafts(queries(), datasets, options, side, dropped)


def json_drafts(
    path: Path, name: str, side: str | None, form: str, options: Options, datasets: Sequence[str], dropped: Dropped
) -> Iterator[Draft]:
    """Yield the tasks of a JSON file (a unit)."""
    blank: Counter[str] = Counter()
    queries = (_query(path, name, row) for row in _json_rows(path, form, blank))
    yield from passage.preset_drafts(queries, datasets, options, side, dropped)
    for dataset in datasets:
        dropped[dataset].update(blank)


def _parquet_batches(path: Path, groups: Sequence[int] | None, first: int) -> Iterator[tuple[int, pa.RecordBatch]]:
    with parquet_file(path) as file:
        kind = file.schema_arrow.field("passages").type
        lists = {field.name for field in kind if _is_list(field.type)} if pa.types.is_struct(kind) else set()
        if not {"is_selected", "passage_text"} <= lists:
            raise UserError(f"{path}: passages is {kind}, not a struct of the lists is_selected and passage_text")
    yield from parquet_batches(path, COLUMNS, groups, first)


def _is_list(kind: pa.DataType) -> bool:
    return pa.types.is_list(kind) or pa.types.is_large_list(kind)


def _parquet_rows(path: Path) -> Iterator[Row]:
    for row, batch in _parquet_batches(path, None, 1):
        for place, cells in enumerate(zip(*(column.to_pylist() for column in batch.columns), strict=True)):
            yield row + place, *cells


def _json_rows(path: Path, form: str, dropped: Counter[str]) -> Iterator[Row]:
    if form == "columns":
        for row, cells in json_columns(path, ("query", "passages")):
            yield row, *cells
    else:
        for row, value in json_records(path, dropped):
            yield row, value.get("query"), value.get("passages")


def _query(path: Path, name: str, row: Row) -> Query:
    number, text, passages = row
    where = f"{path} row {number}"
    plain_text(text, where, "query")
    texts, flags = _passages(passages, where)
    rows = ((str(place), *cells) for place, cells in enumerate(zip(texts, map(float, flags), strict=True)))
    return passage.graded_query(f"{name}:{number}", text, rows)


def _passages(value: Any, where: str) -> tuple[list[str], list[Any]]:
    """Return texts and flags of a query's passages, from a list of objects or an object of lists; no label is 0."""
    texts: Any = None
    flags: Any = None
    if isinstance(value, list) and all(isinstance(one, dict) for one in value):
        texts, flags = ([one.get(key) for one in value] for key in ("passage_text", "is_selected"))
        if all(flag is None for flag in flags):
            flags = [0] * len(value)
    elif isinstance(value, dict):
        texts, flags = value.get("passage_text"), value.get("is_selected")
    if not isinstance(texts, list) or not isinstance(flags, list):
        raise UserError(f"{where}: passages has no lists passage_text and is_selected; correct or remove the row")
    if len(texts) != len(flags):
        raise UserError(f"{where}: {len(texts)} passages but {len(flags)} is_selected flags")
    for text in texts:
        plain_text(text, where, "a passage_text")
    if flags and all(flag == -1 for flag in flags):
        flags = [0] * len(flags)
    if bad := [flag for flag in flags if flag not in (0, 1)]:
        raise UserError(f"{where}: is_selected is {shown(str(bad[0]))}, not 0 or 1; correct or remove the row")
    return texts, flags
