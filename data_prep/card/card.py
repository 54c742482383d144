"""The data card: ``card.html``, one file that loads nothing from elsewhere, and ``card.json`` with all it shows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from markupsafe import Markup

from data_prep.card import figures
from data_prep.card.lengths import CountTokens
from data_prep.card.statistics import statistics
from data_prep.checks.folder import check_folder
from data_prep.schema import read_manifest
from iranker_verl import page
from iranker_verl.errors import UserError
from iranker_verl.files import check_replaceable, make_folder, marked, write_json, write_text

# What of a manifest tells where the data came from.
_PROVENANCE = (
    "schema_version",
    "seed",
    "template_id",
    "template_hash",
    "data_hash",
    "options",
    "inputs",
    "files",
    "versions",
)


def inspect(folder: Path, count_tokens: CountTokens | None = None, limit: int | None = None) -> dict[str, Any]:
    """Return everything that the card of a prepared folder shows, as JSON. ``limit`` is the longest prompt in tokens.

    The checks are made again. Raise UserError for a folder that is missing, broken or no prepared one.
    """
    manifest = read_manifest(folder)
    try:
        checks = [asdict(one) for one in check_folder(folder, manifest)]
        content = statistics(folder, manifest, count_tokens, limit)
        provenance = {name: manifest[name] for name in _PROVENANCE} | {"split": manifest.get("split", {})}
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{folder / 'manifest.json'}: not a manifest of this version ({type(error).__name__}: {error}); "
            "prepare the data again"
        ) from error
    return {"name": folder.resolve().name, "checks": checks, **content, "provenance": provenance}


def write_card(out: Path, content: dict[str, Any]) -> Path:
    """Write ``out`` (HTML) and, beside it, the same as JSON, and return the path of the JSON.

    Raise UserError, before anything is written, where one of the two is there and was not made here.
    """
    if out.suffix.lower() not in (".html", ".htm"):
        raise UserError(f"{out}: the card is HTML; give a file name like card.html")
    html, beside = render(content), out.with_suffix(".json")
    for path in (out, beside):
        check_replaceable(path)
    make_folder(out.parent)
    write_json(beside, marked(content))
    write_text(out, html)
    return beside


def render(content: Mapping[str, Any]) -> str:
    """Return the card as HTML text."""
    drawn = {
        "lengths": figures.lengths(content["lengths"]),
        "positions": figures.positions(content["positions"]),
        "popularity": figures.popularity(content["popularity"]),
        "routers": figures.routers(content["routers"]),
    }
    environment = page.environment(__package__, ".", count=_count, percent=_percent, probability=_probability)
    return environment.get_template("card.html.j2").render(
        **content,
        css=page.css(),
        figures={name: svg and Markup(svg) for name, svg in drawn.items()},  # matplotlib escapes its texts
    )


def _count(value: float | None) -> str:
    return "–" if value is None else f"{value:,.0f}" if value == int(value) or value >= 100 else f"{value:.1f}"


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f} %"


def _probability(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}" if value >= 0.001 else f"{value:.0e}"
