"""CSV and JSON of a user's own, known by their columns (docs/own-data.md), whatever their suffix, plain or gzipped.

===================================================  ================================================================
``user_id, item_id, timestamp``                      recommendation (:mod:`data_prep.custom.recommendation`)
``query, passage, relevance``                        passages, a row a passage (:mod:`data_prep.custom.passage`)
``query, candidates`` (JSON)                         passages, a row a query
``query, llm, effect, cost``                         routing (:mod:`data_prep.custom.routing`)
===================================================  ================================================================

A dataset has the name of its file, ``clicks`` for ``clicks.csv``: in lower case, with ``-`` for what is not a letter,
digit, ``-``, ``_`` or ``.``. Interactions in a folder called like a dataset of the paper are that one.

A ``.csv`` or ``.jsonl`` file that lacks one of the columns is refused, and so is any that separates them by something
else than commas; one that lacks more is
somebody else's, and so is one with columns of a format that is known (GraphRouter's ``task_id``, ``cost_raw``).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from data_prep.custom import passage, routing
from data_prep.custom.recommendation import EVENTS, ITEMS_FILE, own_interactions
from data_prep.readers.filenames import stem_of
from data_prep.readers.lines import SEPARATORS, column_key
from data_prep.readers.sniff import ARROW, PARQUET, TABLE, NotRead, RawFile
from data_prep.readers.text import shown
from data_prep.scenarios.interactions import folder_dataset
from data_prep.scenarios.recommendation import interaction_source
from data_prep.tasks import Source, Unit
from iranker_verl.errors import UserError
from iranker_verl.ranking import DATASETS

FORMAT = "own"
_SCENARIO = {
    EVENTS: "recommendation",
    passage.LONG: "passage",
    passage.NESTED: "passage",
    routing.COLUMNS: "routing",
}
_OTHERS = {"task_id", "cost_raw"}
_USUAL = (".csv", ".jsonl", ".ndjson")  # one of these that is nearly right is meant to be right


def find_own(files: Sequence[RawFile], raw: Path) -> Iterator[Source | NotRead]:
    """Yield a source a file. Raise UserError for a file that is nearly one, or whose name is taken by another scenario."""
    for file in files:
        path, stem = file.path, stem_of(file.path)
        if stem.endswith(ITEMS_FILE) or not (scenario := _scenario(file)):
            continue
        if file.form in (PARQUET, ARROW):
            yield NotRead(path, f"columns of a {scenario} file of your own; save it as CSV or JSON lines, {stem}.csv")
            continue
        name = _name(path, stem, scenario)
        if scenario == "recommendation":
            yield interaction_source(FORMAT, own_interactions(folder_dataset(path, raw) or name, path))
        elif scenario == "passage":
            unit = Unit(f"{FORMAT}:{name}", passage.own_passage_drafts, (path,))
            yield Source(FORMAT, (name,), (path,), [unit])
        else:
            unit = Unit(f"{FORMAT}:{name}", routing.own_routing_drafts, (path,))
            yield Source(FORMAT, routing.routing_datasets(name), (path,), [unit])


def _scenario(file: RawFile) -> str | None:
    """Return what a file's columns are for, None for somebody else's. Raise UserError for a file that is nearly one."""
    path = file.path
    if file.form == "columns" or any(map(file.has, _OTHERS)):
        return None
    # other tools also call their lists of passages so, in JSON whose queries are no texts
    nested = file.suffix in _USUAL or (isinstance(file.first, dict) and isinstance(file.first.get("query"), str))
    kinds = [kind for kind in _SCENARIO.items() if kind[0] != passage.NESTED or (file.is_json and nested)]
    if whole := next(((columns, scenario) for columns, scenario in kinds if file.has(*columns)), None):
        columns, scenario = whole
        if file.form == TABLE and file.separator != ",":
            raise UserError(
                f"{path}: its columns are separated by {SEPARATORS[file.separator]}; write {','.join(columns)}, "
                "separated by commas"
            )
        return scenario
    for columns, scenario in kinds if file.suffix in _USUAL else ():
        missing = [column for column in columns if not file.has(column)]
        # One column of two proves nothing, and many files have a user and a time.
        if len(missing) == 1 and len(columns) > 2 and missing != ["item_id"]:
            raise UserError(f"{path}: no column {missing[0]}; a {scenario} file has {','.join(columns)}")
        keys = {column_key(column) for column in columns}
        if below := [place for place, row in enumerate(file.rows) if keys <= {column_key(name) for name in row}]:
            raise UserError(
                f"{path}: {','.join(columns)} are not the first row, but stand {below[0]} rows below "
                f"{shown(' '.join(file.columns))}; remove what is above them"
            )
    return None


def _name(path: Path, stem: str, scenario: str) -> str:
    name = re.sub(r"[^a-z0-9._-]+", "-", stem.lower()).strip("-")
    if not name or DATASETS.get(name, scenario) != scenario:
        taken = f"{name} is a dataset for {DATASETS[name]}" if name else "its name has no letter or digit"
        raise UserError(f"{path}: {taken}, and its columns are for {scenario}; rename it")
    return name
