"""Which options the installed verl reads, from its source.

verl composes more options than it reads: keys of earlier versions, and of engines and trainers that do not run here. An option
counts as read where its last name is looked up in a module that can run in a job of ours (``X.name``, ``X["name"]``,
``X.get("name")``, or the name handed to a function). Dataclasses of verl's config look up their own fields as ``self.name``;
that counts only for the group of options that this dataclass is made of. Names that occur in unrelated places too are taken
as read: what is reported is certain, what is not reported is not.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

PACKAGES = ("verl", "transfer_queue", "iranker_verl.training")
# Parts of verl that no job of ours runs: other engines, rollouts and trainers, and tools.
NOT_RUN = {
    *("megatron", "veomni", "torchtitan", "automodel", "mindspeed", "diffusers", "trtllm_rollout", "sglang_rollout"),
    *("fully_async_policy", "one_step_off_policy", "vla", "model_merger", "megatron_utils.py", "fully_async_main.py"),
    *("sft_trainer.py", "sft_trainer_ray.py", "main_ppo_v0.py", "main_eval.py", "main_generation_server.py"),
    *("ray_trainer.py", "trainer_colocate_async.py", "trainer_separate_async.py"),
}
CONFIGS = {"config", "cfg", "options"}  # what verl calls a group of options that it was handed


class Read(NamedTuple):
    """One look-up of a name: in which class, and of what (the last name of the expression, None for a call's argument)."""

    within: str | None
    base: str | None


@cache
def _sources() -> dict[Path, str]:
    """Return the text of every module of :data:`PACKAGES` that can run."""
    folders = [
        Path(folder) for name in PACKAGES for folder in (find_spec(name) or _Nothing).submodule_search_locations or ()
    ]
    files = (
        file
        for folder in folders
        for file in sorted(folder.rglob("*.py"))
        if not NOT_RUN & {*file.relative_to(folder).parts}
    )
    return {file: file.read_text(encoding="utf-8") for file in files}


class _Nothing:
    submodule_search_locations: tuple[str, ...] = ()


@cache
def _reads(file: Path) -> dict[str, list[Read]]:
    """Return the look-ups in a module by name."""
    found: dict[str, list[Read]] = {}
    for statement in ast.parse(_sources()[file]).body:
        within = statement.name if isinstance(statement, ast.ClassDef) else None
        for node in ast.walk(statement):
            for name, base in _looked_up(node):
                found.setdefault(name, []).append(Read(within, base))
    return found


def _looked_up(node: ast.AST) -> Iterator[tuple[str, str | None]]:
    if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
        yield node.attr, _last_name(node.value)
    elif isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant):
        yield str(node.slice.value), _last_name(node.value)
    elif isinstance(node, ast.Call):
        texts = [a.value for a in node.args if isinstance(a, ast.Constant) and isinstance(a.value, str)]
        if isinstance(node.func, ast.Name) and node.args:  # getattr(X, "name")
            base = _last_name(node.args[0])
        else:  # X.get("name")
            base = _last_name(node.func.value) if isinstance(node.func, ast.Attribute) else None
        for text in texts:
            yield from ((part, base) for part in text.split("."))


def _last_name(node: ast.AST) -> str | None:
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else None


def is_read(name: str, owner: type | None, *, group: str | None = None) -> bool:
    """Return whether an option is read.

    Args:
        name: its last name.
        owner: the dataclass that verl makes of its group, where it makes one.
        group: the name of its group, for an option that verl's own config does not have: then only look-ups in something
            that is called so, or just a config, count.
    """
    owners = {one.__name__ for one in owner.__mro__} if owner else set()
    for file, text in _sources().items():
        if name not in text:
            continue
        for read in _reads(file).get(name, ()):
            if read.base == "self":
                if read.within in owners:
                    return True
            elif group is None or read.base in CONFIGS or (read.base or "").startswith(group):
                return True
    return False


def names_variable(package: str, name: str) -> bool:
    """Return whether an environment variable is named anywhere in a package."""
    word = re.compile(rf"\b{re.escape(name)}\b")
    folders = (find_spec(package) or _Nothing).submodule_search_locations or ()
    return any(word.search(file.read_text("utf-8")) for folder in folders for file in Path(folder).rglob("*.py"))


def owner_of(group: Mapping[str, Any] | None) -> type | None:
    """Return the dataclass that verl makes of a group of options; None where it makes none."""
    from hydra.utils import get_class

    target = (group or {}).get("_target_")
    return get_class(target) if target else None
