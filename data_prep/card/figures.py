"""The data card's figures, in the style of the report's (:mod:`iranker_verl.page.svg`).

Each function takes a part of :func:`data_prep.card.statistics.statistics` and returns an ``<svg>``, or None where there
is nothing to draw.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from data_prep.schema import SPLITS
from iranker_verl.page.svg import COLOURS, LEGEND, svg

_COLOUR = {"train": "after", "test": "before"}
_SERIES = ("after", "before", "forward", "backward")
_Z99 = 2.576
PANELS = 6


def lengths(found: Mapping[str, Any]) -> str | None:
    """Draw how many prompts have which length, and the limit."""
    if not found["counted"]:
        return None
    edges = np.array(found["edges"])

    def draw(figure: Figure) -> None:
        ax = figure.subplots()
        for split in SPLITS:
            bins = np.array(found["splits"][split]["bins"])
            if bins.sum():
                ax.stairs(bins / bins.sum(), edges, fill=True, color=COLOURS[_COLOUR[split]], alpha=0.16)
                ax.stairs(bins / bins.sum(), edges, color=COLOURS[_COLOUR[split]], lw=1.8, label=split)
        if found["limit"] is not None:
            ax.axvline(found["limit"], color=COLOURS["ink"], lw=1.3, ls=(0, (4, 3)), label=f"limit {found['limit']:,}")
        ax.set_xlim(0, max(edges[-1], (found["limit"] or 0) * 1.04))
        ax.set_ylim(0)
        ax.grid(axis="x", visible=False)
        ax.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        ax.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        ax.yaxis.set_major_locator(MaxNLocator(4))
        ax.set_xlabel(f"{found['unit']} of a prompt")
        ax.set_ylabel("share of prompts")
        figure.legend(loc="outside upper left", ncols=3, **LEGEND)

    return svg(draw, 2.9, "lengths")


def positions(found: Sequence[Mapping[str, Any]]) -> str | None:
    """Draw how often the best candidate stands at each position, 1 being its share of a uniform draw; the commonest sizes."""
    counts: dict[int, np.ndarray] = {}
    for one in found:
        counts[one["candidates"]] = counts.get(one["candidates"], 0) + np.array(one["counts"])
    sizes = sorted(sorted(counts, key=lambda size: -counts[size].sum())[:PANELS])
    if not sizes:
        return None

    columns = 1 if len(sizes) == 1 else 2
    rows = -(-len(sizes) // columns)

    def draw(figure: Figure) -> None:
        grid = figure.subplots(rows, columns, squeeze=False)
        for ax in grid.flat[len(sizes) :]:
            ax.set_axis_off()
        for ax, size in zip(grid.flat, sizes, strict=False):
            total = counts[size].sum()
            ratio = counts[size] * size / total
            band = _Z99 * np.sqrt((size - 1) / total)
            ax.axhspan(max(0, 1 - band), 1 + band, color=COLOURS["muted"], alpha=0.16, lw=0)
            ax.axhline(1, color=COLOURS["muted"], lw=1)
            ax.bar(range(1, size + 1), ratio, 0.55, color=COLOURS["after"])
            ax.set_title(f"{size} candidates, {total:,} rows")
            ax.grid(visible=False)
            ax.set_xlim(0.4, size + 0.6)
            ax.set_ylim(0, max(1.6, 1 + 1.15 * band, 1.08 * ratio.max()))
            ax.xaxis.set_major_locator(MaxNLocator(10 // columns, integer=True, steps=[1, 2, 5, 10]))
            ax.yaxis.set_major_locator(MaxNLocator(3, integer=True))
        figure.supxlabel("position of the best candidate", color=COLOURS["muted"], fontsize=10.5)

    return svg(draw, 1.15 * rows + 0.4 if rows > 1 else 2.0, "positions")


def popularity(found: Mapping[str, Mapping[str, Any]]) -> str | None:
    """Draw how well popularity in training separates the positives of test from the negatives: an ROC curve."""
    curves = {name: one["curve"] for name, one in found.items() if one["curve"]}
    if not curves:
        return None

    def draw(figure: Figure) -> None:
        ax = figure.subplots()
        ax.plot([0, 1], [0, 1], color=COLOURS["muted"], lw=1, ls=(0, (2, 3)), label="popularity tells nothing")
        for (name, curve), colour in zip(curves.items(), _SERIES, strict=False):
            ax.plot(*np.array(curve).T, color=COLOURS[colour], lw=2, label=name)
        ax.set_xlim(0, 1)
        ax.set_ylim(0, 1.01)
        for axis in (ax.xaxis, ax.yaxis):
            axis.set_major_locator(MaxNLocator(4))
            axis.set_major_formatter(PercentFormatter(1, decimals=0))
        ax.set_xlabel("share of negatives, most popular first")
        ax.set_ylabel("share of positives")
        figure.legend(loc="outside upper left", ncols=2, **LEGEND)

    return svg(draw, 3.4, "popularity")


def routers(found: Mapping[str, Sequence[Mapping[str, Any]]]) -> str | None:
    """Draw in what share of the rows each LLM is the best, by dataset."""
    names = list(found)[: len(_SERIES)]
    if not names:
        return None
    share: dict[str, dict[str, float]] = defaultdict(dict)
    for name in names:
        total = sum(one[s] for one in found[name] for s in SPLITS) or 1
        for one in found[name]:
            share[one["llm"]][name] = sum(one[s] for s in SPLITS) / total
    llms = sorted(share, key=lambda llm: -max(share[llm].values()))[:20]

    def draw(figure: Figure) -> None:
        ax = figure.subplots()
        ax.axvline(1 / len(share), color=COLOURS["muted"], lw=1, ls=(0, (2, 3)))
        for row, llm in enumerate(llms):
            values = list(share[llm].values())
            ax.plot([min(values), max(values)], [row, row], color=COLOURS["grid"], lw=2, zorder=1)
        for name, colour, mark in zip(names, _SERIES, "os^D", strict=False):
            here = [(share[llm][name], row) for row, llm in enumerate(llms) if name in share[llm]]
            ax.plot(*zip(*here, strict=True), mark, color=COLOURS[colour], ms=6, label=name)
        ax.set_yticks(range(len(llms)), [_short(llm) for llm in llms])
        ax.tick_params(axis="y", labelcolor=COLOURS["ink"])
        ax.set_ylim(len(llms) - 0.5, -0.5)
        ax.set_xlim(left=min(0, -0.01))
        ax.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        ax.xaxis.set_major_locator(MaxNLocator(5))
        ax.set_xlabel("share of rows in which it is the best")
        figure.legend(loc="outside upper left", ncols=2, **LEGEND)

    return svg(draw, 0.27 * len(llms) + 1.3, "routers")


def _short(name: str) -> str:
    name = name.rsplit("/", 1)[-1]
    return name if len(name) <= 22 else name[:21] + "…"
