"""How pages look that people read: the report, the data card. One style sheet, and figures that take its colours."""

from __future__ import annotations

from collections.abc import Callable
from importlib import resources

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup


def environment(package: str, folder: str, **filters: Callable[..., str]) -> Environment:
    """Return where the pages of a package's folder come from: texts are escaped, a name that is not given is an error."""
    made = Environment(
        loader=PackageLoader(package, folder),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters.update(filters)
    return made


def css() -> Markup:
    """Return the style sheet of all pages."""
    return Markup(resources.files(__package__).joinpath("style.css").read_text(encoding="utf-8"))  # our own text
