"""CSV and JSON lines of a user's own, known by their columns (docs/own-data.md), plain or gzipped.

===================================================  ================================================================
``user_id, item_id, timestamp``                      recommendation (:mod:`data_prep.custom.recommendation`)
``query, passage, relevance``                        passages, a row a passage (:mod:`data_prep.custom.passage`)
``query, candidates`` (JSON lines)                   passages, a row a query
``query, llm, effect, cost``                         routing (:mod:`data_prep.custom.routing`)
===================================================  ================================================================

A dataset is called like its file, ``clicks`` for ``clicks.csv``: in lower case, with ``-`` for what is not a letter,
digit, ``-``, ``_`` or ``.``. Interactions in a folder called like a dataset of the paper are that one.

A file that lacks one of the columns, or separates them by something else than commas, is refused; one that lacks more is
somebody else's, and so is one with columns of a format that is known (GraphRouter's ``task_id``, ``cost_raw``).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from data_prep import custom as own
from data_prep.custom import passage, routing
from data_prep.custom.recommendation import EVENTS, ITEMS_FILE, interactions
from data_prep.options import Options
from data_prep.scenarios import recommendation
from data_prep.scenarios.interactions import folder_dataset
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


def find(files: Sequence[Path], raw: Path) -> Iterator[Source]:
    """A source a file. UserError for a file that is nearly one, or whose name is taken by another scenario."""
    for path in files:
        end = own.suffix(path)
        stem = path.name.removesuffix(end)
        if not end or stem.endswith(ITEMS_FILE) or not (scenario := _scenario(path)):
            continue
        name = _name(path, stem, scenario)
        if scenario == "recommendation":
            yield recommendation.source(FORMAT, interactions(folder_dataset(path, raw) or name, path))
        elif scenario == "passage":
            yield Source(FORMAT, (name,), (path,), partial(_passage_units, path, name))
        else:
            yield Source(FORMAT, tuple(routing.datasets(name).values()), (path,), partial(_routing_units, path, name))


def _passage_units(path: Path, name: str, options: Options, datasets: Sequence[str], _: object = None) -> list[Unit]:
    return [Unit(f"{FORMAT}:{name}", passage.make, (path, name, options))]


def _routing_units(path: Path, name: str, options: Options, datasets: Sequence[str], _: object = None) -> list[Unit]:
    return [Unit(f"{FORMAT}:{name}", routing.make, (path, name, tuple(datasets), options))]


def _scenario(path: Path) -> str | None:
    """What a file's columns are for; None for somebody else's. UserError where one is missing, or another delimiter."""
    names = set(own.names(path))
    words = set(re.split(r"[;\t|]", " ".join(names))) if len(names) == 1 else set()
    if (names | words) & _OTHERS:
        return None
    kinds = [kind for kind in _SCENARIO.items() if kind[0] != passage.NESTED or not own.is_csv(path)]
    for columns, scenario in kinds:
        if names >= set(columns):
            return scenario
    for columns, scenario in kinds:
        missing = [column for column in columns if column not in names]
        # One of two says nothing, and a user and a time are in many files.
        if len(missing) == 1 and len(columns) > 2 and missing != ["item_id"]:
            raise UserError(f"{path}: no column {missing[0]}; a {scenario} file has {','.join(columns)}")
        if words >= set(columns):
            raise UserError(f"{path}: its columns are not separated by commas; write {','.join(columns)}")
    return None


def _name(path: Path, stem: str, scenario: str) -> str:
    name = re.sub(r"[^a-z0-9._-]+", "-", stem.lower()).strip("-")
    if not name or DATASETS.get(name, scenario) != scenario:
        taken = f"{name} is a dataset for {DATASETS[name]}" if name else "its name has no letter or digit"
        raise UserError(f"{path}: {taken}, and its columns are for {scenario}; rename it")
    return name
