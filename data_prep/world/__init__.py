"""A small made-up world with the paper's nine tasks, in the raw formats of the real data sets.

Twelve topics run through all of it: users have a favourite topic, queries and passages are about one, language models are
experts in two. A topic has many words, so that a ranker has to learn what belongs together; counting common words (BM25)
tells little. It serves `make train-tiny` and the tests: real formats, no download, no licence.

==========================================  =====================================================
``rec-movie/ratings.dat``, ``movies.dat``   MovieLens-1M
``rec-music/``, ``rec-game/``               RecBole's atomic files
``router/``                                 GraphRouter's CSV, ``llm_descriptions.json`` beside it
``passage/``                                MS MARCO v1.1, as on Hugging Face
==========================================  =====================================================
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from random import Random

from data_prep.world import words
from data_prep.world.passages import write_msmarco
from data_prep.world.recommendation import album, game, write_movielens, write_recbole
from data_prep.world.routing import write_router
from iranker_verl.options import check_options, option

__all__ = ["WorldSize", "write_world"]


@dataclass(frozen=True)
class WorldSize:
    """How large the world is.

    ``users`` of each recommendation set and ``queries`` of the router are split in preparation; passages come as two files,
    with ``passage_train`` and ``passage_test`` queries of each size.
    """

    users: int = option(2100, "users of each recommendation set", least=1)
    queries: int = option(2100, "queries of the router", least=1)
    passage_train: int = option(2000, "training queries of each passage size", least=1)
    passage_test: int = option(100, "test queries of each passage size", least=1)

    def __post_init__(self) -> None:
        """Check the values."""
        check_options(self)


def write_world(out: Path, seed: int, size: WorldSize | None = None) -> None:
    """Write the five raw folders into ``out``; the same seed and size give the same bytes."""
    size = size or WorldSize()

    def dice(name: str) -> Random:  # of its own for each set: one set's size changes no other
        return Random(f"{seed}:{name}")

    write_movielens(out / "rec-movie", dice("rec-movie"), size.users)
    write_recbole(out / "rec-music", dice("rec-music"), size.users, album, words.MUSIC_STYLES)
    write_recbole(out / "rec-game", dice("rec-game"), size.users, game, words.PLATFORMS)
    write_router(out / "router", dice("router"), size.queries)
    write_msmarco(out / "passage", dice("passage"), size.passage_train, size.passage_test)
