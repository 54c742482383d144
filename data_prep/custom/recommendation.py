"""Interactions of a user's own: ``user_id, item_id, timestamp`` and, there or in a file beside it, what items are called.

A file of items, ``X.items.csv`` or ``X.items.jsonl`` beside ``X.csv`` (any suffix will do), has ``item_id`` and ``title``, and perhaps
``genres`` (``A|B``, or a list in JSON) and ``year``. Otherwise these stand in ``X.csv`` itself, where the first row of an
item with a title tells, and later rows that say something else are counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from data_prep.custom import own_rows, text
from data_prep.readers import events
from data_prep.readers.filenames import stem_of
from data_prep.readers.lines import identifier
from data_prep.readers.sniff import TABLE, sniff
from data_prep.readers.text import shown
from data_prep.scenarios.interactions import Interactions, Item
from iranker_verl.errors import UserError

EVENTS = ("user_id", "item_id", "timestamp")
ITEMS = ("item_id", "title", "year", "genres")
ITEMS_FILE = ".items"


def own_interactions(dataset: str, path: Path) -> Interactions:
    """Return the events in ``path`` with their titles. Raise UserError where there are none, or several files of them."""
    stem = stem_of(path) + ITEMS_FILE
    items = [other for other in sorted(path.parent.iterdir()) if stem_of(other) == stem and other.is_file()]
    if len(items) > 1:
        raise UserError(f"{path}: its items occur twice, as {items[0].name} and as {items[1].name}; remove one")
    if not items and not sniff(path).has("title"):
        raise UserError(f"{path}: no titles; add a column title, or a file {stem}.csv with item_id,title beside it")
    return Interactions(dataset, (path,), tuple(items or [path]), read_events, read_items)


def read_events(path: Path, dropped: Counter[str]) -> Iterator[pa.RecordBatch]:
    """Yield the events in the file's order."""
    if sniff(path).form == TABLE:
        return events.table_events(path, events.header_layout(path, ",", [(name,) for name in EVENTS]), dropped)
    return events.event_batches(path, ((row, *values) for row, values in own_rows(path, EVENTS, len(EVENTS), dropped)))


def read_items(path: Path, dropped: Counter[str]) -> Iterator[Item]:
    """Yield the items of an item file, or of the events."""
    if not stem_of(path).endswith(ITEMS_FILE):
        yield from _of_events(path, dropped)
        return
    for row, values in own_rows(path, ITEMS, 2, dropped):
        yield _item(values, path, row)


def _of_events(path: Path, dropped: Counter[str]) -> Iterator[Item]:
    told: dict[str, Item] = {}
    for row, values in own_rows(path, ITEMS, 2, Counter()):  # blank lines are counted with the events
        item = _item(values, path, row)
        if not item.title.strip():
            continue
        if told.setdefault(item.id, item) is item:
            yield item
        elif told[item.id] != item:
            dropped["items: told of in another way by a later row"] += 1


def _item(values: list[Any], path: Path, row: int) -> Item:
    item, title, year, genres = values
    if isinstance(genres, list):
        if not all(isinstance(genre, str) for genre in genres):
            raise UserError(f"{path} row {row}: genres is {shown(str(genres))}, not a list of texts")
    else:
        genres = text(genres, path, row, "genres").split("|")
    return Item(
        identifier(item, path, row, "item"),
        text(title, path, row, "title"),
        text(year, path, row, "year").strip(),
        tuple(genres),
        row,
    )
