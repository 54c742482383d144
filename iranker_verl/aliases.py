"""A check of YAML before it is read: a few lines of aliases of aliases stand for billions of values."""

from __future__ import annotations

import math

import yaml

from iranker_verl.errors import UserError

MAX_VALUES = 10_000  # of a file, each alias counted as all that it stands for


def check_aliases(source: str, where: str) -> None:
    """Raise UserError, which begins with ``where``, for YAML with too many values or brackets, or a value within itself.

    What else is wrong with it is left to its reader.
    """
    try:
        root = yaml.compose(source, yaml.SafeLoader)
        values = 0 if root is None else _count(root, {})
    except RecursionError as error:
        raise UserError(f"{where}: its values are nested too deeply") from error
    except yaml.YAMLError:
        return
    if values > MAX_VALUES:
        raise UserError(
            f"{where}: its aliases (*name) stand for more than {MAX_VALUES:,} values; write out what is meant"
        )


def _count(node: yaml.Node, counted: dict[int, float]) -> float:
    """Return the values below a node and itself, in time linear in the file; infinite where it holds itself."""
    if id(node) not in counted:
        counted[id(node)] = math.inf  # for those below it
        below: list[yaml.Node] = []
        if isinstance(node, yaml.MappingNode):
            below = [part for pair in node.value for part in pair]
        elif isinstance(node, yaml.SequenceNode):
            below = node.value
        counted[id(node)] = 1 + sum(_count(part, counted) for part in below)
    return counted[id(node)]
