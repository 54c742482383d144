"""Numbers that others published (``published.yaml``), to stand beside ours. They enter no mean and no test of ours."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

import yaml

PACKAGE = "iranker_verl.evaluation"


@dataclass(frozen=True)
class PublishedSystem:
    """A row of a published table: MRR × 100 by dataset."""

    name: str
    values: dict[str, float]


@dataclass(frozen=True)
class Published:
    """``systems`` and ``zero_shot`` are rows of MRR × 100; ``generic`` is {task: (base, trained)}, shares of 1."""

    source: str
    url: str
    systems: tuple[PublishedSystem, ...]
    zero_shot: tuple[PublishedSystem, ...]
    generic: dict[str, tuple[float, float]]

    def rows(self, zero_shot: bool) -> list[PublishedSystem]:
        """Return the rows that a figure shows: the paper's own two, or what it has without the tested scenario."""
        named = {system.name: system for system in self.systems}
        return list(self.zero_shot) if zero_shot else [named["IRanker-3B"], named["DRanker-3B"]]


@cache
def load() -> Published:
    """Return what is published. Raise ValueError where a row has not one value a dataset."""
    content = yaml.safe_load(resources.files(PACKAGE).joinpath("published.yaml").read_text(encoding="utf-8"))
    ranking = content["ranking"]

    def rows(key: str) -> tuple[PublishedSystem, ...]:
        return tuple(_row(row, ranking["datasets"]) for row in ranking[key])

    generic = {task: (float(base), float(trained)) for task, (base, trained) in content["generic"].items()}
    return Published(content["source"], content["url"], rows("systems"), rows("zero_shot"), generic)


def _row(row: dict[str, Any], datasets: list[str]) -> PublishedSystem:
    return PublishedSystem(row["name"], dict(zip(datasets, map(float, row["values"]), strict=True)))
