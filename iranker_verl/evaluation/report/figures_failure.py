"""Figures of :mod:`.diagnosis` and of the comparisons; like :mod:`.figures`, plain numbers in, ``<svg>`` or None out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from iranker_verl.evaluation.report.figures import interval, key, name_rows, shorten
from iranker_verl.page.svg import COLOURS, LEGEND, svg

PANELS = 4  # pool sizes shown, the most frequent ones
Curves = Sequence[tuple[str, str, Mapping[str, Any]]]  # (label, colour, diagnosis) of the systems shown


def survival(systems: Curves) -> str | None:
    """Draw the share of tasks whose best candidate is still in, by exclusions, one panel a pool size, random dashed."""
    counts: dict[str, int] = {}
    for _, _, found in systems:
        for size, one in found.get("survival", {}).items():
            counts[size] = max(counts.get(size, 0), one["n"])
    sizes = sorted(sorted(counts, key=lambda s: -counts[s])[:PANELS], key=int)
    if not sizes:
        return None
    columns = min(2, len(sizes))
    rows = -(-len(sizes) // columns)

    def draw(figure: Figure) -> None:
        axes = figure.subplots(rows, columns, sharey=True, squeeze=False).flat
        for ax, size in zip(axes, sizes, strict=False):
            found = [(colour, f["survival"][size]) for _, colour, f in systems if size in f.get("survival", {})]
            ax.plot(found[0][1]["random"], color=COLOURS["baseline"], lw=1.4, ls="--")
            for colour, curve in found:
                ax.plot(curve["alive"], color=COLOURS[colour], lw=2, marker="o", ms=3 if int(size) <= 20 else 0)
            ax.set_title(f"{size} candidates")
            ax.set_ylim(0, 1.04)
            ax.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
            ax.xaxis.set_major_locator(MaxNLocator(5, integer=True, steps=[1, 2, 5, 10]))
            ax.grid(axis="x", visible=False)
        for ax in figure.axes[len(sizes) :]:
            ax.set_axis_off()
        figure.supxlabel("exclusions", color=COLOURS["muted"], fontsize=10.5)
        _legend(figure, systems)

    return svg(draw, 1.75 * rows + 0.75, "survival")


def bins(systems: Curves, group: str, field: str, axis: str, last: int | None = None) -> str | None:
    """Draw MRR of the bins ``group`` of a diagnosis, over ``field``; a random order of the same tasks dashed.

    The bins named by numbers lie where their numbers are, ``last`` and more being one of them.
    """
    shown = [(label, colour, found[group]) for label, colour, found in systems if found.get(group)]
    if not shown or len({one[field] for _, _, rows in shown for one in rows}) < 2:
        return None
    named = list(dict.fromkeys(one[field] for _, _, rows in shown for one in rows))
    numeric = all(isinstance(n, int) for n in named)

    def position(one: Mapping[str, Any]) -> float:
        return float(one[field]) if numeric else float(named.index(one[field]))

    def draw(figure: Figure) -> None:
        ax = figure.subplots()
        rows = shown[0][2]
        ax.plot([position(r) for r in rows], [r["random_rr"] for r in rows], color=COLOURS["baseline"], lw=1.4, ls="--")
        for _, colour, rows in shown:
            ax.plot([position(r) for r in rows], [r["rr"] for r in rows], "o-", color=COLOURS[colour], lw=2, ms=5)
        if numeric:
            ax.xaxis.set_major_locator(MaxNLocator(10, integer=True, steps=[1, 2, 5, 10]))
            if last is not None and max(named) == last:
                ax.xaxis.set_major_formatter(lambda x, _: f"{x:.0f}{'+' if x == last else ''}")
        else:
            ax.set_xticks(range(len(named)), named)
            ax.set_xlim(-0.5, len(named) - 0.5)
        ax.set_ylim(0, 1.04)
        ax.grid(axis="x", visible=False)
        ax.set_xlabel(axis)
        ax.set_ylabel("MRR")
        _legend(figure, [(label, colour, {}) for label, colour, _ in shown])

    return svg(draw, 2.6, group.replace("_", "-"))


def differences(rows: Sequence[tuple[str, float, float, float]], against: str, name: str = "differences") -> str | None:
    """Draw every system's (label, difference, low, high) of macro MRR against one, with 95 % intervals."""
    if not rows:
        return None

    def draw(figure: Figure) -> None:
        ax: Axes = figure.subplots()
        ax.axvline(0, color=COLOURS["after"], lw=1.6)
        for row, (_, middle, low, high) in enumerate(rows):
            interval(ax, middle, (low, high), row, COLOURS["baseline"])
        name_rows(ax, [label for label, *_ in rows], f"macro MRR minus that of: {against}")
        ax.xaxis.set_major_locator(MaxNLocator(6))

    return svg(draw, 0.34 * len(rows) + 0.75, name)


def runs(names: Sequence[str], datasets: Mapping[str, Sequence[Mapping[str, Any] | None]]) -> str | None:
    """Draw several runs' MRR with 95 % intervals on every dataset; a run that lacks one has None there."""
    if not datasets:
        return None
    colours = [COLOURS[c] for c in ("after", "before", "evaluate", "backward", "baseline")]
    step = 0.7 / max(1, len(names))

    def draw(figure: Figure) -> None:
        ax: Axes = figure.subplots()
        for row, found in enumerate(datasets.values()):
            for run, numbers in enumerate(found):
                if numbers is None:
                    continue
                y, colour = row + (run - (len(names) - 1) / 2) * step, colours[run % len(colours)]
                fill = colour if run < len(colours) else "none"
                interval(ax, numbers["rr"], numbers["ci95"], y, colour, ms=6, mfc=fill)
        name_rows(ax, list(datasets), "mean reciprocal rank")
        ax.set_xlim(0, 1.02)
        keys = [key(shorten(name), colours[i % len(colours)]) for i, name in enumerate(names)]
        figure.legend(handles=keys, loc="outside upper left", ncols=2, **LEGEND)

    return svg(draw, (0.13 * len(names) + 0.2) * len(datasets) + 0.9 + 0.12 * len(names), "runs")


def _legend(figure: Figure, systems: Curves) -> None:
    keys = [key(label, COLOURS[colour], ms=5) for label, colour, _ in systems]
    keys.append(key("random order", COLOURS["baseline"], marker="", lw=1.4, ls="--"))
    figure.legend(handles=keys, loc="outside upper left", ncols=3, **LEGEND)
