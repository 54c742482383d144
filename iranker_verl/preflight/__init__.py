"""All that is checked before anything starts: one entry, :func:`check`; each mistake is one line, with the option's name.

verl takes many a value that it cannot use, and fails hours later, or does nothing; this refuses them where they are written.
"""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Collection
from pathlib import Path

from omegaconf import DictConfig

from iranker_verl.errors import UserError
from iranker_verl.preflight import machine
from iranker_verl.preflight.effect import check_effect
from iranker_verl.preflight.nodes import check_nodes
from iranker_verl.preflight.placement import check_placement, name_cluster
from iranker_verl.preflight.recipe import check_values
from iranker_verl.preflight.reward import check_reward


def check(config: DictConfig, named: Collection[str] = ()) -> None:
    """Check a composed recipe, on any machine. Raise UserError.

    It makes nothing but classes of verl and the recipe's reward function, whose module is imported and called.

    Args:
        config: the recipe.
        named: the options that a person has set; each has to have an effect.
    """
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # verl says here that all is well, and that there is no critic
        check_values(config)
        check_effect(config, named)
        check_reward(config)
        _check_by_verl(config)


def check_machine(config: DictConfig) -> None:
    """Check that this machine, and each node of a cluster, has what the recipe asks for. Raise UserError; make the run folder."""
    name_cluster(config)
    machine.check_here(config)
    machine.check_tokenizer(config)
    machine.check_weights(config)
    machine.check_attention(config)
    machine.check_fits(config)
    check_placement(config)
    machine.check_room(Path(config.iranker.run_dir).resolve())
    check_nodes(config)


def _check_by_verl(config: DictConfig) -> None:
    """Raise UserError for what verl's own validation refuses."""
    from hydra.errors import HydraException
    from verl.trainer.ppo.utils import need_critic, need_reference_policy
    from verl.utils.config import validate_config

    # verl checks a critic by loading its model's config, which may not be made, or not be here, yet
    critic = need_critic(config) and Path(str(config.critic.model.path)).is_dir()
    try:
        validate_config(config=config, use_reference_policy=need_reference_policy(config), use_critic=critic)
    except (AssertionError, ValueError, TypeError, HydraException) as error:
        raise UserError(f"verl refuses this config: {' '.join(str(error).split())}") from error
