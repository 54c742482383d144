"""RecBole's atomic files (https://recbole.io/docs/user_guide/data/atomic_files.html): tabs, UTF-8, ``X.inter`` + ``X.item``.

The first line names and types the columns: ``name:type``.

``X.inter`` needs ``user_id``, ``item_id`` and ``timestamp``; ``X.item`` needs ``item_id`` and a title (``title``,
``movie_title`` or ``name``); it may have a year (``release_year``) and genres (``class``, ``genre``, ``genres``: words
with spaces between). Other columns are not read: every row is an interaction, whatever its rating. An ``.inter`` with
``item_id_list`` holds sequences that were cut already, without times, and is ignored.

By X, ``ml…`` or ``…movie…`` is rec-movie, ``…CDs…`` or ``…music…`` rec-music, ``…games…`` rec-game; a folder called like
a dataset goes before that. Blank lines are skipped and counted. Refused are a line with another number of fields (a
wrong delimiter, a row cut off), text that is not UTF-8, and an event without user, item or a time that is a number.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa

from data_prep.readers import events
from data_prep.readers.filenames import stem_of
from data_prep.readers.lines import identifier, table_columns
from data_prep.readers.sniff import NotRead, RawFile
from data_prep.readers.text import shown
from data_prep.scenarios.interactions import Interactions, Item, dataset_of, titles_of
from data_prep.scenarios.recommendation import interaction_source
from data_prep.tasks import Source
from iranker_verl.errors import UserError

EVENTS = (("user_id",), ("item_id",), ("timestamp",))
ITEMS = (("item_id",), ("title", "movie_title", "name"), ("release_year",), ("class", "genre", "genres"))


def find_recbole(files: Sequence[RawFile], raw: Path) -> Iterator[Source | NotRead]:
    """Yield the pairs among ``files``. Raise UserError where the dataset is unknown, or an ``.item`` is missing."""
    for file in files:
        path, stem = file.path, stem_of(file.path)
        if file.suffix != ".inter":
            continue
        if any(name.startswith("item_id_list") for name in file.keys):
            yield NotRead(path, "sequences that were cut already, without times")
        else:
            dataset, items = dataset_of(path, raw, stem), titles_of(path, f"{stem}.item")
            yield interaction_source("RecBole", Interactions(dataset, (path,), (items,), read_events, read_items))


def read_events(path: Path, dropped: Counter[str]) -> Iterator[pa.RecordBatch]:
    """Yield the events of ``X.inter``."""
    return events.table_events(path, events.header_layout(path, "\t", EVENTS, _names), dropped)


def read_items(path: Path, dropped: Counter[str]) -> Iterator[Item]:
    """Yield the items of ``X.item``."""
    for row, (item, title, year, genres) in table_columns(path, "\t", ITEMS, 2, dropped, _names):
        yield Item(identifier(item, path, row, "item"), title, year, tuple(genres.split()), row)


def _names(fields: list[str], where: str) -> list[str]:
    """Return the names in a header. Raise UserError where it is not RecBole's."""
    fields = [field.strip(' "') for field in fields]
    if not all(re.fullmatch(r"[^:,;|]+:\w+", field) for field in fields):
        raise UserError(
            f"{where}: not a RecBole header (name:type, separated by tabs) but {shown(chr(9).join(fields))}"
        )
    return [field.partition(":")[0] for field in fields]
