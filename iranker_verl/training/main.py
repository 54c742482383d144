"""The training entry point: a recipe (Hydra YAML over verl's ``ppo_trainer``) plus overrides, run on Ray.

``python -m iranker_verl.training.main recipes/tiny_cpu/tiny_cpu.yaml trainer.total_training_steps=10``
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from iranker_verl.errors import UserError
from iranker_verl.training.checks import check

# Where a recipe's defaults list finds verl's ppo_trainer, and ours.
SEARCH_PATH = ("pkg://verl.trainer.config", "pkg://iranker_verl.training.config")
# Options whose values are folders, whose names may hold what Hydra's grammar gives another meaning.
FOLDERS = ("iranker.data.raw", "iranker.run_dir", "iranker.base.cache", "actor_rollout_ref.model.path")


def compose_recipe(recipe: str | Path, overrides: list[str]) -> DictConfig:
    """The composed config of a recipe folder or file. UserError, in one line, for a missing recipe or a wrong override."""
    path = Path(recipe)
    if path.is_dir():
        path = path / f"{path.name}.yaml"
    if not path.is_file():
        raise UserError(f"{recipe}: no such recipe; give a folder of recipes/ or a YAML file")
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(version_base=None, config_dir=str(path.parent.resolve())):
            config = compose(
                path.stem, overrides=[f"hydra.searchpath=[{','.join(SEARCH_PATH)}]", *map(_quoted, overrides)]
            )
            OmegaConf.to_container(config, resolve=True)
    except (HydraException, OmegaConfBaseException, YAMLError, ValueError) as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise UserError(f"{path}: {' '.join(lines[:2])}") from error
    for name in (
        "iranker.data",
        "iranker.base",
        "iranker.credit",
        "iranker.curriculum",
        "actor_rollout_ref.actor",
        "critic",
        "data",
        "trainer",
    ):
        if not isinstance(OmegaConf.select(config, name), DictConfig):
            raise UserError(f"{path}: {name} is no group of options; its defaults list needs ppo_trainer and iranker")
    return config


def _quoted(override: str) -> str:
    """An override of Hydra's grammar, a folder's name in quotes. What is in quotes already, or begins with a "$", is Hydra's."""
    option, _, value = override.partition("=")
    if option.lstrip("+") not in FOLDERS or value.lower() == "null" or value[:1] in ("", "'", '"', "$"):
        return override
    # a backslash is one, but before the quote, and at the end
    value = re.sub(r"(\\*)('|$)", lambda m: m[1] * 2 + ("\\'" if m[2] else ""), value)
    return f"{option}='{value}'"


def task_runner_class() -> Any:
    """verl's task runner, with our trainer in the place of its synchronous one."""
    import ray
    from verl.trainer.main_ppo import TaskRunnerV1

    class EliminationTaskRunner(TaskRunnerV1.__ray_metadata__.modified_class):  # type: ignore[name-defined,misc]
        def run(self, config: DictConfig) -> None:
            from verl.trainer.ppo.v1 import trainer_base

            from iranker_verl.training.trainer import EliminationTrainer

            # Not a name of its own: any trainer_mode but "sync" silently selects the asynchronous data path.
            trainer_base.TRAINER_REGISTRY["sync"] = EliminationTrainer
            super().run(config)

    return ray.remote(EliminationTaskRunner)


def run(config: DictConfig) -> None:
    """Train. Resumes from the last checkpoint in ``trainer.default_local_dir``."""
    from verl.trainer.main_ppo import run_ppo
    from verl.utils.device import auto_set_device

    auto_set_device(config)
    check(config)
    run_ppo(config, task_runner_class())


def main() -> None:
    try:
        if len(sys.argv) < 2:
            raise UserError("usage: python -m iranker_verl.training.main RECIPE [override=value …]")
        run(compose_recipe(sys.argv[1], sys.argv[2:]))
    except UserError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
