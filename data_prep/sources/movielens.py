"""MovieLens as GroupLens publishes it (https://grouplens.org/datasets/movielens/).

=============================  =======================================================================================
``u.data`` + ``u.item``        100K: ``user, item, rating, time`` by tabs; ``id|title (year)|release|video|url`` and 19
                               flags, one a genre
``ratings.dat`` +              1M, 10M: ``user::movie::rating::time``; ``id::title (year)::Genre|Genre``
``movies.dat``
``ratings.csv`` +              20M, 25M, 32M and latest: CSV with the headers ``userId,movieId,rating,timestamp`` and
``movies.csv``                 ``movieId,title,genres``
=============================  =======================================================================================

It is rec-movie, unless it lies in a folder called like another dataset. Every rating is an interaction, whatever its
value, as in the paper. Blank lines are skipped and counted; an event without user or item, or with a time that is not a
number, a line with another number of fields, and a genre's flag that is not 0 or 1 are refused. Titles that are not
UTF-8 are latin-1, as GroupLens writes 100K and 1M: a file that somebody has converted is read right too.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import pyarrow as pa

from data_prep.readers import events
from data_prep.readers.lines import identifier, lines, table_columns, table_rows
from data_prep.readers.sniff import RawFile
from data_prep.readers.text import shown
from data_prep.scenarios.interactions import Interactions, Item, folder_dataset, titles_of
from data_prep.scenarios.recommendation import interaction_source
from data_prep.tasks import Source
from iranker_verl.errors import UserError

# The 19 flags of u.item, in their order (GroupLens' u.genre).
GENRES = (
    "unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama", "Fantasy",
    "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western",
)  # fmt: skip
_COLUMNS = ("userId", "movieId", "timestamp")


def find_movielens(files: Sequence[RawFile], raw: Path) -> Iterator[Source]:
    """Yield the pairs among ``files``. Raise UserError where the movies are missing."""
    for file in files:
        if file.name in _PAIRS and (file.name != "ratings.csv" or file.has(*_COLUMNS)):
            format, movies, read, read_items = _PAIRS[file.name]
            items, dataset = titles_of(file.path, movies), folder_dataset(file.path, raw) or "rec-movie"
            yield interaction_source(format, Interactions(dataset, (file.path,), (items,), read, read_items))


def read_events(separator: str, path: Path, dropped: Counter[str]) -> Iterator[pa.RecordBatch]:
    """Yield the events of ``u.data`` and ``ratings.dat``."""
    return events.table_events(path, events.Layout(separator, 4, user=0, item=1, time=3), dropped)


def read_csv_events(path: Path, dropped: Counter[str]) -> Iterator[pa.RecordBatch]:
    """Yield the events of ``ratings.csv``."""
    return events.table_events(path, events.header_layout(path, ",", [(name,) for name in _COLUMNS]), dropped)


def read_100k_items(path: Path, dropped: Counter[str]) -> Iterator[Item]:
    """Yield the films of ``u.item``."""
    for row, fields in table_rows(path, "|", 5 + len(GENRES), dropped, _encoding(path)):
        for genre, flag in zip(GENRES, fields[5:], strict=True):
            if flag not in ("0", "1"):
                raise UserError(f"{path} row {row}: the flag of genre {genre} is {shown(flag)}, not 0 or 1")
        genres = tuple(genre for genre, flag in zip(GENRES, fields[5:], strict=True) if flag == "1")
        yield Item(identifier(fields[0], path, row, "item"), fields[1], genres=genres, row=row)


def read_1m_items(path: Path, dropped: Counter[str]) -> Iterator[Item]:
    """Yield the films of ``movies.dat``."""
    for row, (item, title, genres) in table_rows(path, "::", 3, dropped, _encoding(path)):
        yield Item(identifier(item, path, row, "item"), title, genres=tuple(genres.split("|")), row=row)


def read_csv_items(path: Path, dropped: Counter[str]) -> Iterator[Item]:
    """Yield the films of ``movies.csv``."""
    for row, (item, title, genres) in table_columns(path, ",", (("movieId",), ("title",), ("genres",)), 3, dropped):
        yield Item(identifier(item, path, row, "item"), title, genres=tuple(genres.split("|")), row=row)


# By the file of ratings: what people call the set, its file of movies, and how both are read.
_PAIRS: dict[str, tuple[str, str, Callable[..., Iterator[pa.RecordBatch]], Callable[..., Iterator[Item]]]] = {
    "u.data": ("MovieLens-100K", "u.item", partial(read_events, "\t"), read_100k_items),
    "ratings.dat": ("MovieLens-1M", "movies.dat", partial(read_events, "::"), read_1m_items),
    "ratings.csv": ("MovieLens-CSV", "movies.csv", read_csv_events, read_csv_items),
}


def _encoding(path: Path) -> str:
    try:
        for _, line in lines(path):
            line.decode()
    except UnicodeDecodeError:
        return "latin-1"
    return "utf-8"
