"""The report's figures, drawn with matplotlib as SVG in the page.

Each function takes plain numbers and returns an ``<svg>``, or None where there is nothing to draw.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, PercentFormatter

from iranker_verl.evaluation.published import Values
from iranker_verl.evaluation.report.tables import label
from iranker_verl.evaluation.systems import Role, Roles, main_system, with_role
from iranker_verl.page.svg import COLOURS, LEGEND, PARTS, PHASES, svg

BASELINE_MARKS = {"random": "x", "constant": "+", "popularity": "s", "bm25": "^"}
BEST_OTHER = "D"
PUBLISHED_MARKS = ("|", "_")  # not a baseline's, since they are not of these tasks
LONGEST_NAME = 22  # characters of a data set's name beside an axis
PANELS = 4  # pool sizes shown, the most frequent ones

Points = Sequence[tuple[float, float]]  # (step, value)
Curves = Sequence[tuple[str, str, Mapping[str, Any]]]  # (label, colour, diagnosis) of the systems shown


def learning(
    reward: Points, candidates: Points, validation: Points, malformed: Points, pools: Sequence[Points] = ()
) -> str | None:
    """Draw what was measured over RL steps, one panel each, of those that there are.

    They are: reward over a random exclusion's, candidates at an episode's start (where they change; ``pools`` are thin lines, one
    a data set), validation MRR, and the malformed rate.
    """
    grows = bool(candidates) and candidates[0][1] < 0.75 * candidates[-1][1]
    panels = [
        (name, points, colour, share)
        for name, points, colour, share in (
            ("Reward over a random exclusion's", reward, "after", False),
            ("Candidates at an episode's start", candidates if grows else (), "before", False),
            ("Validation MRR", validation, "after", False),
            ("Malformed answers", malformed, "before", True),
        )
        if points
    ]
    if not panels:
        return None

    def draw(figure: Figure) -> None:
        axes = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
        for ax, (name, points, colour, share) in zip(axes, panels, strict=True):
            x, y = [p[0] for p in points], [p[1] for p in points]
            for own in pools if points is candidates else ():
                ax.plot([p[0] for p in own], [p[1] for p in own], color=COLOURS[colour], lw=0.8, alpha=0.45)
            few = len(points) < 30
            ax.plot(x, y, color=COLOURS[colour], lw=1.0 if not few else 1.6, alpha=1 if few else 0.35)
            if few:
                ax.plot(x, y, "o", color=COLOURS[colour], ms=3.5)
            else:
                ax.plot(x, _smooth(y), color=COLOURS[colour], lw=2)
            ax.set_title(name)
            ax.grid(axis="x", visible=False)
            ax.yaxis.set_major_locator(MaxNLocator(4))
            if share:
                ax.set_ylim(0, max(0.05, *y) * 1.08)
                ax.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        axes[-1].xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
        axes[-1].set_xlabel("RL step")

    return svg(draw, 1.55 * len(panels) + 0.35, "learning")


def by_dataset(
    datasets: Mapping[str, Mapping[str, Mapping[str, Any]]],
    roles: Roles,
    theirs: Mapping[str, Values] | None = None,
) -> str | None:
    """Draw MRR of every system on every dataset: the model, before and after training, with 95 % intervals, others as marks.

    Of more others than have a mark of their own, the best on each dataset is shown. ``theirs`` are published numbers, at most
    two systems', on the datasets that both know.
    """
    if not datasets:
        return None
    names = list(datasets)
    present = list(dict.fromkeys(s for systems in datasets.values() for s in systems))
    pair = ((with_role(roles, Role.BEFORE), "before"), (main_system(roles), "after"))
    models = [(s, c) for s, c in pair if s in present]
    marked = [s for s in BASELINE_MARKS if s in present]
    known = {system: values for system, values in (theirs or {}).items() if values.keys() & datasets.keys()}
    unmarked = {s for s in present if s not in marked and s not in [m for m, _ in models]}

    def draw(figure: Figure) -> None:
        ax = figure.subplots()
        for row, name in enumerate(names):
            systems = datasets[name]
            for (system, colour), shift in zip(models, (0.16, -0.16) if len(models) > 1 else (0.0,), strict=False):
                if numbers := systems.get(str(system)):
                    _interval(ax, numbers["rr"], numbers["ci95"], row + shift, COLOURS[colour])
            for system in marked:
                if numbers := systems.get(system):
                    _mark(ax, numbers["rr"], row, BASELINE_MARKS[system], "baseline")
            if others := [systems[s]["rr"] for s in unmarked if s in systems]:
                _mark(ax, max(others), row, BEST_OTHER, "baseline")
            for values, mark in zip(known.values(), PUBLISHED_MARKS, strict=False):
                if name in values:
                    _mark(ax, values[name] / 100, row, mark, "ink", size=8)
        _name_rows(ax, names, "mean reciprocal rank")
        ax.set_xlim(0, 1.02)
        others_name = label(next(iter(unmarked)), roles) if len(unmarked) == 1 else "best other baseline"
        grey = [(BASELINE_MARKS[s], label(s, roles)) for s in marked] + [(BEST_OTHER, others_name)] * bool(unmarked)
        keys = [_key(label(str(s), roles), COLOURS[colour], ms=7) for s, colour in models]
        keys += [_key(name, COLOURS["baseline"], marker=mark, mfc="none", lw=0) for mark, name in grey]
        keys += [
            _key(f"published: {system}", COLOURS["ink"], marker=mark, ms=8, mew=1.3, lw=0)
            for system, mark in zip(known, PUBLISHED_MARKS, strict=False)
        ]
        figure.legend(handles=keys, loc="outside upper left", ncols=2 if known else 3, **LEGEND)

    return svg(draw, 0.43 * len(names) + (1.75 if known else 1.15), "datasets")


def _shorten(name: str) -> str:
    """Return a name that fits beside an axis."""
    return name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 1]}…"


def ranks(systems: Sequence[tuple[str, str, Sequence[int]]]) -> str | None:
    """Draw how often the best candidate came first, second, …, as shares of the tasks; of (label, colour, ranks) each."""
    given = [(name, colour, found) for name, colour, found in systems if found]
    if not given:
        return None
    last = max(rank for _, _, found in given for rank in found)
    shown = min(last, 20)

    def draw(figure: Figure) -> None:
        ax = figure.subplots()
        for number, (name, colour, found) in enumerate(given):
            counts = Counter(min(r, shown) for r in found)
            x = [r + (number - (len(given) - 1) / 2) * 0.4 for r in range(1, shown + 1)]
            y = [counts[r] / len(found) for r in range(1, shown + 1)]
            ax.bar(x, y, 0.38, color=COLOURS[colour], label=name)
        ax.grid(axis="x", visible=False)
        ax.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        ax.yaxis.set_major_locator(MaxNLocator(5))
        marked = [r for r in range(1, shown + 1) if shown <= 10 or r in (1, shown) or (r % 5 == 0 and r < shown - 1)]
        ax.set_xticks(marked, [f"{r}{'+' if r == shown < last else ''}" for r in marked])
        ax.set_xlabel("rank of the best candidate")
        ax.set_ylabel("share of tasks")
        ax.legend(**LEGEND)

    return svg(draw, 2.9, "ranks")


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
            _interval(ax, middle, (low, high), row, COLOURS["baseline"])
        _name_rows(ax, [label for label, *_ in rows], f"macro MRR minus that of: {against}")
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
                _interval(ax, numbers["rr"], numbers["ci95"], y, colour, ms=6, mfc=fill)
        _name_rows(ax, list(datasets), "mean reciprocal rank")
        ax.set_xlim(0, 1.02)
        keys = [_key(_shorten(name), colours[i % len(colours)]) for i, name in enumerate(names)]
        figure.legend(handles=keys, loc="outside upper left", ncols=2, **LEGEND)

    return svg(draw, (0.13 * len(names) + 0.2) * len(datasets) + 0.9 + 0.12 * len(names), "runs")


def times(seconds: Mapping[str, float], shares: Mapping[str, float]) -> str | None:
    """Draw where time went: the job's parts in minutes, and the phases of an RL step as shares."""
    parts = [(n, seconds[n]) for n in PARTS if seconds.get(n) is not None]
    phases = [(n, shares[n]) for n in PHASES if shares.get(n) is not None]
    if not parts and not phases:
        return None

    def draw(figure: Figure) -> None:
        rows = [bool(parts), bool(phases)]
        axes = iter(figure.subplots(sum(rows), 1, squeeze=False, height_ratios=[3] * sum(rows))[:, 0])
        if parts:
            ax = next(axes)
            _stack(ax, parts, lambda v: f"{v / 60:.1f} min" if v >= 60 else f"{v:.0f} s")
            ax.set_title("The whole job")
        if phases:
            ax = next(axes)
            _stack(ax, phases, lambda v: f"{v:.0%}")
            ax.set_title("An RL step")

    return svg(draw, 1.55 * (bool(parts) + bool(phases)), "times")


_TIGHT: dict[str, Any] = {
    "frameon": False,
    "handlelength": 0.8,
    "handleheight": 0.8,
    "columnspacing": 2.0,
    "labelspacing": 0.3,
    "fontsize": 10,
}


def _stack(ax: Axes, parts: list[tuple[str, float]], show: Callable[[float], str]) -> None:
    total = sum(value for _, value in parts) or 1.0
    left = 0.0
    keys = []
    for name, value in parts:
        bar = ax.barh(0, value / total, left=left, height=0.8, color=COLOURS[name], ec=COLOURS["card"], lw=2)
        keys.append((bar, f"{'RL' if name == 'rl' else name} {show(value)}"))
        left += value / total
    ax.set_xlim(0, 1)
    ax.set_ylim(-1.6, 0.42)  # room for two rows of keys below the bar
    ax.set_axis_off()
    legend = ax.legend(*zip(*keys, strict=True), loc="lower left", bbox_to_anchor=(-0.02, -0.02), ncols=2, **_TIGHT)
    legend.set_in_layout(False)  # its width is not to narrow the bar


def _mark(ax: Axes, x: float, row: float, mark: str, colour: str, size: float = 6) -> None:
    ax.plot(x, row, mark, color=COLOURS[colour], mfc="none", ms=size, mew=1.3, zorder=1.9)


def _interval(ax: Axes, middle: float, ends: Sequence[float], row: float, colour: str, **dot: Any) -> None:
    """Draw a dot and its interval on a row."""
    ax.plot(ends, [row, row], color=colour, lw=2, alpha=0.5)
    ax.plot(middle, row, "o", color=colour, **{"ms": 7, **dot})


def _name_rows(ax: Axes, names: Sequence[str], axis: str) -> None:
    """Name the rows of a figure, the first one at the top, and its axis."""
    ax.set_yticks(range(len(names)), [_shorten(name) for name in names])
    ax.tick_params(axis="y", labelcolor=COLOURS["ink"])
    ax.set_ylim(len(names) - 0.45, -0.55)
    ax.set_xlabel(axis)


def _key(name: str, colour: str, **style: Any) -> Line2D:
    """Return a legend's entry: by default a line with a dot."""
    return Line2D([], [], color=colour, label=name, **{"marker": "o", "ms": 6, "lw": 2, **style})


def _smooth(values: Sequence[float]) -> list[float]:
    """Return a centred moving mean over a tenth of the curve."""
    half = max(1, len(values) // 20)
    windows = (values[max(0, i - half) : i + half + 1] for i in range(len(values)))
    return [sum(w) / len(w) for w in windows]


def _legend(figure: Figure, systems: Curves) -> None:
    keys = [_key(label, COLOURS[colour], ms=5) for label, colour, _ in systems]
    keys.append(_key("random order", COLOURS["baseline"], marker="", lw=1.4, ls="--"))
    figure.legend(handles=keys, loc="outside upper left", ncols=3, **LEGEND)
