"""Users with a favourite topic, in MovieLens-1M's format (films) and RecBole's atomic files (albums, games)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random

from data_prep.world import words

# A user takes eight of the ten items of a topic: few are left that a negative ("never seen") could hit by accident.
FAVOURITES = 8
OFF_TOPIC = 0.15


@dataclass(frozen=True)
class Item:
    """One film, album or game. ``genre`` is half topic, half chance: a hint that overlaps by words, and a poor one."""

    id: str
    topic: str
    title: str
    genre: str


Titler = Callable[[Random, str], str]


def film(random: Random, word: str) -> str:
    """Return a film's title about the topic of ``word``."""
    return f"{word} ({random.choice(words.YEARS)})"


def album(random: Random, word: str) -> str:
    """Return an album's title about the topic of ``word``."""
    return f"{word} {random.choice(words.ALBUM_WORDS)}"


def game(random: Random, word: str) -> str:
    """Return a game's title about the topic of ``word``."""
    return f"{word} {random.choice(words.GAME_WORDS)}"


def catalogue(random: Random, title: Titler, genres: tuple[str, ...], prefix: str = "") -> list[Item]:
    """Return an item for every topic word."""
    items = []
    for number, topic in enumerate(words.TOPICS):
        for word in words.WORDS[topic]:
            genre = genres[number % len(genres)] if random.random() < 0.25 else random.choice(genres)
            items.append(Item("", topic, title(random, word.capitalize()), genre))
    random.shuffle(items)  # else an item's number would reveal its topic
    return [Item(f"{prefix}{i + 1}", item.topic, item.title, item.genre) for i, item in enumerate(items)]


def histories(random: Random, items: list[Item], users: int) -> list[list[Item]]:
    """Return one sequence a user, oldest first; the last item, the one to predict, is always of the user's topic."""
    by_topic = {topic: [i for i in items if i.topic == topic] for topic in words.TOPICS}
    result = []
    for _ in range(users):
        topic = random.choice(words.TOPICS)
        own = random.sample(by_topic[topic], FAVOURITES)
        strays = [i for i in items if i.topic != topic]
        sequence = own[:-1]
        for place in range(len(sequence)):
            if random.random() < OFF_TOPIC:
                sequence.insert(place, random.choice([i for i in strays if i not in sequence]))
        result.append([*sequence, own[-1]])
    return result


def write_movielens(folder: Path, random: Random, users: int) -> None:
    """Write ``movies.dat`` and ``ratings.dat``, ``::`` between fields, latin-1, ratings shuffled as time stamps order them."""
    items = catalogue(random, film, words.GENRES)
    folder.mkdir(parents=True, exist_ok=True)
    movies = [f"{i.id}::{i.title}::{i.genre}" for i in items]
    (folder / "movies.dat").write_bytes(("\n".join(movies) + "\n").encode("latin-1"))
    ratings = []
    for user, sequence in enumerate(histories(random, items, users), start=1):
        lines = [f"{user}::{i.id}::{random.randint(3, 5)}::{when}" for when, i in _clock(random, sequence)]
        random.shuffle(lines)
        ratings += lines
    (folder / "ratings.dat").write_bytes(("\n".join(ratings) + "\n").encode("latin-1"))


def write_recbole(folder: Path, random: Random, users: int, title: Titler, genres: tuple[str, ...]) -> None:
    """Write ``<name>.inter`` and ``<name>.item`` with typed headers and tabs, the columns of RecBole's Amazon sets."""
    name = folder.name
    items = catalogue(random, title, genres, prefix="B00")
    folder.mkdir(parents=True, exist_ok=True)
    rows = ["item_id:token\ttitle:token_seq\tcategories:token_seq\tprice:float"]
    rows += [f"{i.id}\t{i.title}\t{i.genre}\t{random.randint(5, 40)}.99" for i in items]
    (folder / f"{name}.item").write_bytes(("\n".join(rows) + "\n").encode())
    rows = ["user_id:token\titem_id:token\trating:float\ttimestamp:float"]
    for user, sequence in enumerate(histories(random, items, users), start=1):
        lines = [f"U{user}\t{i.id}\t{random.randint(3, 5)}.0\t{when}" for when, i in _clock(random, sequence)]
        random.shuffle(lines)
        rows += lines
    (folder / f"{name}.inter").write_bytes(("\n".join(rows) + "\n").encode())


def _clock(random: Random, sequence: list[Item]) -> list[tuple[int, Item]]:
    when, timed = random.randint(960_000_000, 970_000_000), []
    for item in sequence:
        when += random.randint(60, 90_000)
        timed.append((when, item))
    return timed
