"""A recipe (Hydra YAML over verl's ``ppo_trainer``) with overrides, composed, and run by verl on Ray."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from iranker_verl.aliases import check_aliases
from iranker_verl.console import say
from iranker_verl.errors import UserError
from iranker_verl.options import check_known, find_option, is_group, options_of
from iranker_verl.provenance import flatten
from iranker_verl.training.config.schema import Composed, Recipe

# Where a recipe's defaults list finds verl's ppo_trainer, and ours.
SEARCH_PATH = ("pkg://verl.trainer.config", "pkg://iranker_verl.training.config")
PER_HOUR = "per_hour"
# Options whose values are folders, whose names may hold what Hydra's grammar gives another meaning.
FOLDERS = ("iranker.data.raw", "iranker.run_dir", "iranker.base.cache", "actor_rollout_ref.model.path")


# Of a driver's environment, what Ray's workers get on a running cluster; and what is never sent: Ray's dashboard shows it.
SENT = ("WANDB_", "MLFLOW_", "TENSORBOARD_DIR", "NCCL_", "GLOO_", "HF_HUB_OFFLINE")
SECRET = ("KEY", "TOKEN", "PASSWORD", "SECRET")


def _per_hour(amount: float, *, _root_: DictConfig) -> float:
    """Return what ``${per_hour:amount}`` is in a recipe: ``amount`` at 60 ``iranker.minutes``, and in proportion.

    It is whole, and 1 or more, where ``amount`` is.
    """
    scaled = amount * _root_.iranker.minutes / 60
    return max(1, round(scaled)) if isinstance(amount, int) else scaled


OmegaConf.register_new_resolver(PER_HOUR, _per_hour, replace=True)


def compose_recipe(recipe: str | Path, overrides: list[str]) -> DictConfig:
    """Return the composed config of a recipe folder or file. Raise UserError, in one line, for a missing recipe or a wrong override."""
    path = _file_of(recipe)
    for file in {path, *path.parent.glob("*.yaml")}:  # its defaults list may name those beside it
        check_aliases(file.read_text(encoding="utf-8", errors="replace"), str(file))
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(version_base=None, config_dir=str(path.parent.resolve())):
            config = compose(
                path.stem, overrides=[f"hydra.searchpath=[{','.join(SEARCH_PATH)}]", *map(_quoted, overrides)]
            )
            OmegaConf.to_container(config, resolve=True)
    except (HydraException, OmegaConfBaseException, YAMLError, ValueError) as error:
        raise UserError(f"{path}: {_in_one_line(error)}") from error
    for name in _groups(Composed):
        if not isinstance(OmegaConf.select(config, name), DictConfig):
            raise UserError(f"{path}: {name} is no group of options; its defaults list needs ppo_trainer and iranker")
    check_known(config.iranker, Recipe, "iranker.")  # Hydra's "+" takes any name
    return config


def _file_of(recipe: str | Path) -> Path:
    """Return a recipe's YAML file: the recipe itself, or that of a folder's name in the folder."""
    path = Path(recipe)
    if path.is_dir():
        path = path / f"{path.name}.yaml"
    if not path.is_file():
        raise UserError(f"{recipe}: no such recipe; give a folder of recipes/ or a YAML file")
    return path


def named_options(recipe: str | Path, overrides: list[str]) -> list[str]:
    """Return the names of the options that a person has set: those in the recipe's own file, and the overrides.

    ``recipe`` and ``overrides`` have been composed before.
    """
    own: Any = OmegaConf.to_container(OmegaConf.load(_file_of(recipe)))
    own.pop("defaults", None)
    return [*flatten(own), *(o.lstrip("+").partition("=")[0].partition("@")[0] for o in overrides if o[:1] != "~")]


def _groups(made_of: type, prefix: str = "") -> Iterator[str]:
    """Yield the names of all groups of options of a dataclass, those above first."""
    for one in options_of(made_of):
        if is_group(one.type):
            yield f"{prefix}{one.name}"
            yield from _groups(one.type, f"{prefix}{one.name}.")


def _in_one_line(error: Exception) -> str:
    """Return Hydra's or OmegaConf's message; for our options, the known names, or what the value has to be."""
    text = str(error if error.__cause__ is None else f"{error}\n{error.__cause__}")
    if found := re.search(
        r"full_key: iranker\.(\S+)|Could not (?:override|append to config\.|find) '?iranker\.([\w.]+)", text
    ):
        name = found[1] or found[2]
        option = find_option(Recipe, name)
        group, _, last = f"iranker.{name}".rpartition(".")
        if isinstance(option, list):
            return f"{group} has no option {last}: {', '.join(option)}"
        value = re.search(r"Value '(.*)' (?:of type|is not)", text)
        return f"iranker.{name}{f'={value[1]}' if value else ''} has to be {option}"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[:2])


def _quoted(override: str) -> str:
    """Return an override of Hydra's grammar, with a folder's name in quotes; what is quoted, or begins with a "$", is Hydra's."""
    option, _, value = override.partition("=")
    if option.lstrip("+") not in FOLDERS or value.lower() == "null" or value[:1] in ("", "'", '"', "$"):
        return override
    # a backslash is one, but before the quote, and at the end
    value = re.sub(r"(\\*)('|$)", lambda m: m[1] * 2 + ("\\'" if m[2] else ""), value)
    return f"{option}='{value}'"


def task_runner_class() -> Any:
    """Return verl's task runner, with our trainers in the place of its own."""
    import ray
    from verl.trainer.main_ppo import TaskRunnerV1

    class EliminationTaskRunner(TaskRunnerV1.__ray_metadata__.modified_class):  # type: ignore[name-defined,misc]
        def run(self, config: DictConfig) -> None:
            from verl.trainer.ppo.v1 import trainer_base

            from iranker_verl.training.asynchronous import ColocatedTrainer
            from iranker_verl.training.trainer import EliminationTrainer

            # Not names of their own: verl asks whether trainer_mode is "sync".
            trainer_base.TRAINER_REGISTRY |= {"sync": EliminationTrainer, "colocate_async": ColocatedTrainer}
            super().run(config)

    return ray.remote(EliminationTaskRunner)


def run(config: DictConfig) -> None:
    """Train. Resume from the last checkpoint in ``trainer.default_local_dir``."""
    from verl.trainer.main_ppo import run_ppo

    option = "ray_kwargs.ray_init.runtime_env.env_vars"
    variables = worker_environment(os.environ) | dict(OmegaConf.select(config, option) or {})
    OmegaConf.update(config, option, variables, force_add=True)
    keep_present_folder_out()
    say("starting Ray")
    run_ppo(config, task_runner_class())


def worker_environment(variables: Mapping[str, str]) -> dict[str, str]:
    """Return what Ray's workers get of a driver's environment: settings of loggers and of NCCL, and no keys.

    On a running cluster they do not inherit it. What the job itself has set (``ray job submit``) reaches them without this, and Ray
    refuses a variable that is given twice.
    """
    given = json.loads(variables.get("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")).get("runtime_env", {}).get("env_vars") or {}
    return {
        name: value
        for name, value in variables.items()
        if name.startswith(SENT) and name not in given and not any(word in name for word in SECRET)
    }


def keep_present_folder_out() -> None:
    """Keep Ray from putting the present folder before the standard library on its workers' path.

    Ray 2.60 does so unless the job brings a working directory, whatever ``PYTHONSAFEPATH`` says; a ``ctypes.py`` in it would run.
    """
    from ray.job_config import JobConfig

    if hasattr(JobConfig, "_runtime_env_has_working_dir"):
        setattr(JobConfig, "_runtime_env_has_working_dir", lambda self: True)  # noqa: B010
