"""Options as fields of a dataclass: default, type, range and help in one place.

Recipes (:mod:`iranker_verl.training.config.schema`), the command line (:mod:`iranker_verl.cli.options`) and the functions
that take the options read them from there.
"""

from __future__ import annotations

import dataclasses
import math
import types
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Optional, TypeGuard, Union, get_args, get_origin, get_type_hints

from iranker_verl.errors import UserError

_WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "a text", list: "a list"}


def option(
    default: Any,
    help: str,
    *,
    least: float | None = None,
    above: float | None = None,
    most: float | None = None,
    choices: Sequence[str] = (),
) -> Any:
    """Return a dataclass field with a range: ``least`` <= value <= ``most``, value > ``above``, or one of ``choices``."""
    limits = {"least": least, "above": above, "most": most, "choices": tuple(choices)}
    if isinstance(default, type):
        return dataclasses.field(default_factory=default, metadata={"help": help, **limits})
    return dataclasses.field(default=default, metadata={"help": help, **limits})


@dataclass(frozen=True)
class Option:
    """One option: its name, its type without None, whether it may be None, its default and its limits."""

    name: str
    type: Any
    optional: bool
    default: Any
    limits: Any

    def __str__(self) -> str:
        """Return what a value has to be, e.g. ``a whole number, 1 or more, or null``."""
        if self.limits.get("choices"):
            words = f"one of {', '.join(self.limits['choices'])}"
        else:
            kind = _WORDS.get(get_origin(self.type) or self.type, "a group of options")
            words = ", ".join([kind, *self._range()])
        return f"{words}, or null" if self.optional else words

    def _range(self) -> Iterator[str]:
        least, above, most = (self.limits.get(name) for name in ("least", "above", "most"))
        if least is not None:
            yield f"{least:g} or more" if most is None else f"from {least:g} to {most:g}"
        elif above is not None:
            yield f"above {above:g}" + ("" if most is None else f" and at most {most:g}")

    def admits(self, value: Any) -> bool:
        """Return whether ``value`` is of the type and within the limits."""
        if value is None:
            return self.optional
        kind = get_origin(self.type) or self.type
        if isinstance(value, bool) != (kind is bool):  # Python counts true and false as whole numbers
            return False
        if kind is list:  # OmegaConf has a list of its own
            return isinstance(value, Sequence) and not isinstance(value, str)
        if not isinstance(value, (int, float) if kind is float else kind):
            return False
        least, above, most = (self.limits.get(name) for name in ("least", "above", "most"))
        if kind in (int, float) and isinstance(value, int | float):
            low = (least is None or value >= least) and (above is None or value > above)
            return math.isfinite(value) and low and (most is None or value <= most)
        return not self.limits.get("choices") or value in self.limits["choices"]


def options_of(made_of: type) -> list[Option]:
    """Return the options of a dataclass in their order; nested dataclasses are options of that type."""
    hints = get_type_hints(made_of)
    found = []
    for field in dataclasses.fields(made_of):
        kind, optional = hints[field.name], False
        if get_origin(kind) in (Union, types.UnionType):
            kind, optional = next(one for one in get_args(kind) if one is not type(None)), True
        found.append(Option(field.name, kind, optional, field.default, field.metadata))
    return found


def is_group(kind: Any) -> TypeGuard[type]:
    """Return whether the type of an option is a dataclass, so that it has options of its own."""
    return dataclasses.is_dataclass(kind)


def check_options(values: Any, prefix: str = "", made_of: type | None = None) -> None:
    """Raise UserError, with its name, for the first option that has no valid value.

    Args:
        values: an instance of a dataclass; or a mapping, which may hold more.
        prefix: what precedes each name.
        made_of: the dataclass of a mapping.
    """
    for one in options_of(made_of or type(values)):
        value = values.get(one.name) if made_of else getattr(values, one.name)
        if is_group(one.type):
            check_options(value, f"{prefix}{one.name}.", made_of and one.type)
        elif not one.admits(value):
            raise UserError(f"{prefix}{one.name}={value} has to be {one}")


def check_known(values: Any, made_of: type, prefix: str) -> None:
    """Raise UserError for the first name in the mapping ``values`` that the dataclass has no option of."""
    options = {one.name: one.type for one in options_of(made_of)}
    for name in values:
        if name not in options:
            raise UserError(f"{prefix.rstrip('.')} has no option {name}: {', '.join(options)}")
        if is_group(options[name]):
            check_known(values[name], options[name], f"{prefix}{name}.")


def find_option(made_of: type, path: str) -> Option | list[str]:
    """Return the option at ``path`` (``a.b.c``), or, where there is none, the names in its group."""
    name, _, rest = path.partition(".")
    options = {one.name: one for one in options_of(made_of)}
    if name not in options:
        return list(options)
    found = options[name]
    return find_option(found.type, rest) if rest and is_group(found.type) else found


def as_defaults(made_of: type, leave_out: Collection[str] = ()) -> type:
    """Return a dataclass with the options of ``made_of``, each of which may be None, its default: "unchanged"."""
    fields = [
        (one.name, Optional[one.type], dataclasses.field(default=None, metadata=one.limits))  # noqa: UP045
        for one in options_of(made_of)
        if one.name not in leave_out
    ]
    return dataclasses.make_dataclass(f"{made_of.__name__}Given", fields)
