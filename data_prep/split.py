"""Divide users or queries between training and test: whole groups, never rows, and near-duplicate queries together."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping

import numpy as np

from data_prep.duplicates import clusters
from data_prep.hashing import keys
from data_prep.options import Options

TRAIN, TEST = "train", "test"


def sides(
    groups: Iterable[str], options: Options, family: str, *, queries: bool, alike: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Return ``{group: "train" | "test"}``, a pure function of the set of groups, the seed and the family's name.

    ``test_fraction`` of the groups (rounded; with two clusters or more neither side is empty) go to test, in an order by
    hash. With ``queries`` groups are texts, and those that are near-duplicates of each other go together; users go together who
    are ``alike``, by what they are called together.
    """
    names = sorted(set(groups))
    if options.split == "test":
        return dict.fromkeys(names, TEST)
    members: dict[str, list[str]] = defaultdict(list)
    called = clusters(names, options.near_duplicate) if queries else [(alike or {}).get(name, name) for name in names]
    for name, cluster in zip(names, called, strict=True):
        members[cluster].append(name)
    together = sorted(members)
    together = [together[i] for i in np.argsort(keys(together, options.seed, f"split:{family}"), kind="stable")]
    wanted = min(max(round(len(names) * options.test_fraction), 1), max(len(names) - 1, 0))
    result = dict.fromkeys(names, TRAIN)
    taken = 0
    for cluster in together[: max(len(together) - 1, 0)]:  # one at least is left for training
        if taken and taken + len(members[cluster]) > wanted:
            continue  # a large cluster may not fit any more; a later, smaller one does
        if taken >= wanted:
            break
        result |= dict.fromkeys(members[cluster], TEST)
        taken += len(members[cluster])
    return result
