"""RecBole's atomic files (https://recbole.io/docs/user_guide/data/atomic_files.html): tabs, UTF-8.

The first line names and types the columns: ``name:type``.

``X.inter`` needs ``user_id``, ``item_id`` and ``timestamp``; ``X.item`` needs ``item_id`` and a title (``title``,
``movie_title`` or ``name``); it may have a year (``release_year``) and genres (``class``, ``genre``, ``genres``: words
with spaces between). Other columns are not read: every row is an interaction, whatever its rating.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from data_prep.lines import rows, shown
from data_prep.recommendation import Interactions
from iranker_verl.errors import UserError

TITLE = ("title", "movie_title", "name")
YEAR = ("release_year",)
GENRES = ("class", "genre", "genres")


def read(events: Path, items: Path) -> Interactions:
    """A ``.inter`` and its ``.item``."""
    data = Interactions()
    for _, (item, title, year, genres) in _columns(items, (("item_id",), TITLE, YEAR, GENRES), 2, data.dropped):
        data.add_item(item, title, year, genres.split())
    for row, (user, item, time) in _columns(events, (("user_id",), ("item_id",), ("timestamp",)), 3, data.dropped):
        data.add_event(user, item, time, events, row)
    return data


def _columns(
    path: Path, columns: Sequence[Sequence[str]], required: int, dropped: Counter[str]
) -> Iterator[tuple[int, list[str]]]:
    """``(row, values)`` in the order of ``columns``, each one by the names it may have; "" for an absent optional."""
    table = rows(path, "\t", None, dropped)
    row, header = next(table)
    names = [field.partition(":")[0] for field in header]
    if not all(re.fullmatch(r"[^:,;|]+:\w+", field) for field in header):
        first = shown("\t".join(header))
        raise UserError(f"{path} row {row}: not a RecBole header (name:type, separated by tabs) but {first}")
    places = [next((names.index(name) for name in choices if name in names), None) for choices in columns]
    for choices, place in zip(columns[:required], places, strict=False):
        if place is None:
            raise UserError(f"{path} row {row}: no column {' or '.join(choices)}; its columns are {', '.join(names)}")
    for row, fields in table:
        yield row, [fields[place] if place is not None else "" for place in places]
