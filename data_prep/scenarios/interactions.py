"""What every recommendation format is read as: who touched what and when, and what the items are called.

Which of the paper's datasets some files are is said by the nearest folder called like one, or else by their name.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa

from data_prep.readers.text import without_html
from iranker_verl.errors import UserError
from iranker_verl.ranking import DATASETS
from iranker_verl.ranking.text import clean

_YEAR = re.compile(r"\d{4}")
_NO_GENRE = {"", "unknown", "(no genres listed)"}
_BY_NAME = ((r"^ml|movie", "rec-movie"), (r"cds|music", "rec-music"), (r"games?", "rec-game"))


@dataclass(frozen=True)
class Item:
    """Something to recommend, as row ``row`` of its file tells of it: ``title`` may be empty, or hold HTML."""

    id: str
    title: str
    year: str = ""
    genres: tuple[str, ...] = ()
    row: int = field(default=0, compare=False)


def item_text(item: Item, title_alone: bool = False) -> str:
    """Return ``Title (Year), Genre, Genre`` on one line, without HTML; "" where nothing is left of the title.

    ``title_alone``: the title as its file has it, without what other columns say.
    """
    title = without_html(clean(item.title))
    if not title or title_alone:
        return title
    if _YEAR.fullmatch(item.year) and not title.endswith(f"({item.year})"):
        title = f"{title} ({item.year})"
    return ", ".join([title, *(genre for genre in map(clean, item.genres) if genre not in _NO_GENRE)])


@dataclass(frozen=True)
class Interactions:
    """The files of one dataset and how to read them. Picklable: the readers are functions of a module.

    ``read_events(path, dropped)`` yields batches of :data:`data_prep.readers.events.EVENTS`, ``read_items(path, dropped)`` every item that a file
    tells of, one without a title or told of before included. Both raise UserError that names file, row and value.
    """

    dataset: str
    events: tuple[Path, ...]
    items: tuple[Path, ...]
    read_events: Callable[[Path, Counter[str]], Iterator[pa.RecordBatch]]
    read_items: Callable[[Path, Counter[str]], Iterator[Item]]


def dataset_of(path: Path, raw: Path, name: str) -> str:
    """Return the dataset that ``path``, found in ``raw``, belongs to: by its folder, or by ``name``. Raise UserError for neither."""
    by_name = next((dataset for pattern, dataset in _BY_NAME if re.search(pattern, name, re.IGNORECASE)), "")
    if dataset := folder_dataset(path, raw) or by_name:
        return dataset
    raise UserError(f"{path}: which dataset is it? Put it into a folder called rec-movie, rec-music or rec-game")


def folder_dataset(path: Path, raw: Path) -> str:
    """Return the nearest folder, up to ``raw`` itself, with the name of a recommendation dataset; "" for none."""
    top = raw.parent if raw.is_file() else raw
    names = [top.resolve().name, *path.relative_to(top).parts[:-1]]
    return next((name for name in reversed(names) if DATASETS.get(name) == "recommendation"), "")


def titles_of(path: Path, name: str) -> Path:
    """Return the file of titles beside the events in ``path``, ``name`` or ``name.gz``. Raise UserError where it is missing."""
    for items in (path.with_name(name), path.with_name(f"{name}.gz")):
        if items.is_file():
            return items
    raise UserError(f"{path}: {name} is missing beside it; the items' titles are needed")
