"""The verl that our patches are for."""

from __future__ import annotations

from importlib import metadata

VERL_VERSION = "0.9.1"


def require(what: str) -> None:
    """Raise SystemExit, which verl's plug-in loader does not catch, where another verl is installed."""
    found = metadata.version("verl")
    if found != VERL_VERSION:
        raise SystemExit(
            f"iranker-verl: {what} is written and tested for verl {VERL_VERSION}, but {found} is installed; "
            f"install verl=={VERL_VERSION}, or set VERL_USE_EXTERNAL_PLUGINS=none to run verl without it"
        )
