"""Which of the nine datasets can be prepared from a file or a folder?

======================================  ==============================================================================
``u.data`` + ``u.item``                 rec-movie (MovieLens 100K)
``ratings.dat`` + ``movies.dat``        rec-movie (MovieLens 1M)
``X.inter`` + ``X.item``                RecBole: by X, ``ml…`` or ``…movie…`` is rec-movie, ``…CDs…`` or ``…music…``
                                        rec-music, ``…games…`` rec-game
``….csv`` with columns query, llm, …    router-performance, -cost and -balance (GraphRouter)
``….parquet`` with query and passages   passage-5, -7 and -9 (MS MARCO v1.1); all such files of one folder are one
                                        source, split by the names ``train…`` and ``test…`` where both occur
======================================  ==============================================================================

A sub-folder called like a recommendation dataset (``rec-music/``) says which one its files are, whatever their names.
Hidden files and folders are skipped.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from data_prep import graphrouter, movielens, msmarco, recbole, recommendation
from data_prep.recommendation import Interactions
from data_prep.sampling import Options, TaskSet
from iranker_verl.errors import UserError
from iranker_verl.ranking import DATASETS

LOOKED_FOR = (
    "u.data + u.item, ratings.dat + movies.dat, X.inter + X.item (RecBole), "
    "a CSV with the columns query, llm, effect, cost (GraphRouter), "
    "train and test Parquet with query and passages (MS MARCO)"
)
_BY_NAME = ((r"^ml|movie", "rec-movie"), (r"cds|music", "rec-music"), (r"games?", "rec-game"))
Load = Callable[[Options, Collection[str]], dict[str, TaskSet]]


@dataclass(frozen=True)
class Source:
    """Files that belong together, the datasets that they hold, and how to make their tasks."""

    datasets: tuple[str, ...]
    files: tuple[Path, ...]
    load: Load


def find(raw: Path, wanted: Collection[str] = tuple(DATASETS)) -> list[Source]:
    """The sources in ``raw`` that hold any of the ``wanted`` datasets.

    UserError where there is none, where one dataset has two sources, and where half of a pair is missing.
    """
    if not raw.exists():
        raise UserError(f"{raw}: no such file or folder; check the path")
    found: dict[str, Source] = {}
    try:
        sources = list(_sources(raw, wanted))
    except OSError as error:
        raise UserError(f"{error.filename}: cannot be read ({error.strerror}); check the path") from error
    for source in sources:
        for dataset in source.datasets:
            if dataset in found:
                raise UserError(
                    f"{raw}: {dataset} is there twice, as {found[dataset].files[0]} and as {source.files[0]}; "
                    "give the path of the one that you want"
                )
            found[dataset] = source
    if not found:
        raise UserError(f"{raw}: nothing to prepare for {', '.join(wanted)}; looked for {LOOKED_FOR}")
    return list({id(source): source for source in found.values()}.values())


def _sources(raw: Path, wanted: Collection[str]) -> Iterator[Source]:
    passages = tuple(d for d in msmarco.SIZES if d in wanted)
    folders: dict[Path, list[Path]] = {}
    for path in [raw] if raw.is_file() else _files(raw, set()):
        if recommended := _recommendation(path, raw, wanted):
            yield recommended
        elif path.suffix == ".csv" and (raw == path or _is_graphrouter(path)):
            if datasets := tuple(d for d in graphrouter.PREFERENCES if d in wanted):
                yield _routing(path, datasets)
        elif path.suffix == ".parquet" and passages and (raw == path or msmarco.is_msmarco(path)):
            folders.setdefault(path.parent, []).append(path)
    for files in folders.values():
        yield _passages(files, passages)


def _files(folder: Path, seen: set[Path]) -> Iterator[Path]:
    """All files below, links followed, in an order that does not depend on the file system."""
    if (real := folder.resolve()) in seen:
        return
    seen.add(real)
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):
            continue
        if path.is_dir():
            yield from _files(path, seen)
        else:
            yield path


def _recommendation(path: Path, raw: Path, wanted: Collection[str]) -> Source | None:
    read: Callable[[Path, Path], Interactions]
    if path.name == "u.data":
        items, read, dataset = path.with_name("u.item"), movielens.read_100k, "rec-movie"
    elif path.name == "ratings.dat":
        items, read, dataset = path.with_name("movies.dat"), movielens.read_1m, "rec-movie"
    elif path.suffix == ".inter":
        items, read = path.with_suffix(".item"), recbole.read
        dataset = next((d for pattern, d in _BY_NAME if re.search(pattern, path.stem, re.IGNORECASE)), "")
    else:
        return None
    dataset = _folder_dataset(path, raw) or dataset
    if not dataset:
        raise UserError(f"{path}: which dataset is it? Put it into a folder called rec-movie, rec-music or rec-game")
    if dataset not in wanted:
        return None
    if not items.is_file():
        raise UserError(f"{path}: {items.name} is missing beside it; the items' titles are needed")
    name = dataset

    def load(options: Options, _: Collection[str]) -> dict[str, TaskSet]:
        return {name: recommendation.make_tasks(name, read(path, items), options)}

    return Source((name,), (path, items), load)


def _folder_dataset(path: Path, raw: Path) -> str:
    """The nearest folder, up to ``raw`` itself, that is called like a recommendation dataset."""
    top = raw.parent if raw.is_file() else raw
    names = [top.resolve().name, *path.relative_to(top).parts[:-1]]
    return next((name for name in reversed(names) if DATASETS.get(name) == "recommendation"), "")


def _is_graphrouter(path: Path) -> bool:
    """By the words of the first line, so that a file with another delimiter is found, and refused by the loader."""
    with path.open(encoding="utf-8", errors="replace") as file:
        words = set(re.findall(r"\w+", file.readline(10_000)))
    return {"query", "llm", "effect", "cost"} <= words


def _routing(path: Path, datasets: tuple[str, ...]) -> Source:
    described = path.with_name(graphrouter.DESCRIPTIONS)
    files = (path, described) if described.is_file() else (path,)
    return Source(datasets, files, lambda options, names: graphrouter.load(path, options, names))


def _passages(files: list[Path], datasets: tuple[str, ...]) -> Source:
    """Train and test files, where both are there (any others, say validation, are then left out); else all files."""
    train, test = ([f for f in files if f.name.startswith(side)] for side in ("train", "test"))
    if not (train and test):
        train, test = files, []
    return Source(datasets, (*train, *test), lambda options, names: msmarco.load(train, test, options, names))
