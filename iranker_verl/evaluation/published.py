"""Numbers that others published (``published.yaml``), shown beside ours, and in no mean or test of ours."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib import resources

import yaml

Values = dict[str, float]  # MRR × 100 by dataset


@dataclass(frozen=True)
class Published:
    """``systems`` and ``zero_shot`` are MRR × 100 by system and dataset; ``generic`` is {task: (base, trained)}, shares of 1."""

    source: str
    url: str
    systems: dict[str, Values]
    zero_shot: dict[str, Values]
    generic: dict[str, tuple[float, float]]

    def rows(self, zero_shot: bool) -> dict[str, Values]:
        """Return what a figure shows: the paper's own two systems, or what it has without the tested scenario."""
        return self.zero_shot if zero_shot else {name: self.systems[name] for name in ("IRanker-3B", "DRanker-3B")}


@cache
def load() -> Published:
    """Return what is published. Raise ValueError where a row has not one value a dataset."""
    package = resources.files("iranker_verl.evaluation")
    content = yaml.safe_load(package.joinpath("published.yaml").read_text(encoding="utf-8"))
    ranking = content["ranking"]

    def rows(key: str) -> dict[str, Values]:
        pairs = {row["name"]: zip(ranking["datasets"], map(float, row["values"]), strict=True) for row in ranking[key]}
        return {name: dict(values) for name, values in pairs.items()}

    generic = {task: (float(base), float(trained)) for task, (base, trained) in content["generic"].items()}
    return Published(content["source"], content["url"], rows("systems"), rows("zero_shot"), generic)
