"""The training entry point: a recipe (Hydra YAML over verl's ``ppo_trainer``) plus overrides, run on Ray.

``python -m iranker_verl.training.main recipes/tiny_cpu/tiny_cpu.yaml trainer.total_training_steps=10``
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from iranker_verl.errors import UserError
from iranker_verl.ranking.templates import load
from iranker_verl.training import credit
from reward_fns.audit_policies import Task, dialects
from reward_fns.audit_verdicts import Scorer

# The module whose engine computes the log-probs of all labels.
ENGINE = "iranker_verl.training.answer_engine"
# Whole numbers: name, the least, and whether null is one too.
_COUNTS = (
    ("data.train_batch_size", 1, False),
    ("actor_rollout_ref.actor.ppo_mini_batch_size", 1, False),
    ("actor_rollout_ref.actor.ppo_epochs", 1, False),
    ("critic.ppo_mini_batch_size", 1, False),
    ("critic.ppo_epochs", 1, False),
    ("actor_rollout_ref.rollout.n", 1, False),
    ("trainer.total_training_steps", 1, False),
    ("trainer.n_gpus_per_node", 1, False),
    ("trainer.nnodes", 1, False),
    ("iranker.token_budget", 1, True),
    ("iranker.curriculum.first_pool", 2, True),
)
# Options of iranker.curriculum that are between 0 and 1.
_SHARES = ("rise", "fall", "focus")
_OPTIONS = {"curriculum": ("first_pool", *_SHARES), "credit": ("prior", "normalise", "balance_sessions")}
# verl's estimators whose baseline is the other rollouts of a task: with a single one they hand on the bare reward, in silence.
_NEED_ROLLOUTS = (
    *("grpo", "grpo_vectorized", "grpo_passk", "gdpo", "gpg"),
    *("rloo", "rloo_vectorized", "opo", "reinforce_plus_plus_baseline"),
)
# Where a recipe's defaults list finds verl's ppo_trainer, and ours.
SEARCH_PATH = ("pkg://verl.trainer.config", "pkg://iranker_verl.training.config")


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
            config = compose(path.stem, overrides=[f"hydra.searchpath=[{','.join(SEARCH_PATH)}]", *overrides])
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


def check(config: DictConfig) -> None:
    """verl's own validation and ours. UserError with the option's name."""
    from verl.trainer.ppo.core_algos import ADV_ESTIMATOR_REGISTRY
    from verl.trainer.ppo.reward import get_custom_reward_fn
    from verl.trainer.ppo.utils import need_critic, need_reference_policy
    from verl.utils.config import validate_config

    actor, data = config.actor_rollout_ref.actor, config.data
    for name, least, optional in _COUNTS:
        value = OmegaConf.select(config, name)
        if not (value is None and optional) and (not isinstance(value, int) or value < least):
            raise UserError(f"{name}={value} has to be a whole number above {least - 1}{', or null' * optional}")
    for name, lowest in (("iranker.credit.prior", 0.0), ("iranker.base.effort", 1e-9)):
        value = OmegaConf.select(config, name)
        if not isinstance(value, int | float) or not value >= lowest:
            raise UserError(f"{name}={value} has to be a number, {'0 or more' if not lowest else 'above 0'}")
    for group, known in _OPTIONS.items():
        if unknown := set(config.iranker[group]) - set(known):
            raise UserError(f"iranker.{group} has no option {sorted(unknown)[0]}: {', '.join(known)}")
    for name in _SHARES:
        _check_share(config, f"iranker.curriculum.{name}")
    if config.iranker.curriculum.rise < config.iranker.curriculum.fall:
        raise UserError(
            f"iranker.curriculum.rise={config.iranker.curriculum.rise} is below iranker.curriculum.fall="
            f"{config.iranker.curriculum.fall}: pools would grow where they should shrink"
        )
    if not isinstance(config.iranker.credit.balance_sessions, bool):
        raise UserError(
            f"iranker.credit.balance_sessions={config.iranker.credit.balance_sessions} has to be true or false"
        )
    _check_trainer(config)
    if config.iranker.curriculum.first_pool is not None and config.iranker.data.options.rows == "states":
        raise UserError(
            "iranker.curriculum goes by the reciprocal ranks of whole episodes; with iranker.data.options.rows=states set "
            "iranker.curriculum.first_pool=null (states are of all pool sizes anyway)"
        )
    credit.register()
    estimator, normalise = config.algorithm.adv_estimator, config.iranker.credit.normalise
    if estimator not in ADV_ESTIMATOR_REGISTRY:
        raise UserError(f"algorithm.adv_estimator={estimator}: one of {', '.join(sorted(ADV_ESTIMATOR_REGISTRY))}")
    normalisers = {
        credit.GAE_ESTIMATOR: credit.GAE_NORMALISERS,
        credit.EXPECTED_ESTIMATOR: credit.EXPECTED_NORMALISERS,
    }.get(estimator, credit.NORMALISERS)
    if normalise not in normalisers:
        raise UserError(f"iranker.credit.normalise={normalise}: one of {', '.join(normalisers)} with {estimator}")
    if estimator in credit.ESTIMATORS and config.algorithm.use_kl_in_reward:
        raise UserError(
            f"algorithm.use_kl_in_reward has no effect on {estimator}, which weighs whole steps; use "
            "actor_rollout_ref.actor.use_kl_loss=true"
        )
    if estimator in _NEED_ROLLOUTS and config.actor_rollout_ref.rollout.n == 1:
        raise UserError(
            f"algorithm.adv_estimator={estimator} compares the rollouts of a task: actor_rollout_ref.rollout.n=1 has nothing "
            "to compare; set it to 2 or more (and data.train_batch_size to as many tasks fewer)"
        )
    if estimator == credit.EXPECTED_ESTIMATOR:
        _check_expected(config)
    # verl turns the critic on by itself for its own gae, unless it is told not to
    if (estimator == credit.GAE_ESTIMATOR and not config.critic.enable) or (
        estimator == "gae" and config.critic.enable is False
    ):
        raise UserError(f"algorithm.adv_estimator={estimator} needs a critic: set critic.enable=true")
    for name in ("gamma", "lam") if estimator == credit.GAE_ESTIMATOR else ():
        _check_share(config, f"algorithm.{name}")
    try:
        score = get_custom_reward_fn(config)
    except (ImportError, OSError, RuntimeError, AttributeError, AssertionError) as error:
        raise UserError(f"reward.custom_reward_function: {' '.join(str(error).split())}") from error
    if score is None:
        raise UserError("reward.custom_reward_function.path is not set; pkg://reward_fns.exclusion is the usual one")
    _check_reward(score, load(config.iranker.template).kind == "direct")
    if config.iranker.credit.balance_sessions and not actor.loss_agg_mode.startswith("seq-mean"):
        raise UserError(
            f"actor_rollout_ref.actor.loss_agg_mode={actor.loss_agg_mode} weighs rows by their tokens; sessions can be "
            "balanced with seq-mean-token-mean or seq-mean-token-sum only (or set iranker.credit.balance_sessions=false)"
        )
    if data.train_batch_size % actor.ppo_mini_batch_size:
        raise UserError(
            f"data.train_batch_size={data.train_batch_size} is not a multiple of "
            f"actor_rollout_ref.actor.ppo_mini_batch_size={actor.ppo_mini_batch_size} (both count tasks)"
        )
    # verl checks a critic by loading its model's config, which may not be made, or not be here, yet
    critic = need_critic(config) and Path(str(config.critic.model.path)).is_dir()
    try:
        validate_config(config=config, use_reference_policy=need_reference_policy(config), use_critic=critic)
    except (AssertionError, ValueError, TypeError, HydraException) as error:
        raise UserError(f"verl refuses this config: {' '.join(str(error).split())}") from error


def _check_trainer(config: DictConfig) -> None:
    """What our trainer, which is verl's synchronous one of V1, works with. UserError with the option's name."""
    for name, wanted in (("trainer.use_v1", (True, None)), ("trainer.v1.trainer_mode", ("sync",))):
        if (value := OmegaConf.select(config, name)) not in wanted:
            raise UserError(
                f"{name}={value}: elimination episodes are trained by verl's V1 trainer in mode sync; leave it out"
            )
    if (strategy := config.actor_rollout_ref.actor.strategy) not in ("fsdp", "fsdp2"):
        raise UserError(f"actor_rollout_ref.actor.strategy={strategy}: one of fsdp, fsdp2")
    correction = config.algorithm.rollout_correction or {}
    if correction.get("bypass_mode"):
        for name in ("rollout_is", "rollout_rs"):
            if correction.get(name) is not None:
                raise UserError(
                    f"algorithm.rollout_correction.{name} has no effect with bypass_mode in verl's V1 trainer; set one of the two to null"
                )
        if not config.actor_rollout_ref.rollout.calculate_log_probs:
            raise UserError(
                "algorithm.rollout_correction.bypass_mode takes vLLM's log-probs: set "
                "actor_rollout_ref.rollout.calculate_log_probs=true"
            )


def _check_reward(score: Callable[..., Any], ranking: bool) -> None:
    """Let the reward function score a perfect answer and the worst one, in every form that an answer may have.

    UserError where no form of the perfect one earns more: a reward of whole rankings for exclusions, say, teaches to exclude the
    best. A function that needs more than an example's fields cannot be tried, and passes.
    """
    texts = ["Alder", "Birch", "Cedar"]
    values = {"target": 0, "relevance": [1.0, 0.5, 0.0], "effect": [1.0, 0.5, 0.0], "cost": [0.0, 0.0, 0.0]}
    task, scorer = Task("rec-movie", "", {"candidates": texts, **values}, {}), Scorer(score, {}, sees_prompt=False)

    def earned(answer: str) -> float:
        found = scorer.call(task, answer)
        return float(found["score"] if isinstance(found, dict) else found)

    try:
        pays = any(
            earned(form.say(task, form.right(task))) > earned(form.say(task, form.wrong(task)))
            for form in dialects(ranking)
        )
    except (TypeError, ValueError) as error:
        raise UserError(f"reward.custom_reward_function: {' '.join(str(error).split())}") from error
    except Exception:  # whatever a stranger's function misses in an example
        return
    if not pays:
        what = "ranking all candidates" if ranking else "excluding the worst candidate"
        raise UserError(
            f"reward.custom_reward_function pays {what} perfectly no more than at worst; is it of the recipe's kind? "
            f"pkg://reward_fns.{'direct' if ranking else 'exclusion'} is the usual one; `iranker audit-reward` looks closer"
        )


def _check_share(config: DictConfig, name: str) -> None:
    value = OmegaConf.select(config, name)
    if not isinstance(value, int | float) or not 0 <= value <= 1:
        raise UserError(f"{name}={value} has to be between 0 and 1")


def _check_expected(config: DictConfig) -> None:
    """What ``exclusion_expected`` stands on. UserError with the option's name."""
    actor, model = config.actor_rollout_ref.actor, config.actor_rollout_ref.model
    template = load(config.iranker.template)
    if template.kind != "exclusion" or template.answer != "label" or "<think>" in repr(template):
        raise UserError(
            f"algorithm.adv_estimator={credit.EXPECTED_ESTIMATOR} is for answers that are a label alone, and the template "
            f"{template.id} asks for others; take iranker.template=label, or exclusion_grpo"
        )
    if model.external_lib != ENGINE or model.use_remove_padding:
        raise UserError(
            f"algorithm.adv_estimator={credit.EXPECTED_ESTIMATOR} reads all labels' log-probs: set "
            f"actor_rollout_ref.model.external_lib={ENGINE} and actor_rollout_ref.model.use_remove_padding=false"
        )
    if actor.policy_loss.loss_mode != "vanilla":
        raise UserError(
            f"actor_rollout_ref.actor.policy_loss.loss_mode={actor.policy_loss.loss_mode} weighs sampled answers; with "
            f"{credit.EXPECTED_ESTIMATOR} take vanilla"
        )
    if model.use_fused_kernels:
        raise UserError(
            f"actor_rollout_ref.model.use_fused_kernels keeps the logits to itself, and {credit.EXPECTED_ESTIMATOR} needs them; "
            "set it to false"
        )
    correction = config.algorithm.rollout_correction or {}
    for name in ("rollout_is", "rollout_rs"):
        if correction.get(name) is not None:
            raise UserError(
                f"algorithm.rollout_correction.{name} corrects for sampled labels, and {credit.EXPECTED_ESTIMATOR} takes none; "
                "set it to null, or take exclusion_grpo"
            )
    if actor.use_kl_loss:
        raise UserError(
            f"actor_rollout_ref.actor.use_kl_loss has no log-prob of a sampled label with {credit.EXPECTED_ESTIMATOR}; set it to "
            "false, or take exclusion_grpo"
        )


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
