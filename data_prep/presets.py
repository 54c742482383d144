"""The nine tasks as published (arXiv 2506.21638, table 1): what they are made of, and where people get it.

The published options are the defaults of :class:`data_prep.options.Options`; what differs from task to task is here.
"""

from __future__ import annotations

from dataclasses import dataclass

from iranker_verl.ranking import DATASETS


@dataclass(frozen=True)
class Preset:
    """``made_of`` and ``get`` are for people: which raw files, and where to get them."""

    made_of: str
    get: str
    effect_weight: float | None = None
    cost_weight: float | None = None
    passages: int | None = None


_MOVIELENS = ("MovieLens-1M: ratings.dat and movies.dat", "grouplens.org/datasets/movielens/1m")
_AMAZON = ("reviews and meta file, e.g. {0}.jsonl.gz and meta_{0}.jsonl.gz", "amazon-reviews-2023.github.io ({0})")
_ROUTER = ("GraphRouter's router_data.csv", "github.com/ulab-uiuc/GraphRouter (data/router_data.csv)")
_PASSAGE = ("MS MARCO v1.1: train and test Parquet", "huggingface.co/datasets/microsoft/ms_marco (v1.1)")


def _amazon(name: str) -> Preset:
    return Preset(_AMAZON[0].format(name), _AMAZON[1].format(name))


PRESETS: dict[str, Preset] = {
    "rec-movie": Preset(*_MOVIELENS),
    "rec-music": _amazon("CDs_and_Vinyl"),
    "rec-game": _amazon("Video_Games"),
    "router-performance": Preset(*_ROUTER, effect_weight=1.0, cost_weight=0.0),
    "router-cost": Preset(*_ROUTER, effect_weight=0.2, cost_weight=0.8),
    "router-balance": Preset(*_ROUTER, effect_weight=0.5, cost_weight=0.5),
    "passage-5": Preset(*_PASSAGE, passages=5),
    "passage-7": Preset(*_PASSAGE, passages=7),
    "passage-9": Preset(*_PASSAGE, passages=9),
}
assert list(PRESETS) == list(DATASETS)


def missing(found: set[str]) -> list[str]:
    """Return a line for each of the nine tasks that nothing was found for: what it needs and where people get it."""
    return [f"{name}: needs {p.made_of} ({p.get})" for name, p in PRESETS.items() if name not in found]
