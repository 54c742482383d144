"""Popularity of items: how the positives spread over them, and how far popularity alone would rank them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_prep.card.histogram import Histogram
from data_prep.checks.columns import flat, lengths
from data_prep.checks.side import Distinct

POINTS = 80  # of a curve
_TOP = (0.01, 0.1)


class Popularity:
    """The popularity of recommendation's items, dataset by dataset. Training is taken in before test.

    An item's popularity is how often it is a positive of training or in a training history, as in the report's popularity
    baseline. ``auc`` is the chance that the positive of a test row is more popular than another candidate of its row (one
    half for a tie): 0.5 where popularity tells nothing, 1 where it tells everything. ``curve`` has what share of all negatives
    and of all positives of test is at least so popular, from the most popular on: ``[[negatives, positives], …]``.
    """

    def __init__(self) -> None:
        self._best, self._other, self._known = (Distinct("dataset", "item") for _ in range(3))
        self._popularity: dict[str, tuple[pa.Array, np.ndarray]] | None = None
        self._auc: dict[str, tuple[float, int]] = {}  # sum over rows, and how many
        self._by_popularity: dict[str, tuple[Histogram, Histogram]] = {}  # of negatives, of positives

    def add(self, split: str, columns: dict[str, pa.Array], row: np.ndarray, place: np.ndarray) -> None:
        """Take in more rows: their leaves (:func:`data_prep.checks.columns.leaves`), and where their best candidates are."""
        sizes = lengths(columns["candidate_ids"])
        of_row, item = flat(columns["candidate_ids"])
        starts = np.cumsum(sizes) - sizes
        is_best = np.zeros(len(item), bool)
        is_best[starts[row] + place] = True
        wanted = pc.equal(columns["scenario"], "recommendation").to_numpy(zero_copy_only=False)[of_row]
        for into, which in ((self._best, is_best & wanted), (self._other, ~is_best & wanted)):
            _count(into, columns["dataset"], of_row, item, which)
        if split == "train":
            past_row, past = flat(columns["history_ids"])
            _count(self._known, columns["dataset"], past_row, past, np.ones(len(past), bool))
            _count(self._known, columns["dataset"], of_row, item, is_best & wanted)
        else:
            self._guess(columns["dataset"], of_row, item, is_best, wanted)

    def _guess(
        self, datasets: pa.Array, row: np.ndarray, item: pa.Array, is_best: np.ndarray, wanted: np.ndarray
    ) -> None:
        if self._popularity is None:
            self._popularity = _by_dataset(self._known.table())
        for dataset, (items, counts) in self._popularity.items():
            here = wanted & pc.equal(datasets, dataset).to_numpy(zero_copy_only=False)[row]
            found = pc.fill_null(pc.index_in(item, value_set=items), -1).to_numpy(zero_copy_only=False)
            popularity = np.where(found >= 0, counts[found], 0)
            best = np.full(len(datasets), -1.0)
            best[row[is_best & here]] = popularity[is_best & here]  # of several best ones, the last stands for all
            baselines = here & ~is_best & (best[row] >= 0)
            won = (best[row] > popularity) + 0.5 * (best[row] == popularity)
            many = np.bincount(row[baselines], minlength=len(datasets))
            share = (
                np.bincount(row[baselines], weights=won[baselines], minlength=len(datasets))[many > 0] / many[many > 0]
            )
            for into, which in zip(
                self._by_popularity.setdefault(dataset, (Histogram(), Histogram())), (~is_best, is_best), strict=True
            ):
                into.add(popularity[here & which])
            total, rows = self._auc.get(dataset, (0.0, 0))
            self._auc[dataset] = (total + float(share.sum()), rows + len(share))

    def result(self) -> dict[str, Any]:
        """Return by dataset: ``items``, ``positives`` and ``negatives`` (``gini``, ``top`` shares), ``auc`` and ``curve``."""
        best, other, known = (_by_dataset(d.table()) for d in (self._best, self._other, self._known))
        result = {}
        for dataset in sorted(best):
            tables = [t[dataset] for t in (best, other, known) if dataset in t]
            items = len(pc.unique(pa.concat_arrays([ids for ids, _ in tables])))
            total, rows = self._auc.get(dataset, (0.0, 0))
            result[dataset] = {
                "items": items,
                "positives": _spread(best[dataset][1], items),
                "negatives": _spread(other[dataset][1], items) if dataset in other else None,
                "auc": round(total / rows, 4) if rows else None,
                "curve": _curve(*self._by_popularity[dataset]) if rows else None,
            }
        return result


def gini(counts: np.ndarray, items: int) -> float:
    """Return the Gini coefficient of ``counts`` over ``items`` items, others having 0: 0 is equal, near 1 one has all."""
    ordered = np.concatenate([np.zeros(items - len(counts)), np.sort(counts)])
    rank = np.arange(1, items + 1)
    return float((2 * rank - items - 1) @ ordered / (items * ordered.sum()))


def _spread(counts: np.ndarray, items: int) -> dict[str, Any]:
    ordered = np.zeros(items)
    ordered[: len(counts)] = -np.sort(-counts)
    upto = np.concatenate([[0], np.cumsum(ordered)]) / ordered.sum()
    return {
        "gini": round(gini(counts, items), 4),
        "top": {f"{share:.0%}": round(float(upto[max(1, round(share * items))]), 4) for share in _TOP},
    }


def _curve(negatives: Histogram, positives: Histogram) -> list[list[float]]:
    """Return one point for every popularity there is, thinned out."""
    size = max(len(negatives.counts), len(positives.counts))
    both = np.array([np.pad(h.counts, (0, size - len(h.counts)))[::-1] for h in (negatives, positives)])
    points = np.cumsum(both[:, both.any(axis=0)], axis=1) / both.sum(axis=1, keepdims=True)
    points = np.concatenate([np.zeros((2, 1)), points], axis=1).T
    if len(points) > POINTS:
        points = points[np.linspace(0, len(points) - 1, POINTS).round().astype(int)]
    return [[round(float(x), 4), round(float(y), 4)] for x, y in points]


def _count(into: Distinct, datasets: pa.Array, row: np.ndarray, item: pa.Array, which: np.ndarray) -> None:
    where = np.flatnonzero(which)
    columns = {"dataset": datasets.take(pa.array(row[where])), "item": item.take(pa.array(where))}
    into.add(columns, where)


def _by_dataset(table: pa.Table) -> dict[str, tuple[pa.Array, np.ndarray]]:
    """Return ``{dataset: (items, how often each)}``."""
    found = {}
    for dataset in pc.unique(table["dataset"]).to_pylist():
        part = table.filter(pc.equal(table["dataset"], dataset))
        found[dataset] = (part["item"].combine_chunks(), part["count"].to_numpy())
    return found
