"""The ways to a ranking that ``--method`` names, and the prompt template that each is asked with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from iranker_verl.errors import UserError
from iranker_verl.ranking.templates import Template, available, check_hash, load

# method -> the kind of template that it is asked with
METHODS = {
    "iterative": "exclusion",
    "direct": "direct",
    "setwise": "setwise",
    "pairwise": "pairwise",
    "allpairs": "allpairs",
}


def choose(method: str | None, template: str | None, manifest: Mapping[str, Any]) -> tuple[str, Template]:
    """Return the method and its template, for data of this manifest.

    Without ``template`` it is the data's own where that is of the method's kind, else the one of its kind that is nearest to
    the data's own in name (``direct-think-label`` to ``think-label``). Without ``method`` it is the template's. Raise UserError where
    the two do not fit each other, or where the data's own template has changed since.
    """
    if method is not None and method not in METHODS:
        raise UserError(f"unknown method {method!r}; choose one of {', '.join(METHODS)}")
    own = manifest["template_id"]
    if template is not None:
        chosen = load(template)
    elif method is None or load(own).kind == METHODS[method]:
        chosen = load(own)
        check_hash(chosen, own, manifest["template_hash"], "the data")
    else:
        chosen = load(_nearest(METHODS[method], own))
    implied = next(name for name, kind in METHODS.items() if kind == chosen.kind)
    if method not in (None, implied):
        raise UserError(
            f"template {chosen.id} is for --method {implied}, not {method}; leave out one of --template and --method"
        )
    return implied, chosen


def _nearest(kind: str, own: str) -> str:
    """Return the packaged template of a kind whose name has the most words of ``own``'s, and the fewest others."""
    words = set(own.split("-"))
    names = [name for name in available() if load(name).kind == kind]
    return min(names, key=lambda name: (-len(words & set(name.split("-"))), len(name.split("-")), name))
