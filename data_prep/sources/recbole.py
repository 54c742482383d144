"""RecBole's atomic files (https://recbole.io/docs/user_guide/data/atomic_files.html): tabs, UTF-8, ``X.inter`` + ``X.item``.

The first line names and types the columns: ``name:type``.

``X.inter`` needs ``user_id``, ``item_id`` and ``timestamp``; ``X.item`` needs ``item_id`` and a title (``title``,
``movie_title`` or ``name``); it may have a year (``release_year``) and genres (``class``, ``genre``, ``genres``: words
with spaces between). Other columns are not read: every row is an interaction, whatever its rating. An ``.inter`` with
``item_id_list`` holds sequences that were cut already, without times, and is left alone.

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
from data_prep.readers.lines import columns, first_line, identifier
from data_prep.readers.text import shown
from data_prep.scenarios import recommendation
from data_prep.scenarios.interactions import Interactions, Item, dataset_of, titles_of
from data_prep.tasks import Source
from iranker_verl.errors import UserError

EVENTS = (("user_id",), ("item_id",), ("timestamp",))
ITEMS = (("item_id",), ("title", "movie_title", "name"), ("release_year",), ("class", "genre", "genres"))


def find(files: Sequence[Path], raw: Path) -> Iterator[Source]:
    """The pairs among ``files``. UserError where it cannot be told which dataset one is, or its ``.item`` is missing."""
    for path in files:
        if path.suffix == ".inter" and "item_id_list:" not in first_line(path):
            dataset = dataset_of(path, raw, path.stem)
            items = titles_of(path, path.with_suffix(".item"))
            yield recommendation.source("RecBole", Interactions(dataset, (path,), (items,), read_events, read_items))


def read_events(path: Path, dropped: Counter[str]) -> Iterator[pa.RecordBatch]:
    """``X.inter``."""
    return events.read(path, events.by_header(path, "\t", EVENTS, _names), dropped)


def read_items(path: Path, dropped: Counter[str]) -> Iterator[Item]:
    """``X.item``."""
    for row, (item, title, year, genres) in columns(path, "\t", ITEMS, 2, dropped, _names):
        yield Item(identifier(item, path, row, "item"), title, year, tuple(genres.split()))


def _names(fields: list[str], where: str) -> list[str]:
    """The names in a header. UserError where it is none of RecBole's."""
    if not all(re.fullmatch(r"[^:,;|]+:\w+", field) for field in fields):
        raise UserError(
            f"{where}: not a RecBole header (name:type, separated by tabs) but {shown(chr(9).join(fields))}"
        )
    return [field.partition(":")[0] for field in fields]
