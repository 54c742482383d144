"""Figures drawn with matplotlib as SVG to be put into a page.

Colours leave here as CSS variables and texts as texts, so that a figure takes the page's font and its light or dark
colours.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from typing import Any

import matplotlib
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

# Stand-ins that matplotlib can parse; in the SVG each becomes var(--name).
PARTS = ("prepare", "base", "rl", "evaluate")
PHASES = ("generate", "forward", "backward", "other")
_NAMES = ("ink", "muted", "grid", "card", "before", "after", "baseline", *PARTS, *PHASES)
COLOURS = {name: f"#0000{number:02x}" for number, name in enumerate(_NAMES, start=1)}
WIDTH = 4.9  # inches; 353 units in the SVG, about what a phone shows
_STYLE: dict[str, Any] = {
    "svg.fonttype": "none",
    "text.parse_math": False,  # a "$" in a data set's name is a "$"
    "font.family": "DejaVu Sans",
    "font.size": 10.5,
    "text.color": COLOURS["ink"],
    "axes.edgecolor": COLOURS["grid"],
    "axes.labelcolor": COLOURS["muted"],
    "axes.titlecolor": COLOURS["ink"],
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": COLOURS["grid"],
    "grid.linewidth": 0.8,
    "xtick.color": COLOURS["grid"],
    "ytick.color": COLOURS["grid"],
    "xtick.labelcolor": COLOURS["muted"],
    "ytick.labelcolor": COLOURS["muted"],
    "ytick.major.size": 0,
    "lines.solid_capstyle": "round",
}
LEGEND: dict[str, Any] = {"frameon": False, "handlelength": 1.4, "columnspacing": 1.4, "labelspacing": 0.4}


def svg(draw: Callable[[Figure], None], height: float, name: str) -> str:
    """Return what ``draw`` draws on a figure of ``height`` inches, as an ``<svg>`` with the id ``figure-<name>``."""
    style: Any = {**_STYLE, "svg.hashsalt": name}  # the salt keeps ids of two figures apart
    with matplotlib.rc_context(style):
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        FigureCanvasSVG(figure)
        draw(figure)
        out = io.StringIO()
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(out, format="svg", transparent=True, metadata=nothing)
    text = out.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r'<g id="[^"]*"', "<g", text)  # the same in every figure, and nothing refers to them
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'\sxmlns(:\w+)?="[^"]*"', "", text)  # not needed within HTML
    text = re.sub(r'(<svg[^>]*?)\swidth="[^"]*"', r"\1", text, count=1)
    text = re.sub(r'(<svg[^>]*?)\sheight="[^"]*"', rf'\1 class="figure" id="figure-{name}" role="img"', text, count=1)
    for colour, code in COLOURS.items():
        text = text.replace(code, f"var(--{colour})")
    return text
