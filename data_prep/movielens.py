"""MovieLens as GroupLens publishes it (https://grouplens.org/datasets/movielens/), in latin-1.

==========================  ==========================================================================================
``u.data`` + ``u.item``     100K: ``user, item, rating, time`` by tabs; ``id|title (year)|release|video|url|`` and 19
                            flags, one a genre
``ratings.dat`` +           1M: ``user::movie::rating::time``; ``id::title (year)::Genre|Genre``
``movies.dat``
==========================  ==========================================================================================

Every rating is an interaction, whatever its value, as in the paper. Blank lines are skipped and counted.
"""

from __future__ import annotations

from pathlib import Path

from data_prep.lines import rows, shown
from data_prep.recommendation import Interactions
from iranker_verl.errors import UserError

# The 19 flags of u.item, in their order (GroupLens' u.genre).
GENRES = (
    "unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama", "Fantasy",
    "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western",
)  # fmt: skip


def read_100k(events: Path, items: Path) -> Interactions:
    """``u.data`` and ``u.item``."""
    data = Interactions()
    for row, fields in rows(items, "|", 5 + len(GENRES), data.dropped, "latin-1"):
        for genre, flag in zip(GENRES, fields[5:], strict=True):
            if flag not in ("0", "1"):
                raise UserError(f"{items} row {row}: the flag of genre {genre} is {shown(flag)}, not 0 or 1")
        genres = [genre for genre, flag in zip(GENRES, fields[5:], strict=True) if flag == "1"]
        data.add_item(fields[0], fields[1], genres=genres)
    _read_events(data, events, "\t")
    return data


def read_1m(events: Path, items: Path) -> Interactions:
    """``ratings.dat`` and ``movies.dat``."""
    data = Interactions()
    for _, (item, title, genres) in rows(items, "::", 3, data.dropped, "latin-1"):
        data.add_item(item, title, genres=genres.split("|"))
    _read_events(data, events, "::")
    return data


def _read_events(data: Interactions, path: Path, separator: str) -> None:
    for row, (user, item, _rating, time) in rows(path, separator, 4, data.dropped, "latin-1"):
        data.add_event(user, item, time, path, row)
