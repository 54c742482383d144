"""What a recipe may say: a mistake is one line, with the option's name, before anything is started.

verl takes many a value that it cannot use, and fails hours later, or does nothing; this refuses them where they are written down.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from data_prep.options import Options
from data_prep.world import WorldSize
from iranker_verl.audit.policies import Task, dialects
from iranker_verl.audit.scorer import Scorer
from iranker_verl.errors import UserError
from iranker_verl.ranking.templates import load
from iranker_verl.training import credit

# The module whose engine computes the log-probs of all labels.
ENGINE = "iranker_verl.training.answer_engine"
# Every option of ours, with its default.
OURS = Path(__file__).parent / "config" / "iranker.yaml"
# Whose options are those of a class of data_prep.
_MADE_OF: dict[str, type[Options] | type[WorldSize]] = {
    "iranker.data.options": Options,
    "iranker.data.world": WorldSize,
}
# Whole numbers: name, the least, and whether null is one too.
_COUNTS = (
    ("data.train_batch_size", 1, False),
    ("actor_rollout_ref.actor.ppo_mini_batch_size", 1, False),
    ("actor_rollout_ref.actor.ppo_epochs", 1, False),
    ("actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu", 1, True),
    ("critic.ppo_mini_batch_size", 1, False),
    ("critic.ppo_epochs", 1, False),
    ("actor_rollout_ref.rollout.n", 1, False),
    ("trainer.total_training_steps", 1, False),
    ("trainer.n_gpus_per_node", 1, False),
    ("trainer.nnodes", 1, False),
    ("trainer.save_freq", 1, False),  # verl's default saves nothing, not even what was learned
    ("trainer.test_freq", -1, False),
    ("iranker.seed", 0, False),
    ("data.max_prompt_length", 1, False),
    ("data.max_response_length", 1, False),
    ("actor_rollout_ref.rollout.max_model_len", 1, True),
    ("iranker.token_budget", 1, True),
    ("iranker.curriculum.first_pool", 2, True),
)
# Numbers, and those of them that may be 0.
_NUMBERS = {
    "iranker.credit.prior": True,
    "iranker.base.effort": False,
    "actor_rollout_ref.actor.optim.lr": False,
    "critic.optim.lr": False,
    "actor_rollout_ref.rollout.temperature": False,
}
# Options of iranker.curriculum that are between 0 and 1.
_SHARES = ("rise", "fall", "focus")
# verl's estimators whose baseline is the other rollouts of a task: with a single one they hand on the bare reward, in silence.
_NEED_ROLLOUTS = (
    *("grpo", "grpo_vectorized", "grpo_passk", "gdpo", "gpg"),
    *("rloo", "rloo_vectorized", "opo", "reinforce_plus_plus_baseline"),
)


def check(config: DictConfig) -> None:
    """Ours and verl's own validation. UserError with the option's name."""
    from verl.trainer.ppo.reward import get_custom_reward_fn
    from verl.trainer.ppo.utils import need_critic, need_reference_policy
    from verl.utils.config import validate_config

    _check_ours(config)
    _check_numbers(config)
    _check_data(config)
    _check_trainer(config)
    _check_estimator(config)
    critic = need_critic(config)
    _check_batches(config, critic)
    try:
        score = get_custom_reward_fn(config)
    except (ImportError, OSError, RuntimeError, AttributeError, AssertionError) as error:
        raise UserError(f"reward.custom_reward_function: {' '.join(str(error).split())}") from error
    if score is None:
        raise UserError("reward.custom_reward_function.path is not set; pkg://reward_fns.exclusion is the usual one")
    _check_reward(score, load(config.iranker.template).kind == "direct")
    # verl checks a critic by loading its model's config, which may not be made, or not be here, yet
    known = critic and Path(str(config.critic.model.path)).is_dir()
    try:
        validate_config(config=config, use_reference_policy=need_reference_policy(config), use_critic=known)
    except (AssertionError, ValueError, TypeError, HydraException) as error:
        raise UserError(f"verl refuses this config: {' '.join(str(error).split())}") from error


def _check_ours(config: DictConfig) -> None:
    """Every option below ``iranker`` is one that there is: Hydra's ``+`` takes any, and nobody would read it."""
    for name, known in _unknown(config.iranker, _defaults(), "iranker"):
        group, _, option = name.rpartition(".")
        raise UserError(f"{group} has no option {option}: {', '.join(known)}")
    for name, made_of in _MADE_OF.items():
        try:
            made_of(**{k: v for k, v in (OmegaConf.select(config, name) or {}).items() if v is not None})
        except (TypeError, UserError) as error:
            raise UserError(f"{name}: {error}") from error


def _defaults() -> Any:
    return OmegaConf.to_container(OmegaConf.load(OURS), resolve=False)["iranker"]  # type: ignore[call-overload,index]


def _unknown(given: Any, default: Any, name: str) -> Iterator[tuple[str, list[str]]]:
    """The options of ``given`` that ``default`` has not, and what there is in their place."""
    if not isinstance(default, dict):
        return
    # the seed is iranker.seed
    known = [f.name for f in fields(_MADE_OF[name]) if f.name != "seed"] if name in _MADE_OF else list(default)
    for key in map(str, given or ()):
        if key not in known:
            yield f"{name}.{key}", known
        elif name not in _MADE_OF:
            yield from _unknown(given[key], default[key], f"{name}.{key}")


def _check_numbers(config: DictConfig) -> None:
    for name, least, optional in _COUNTS:
        value = OmegaConf.select(config, name)
        if not (value is None and optional) and (not _is_number(value, int) or value < least):
            raise UserError(f"{name}={value} has to be a whole number above {least - 1}{', or null' * optional}")
    for name, zero in _NUMBERS.items():
        value = OmegaConf.select(config, name)
        if not _is_number(value, int | float) or not (0 < value < math.inf or (zero and value == 0)):
            raise UserError(f"{name}={value} has to be a number, {'0 or more' if zero else 'above 0'}")
    for name in _SHARES:
        _check_share(config, f"iranker.curriculum.{name}")
    curriculum, balance = config.iranker.curriculum, config.iranker.credit.balance_sessions
    if curriculum.rise < curriculum.fall:
        raise UserError(
            f"iranker.curriculum.rise={curriculum.rise} is below iranker.curriculum.fall={curriculum.fall}: pools would grow "
            "where they should shrink"
        )
    if not isinstance(balance, bool):
        raise UserError(f"iranker.credit.balance_sessions={balance} has to be true or false")
    if config.iranker.base.make not in (None, "tiny"):
        raise UserError(f"iranker.base.make={config.iranker.base.make}: tiny, or null")


def _is_number(value: Any, kind: Any) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool)


def _check_data(config: DictConfig) -> None:
    """What is prepared, and whether its prompts and answers fit."""
    ours, data, rollout = config.iranker.data, config.data, config.actor_rollout_ref.rollout
    if config.iranker.curriculum.first_pool is not None and ours.options.rows == "states":
        raise UserError(
            "iranker.curriculum goes by the reciprocal ranks of whole episodes; with iranker.data.options.rows=states set "
            "iranker.curriculum.first_pool=null (states are of all pool sizes anyway)"
        )
    needed = data.max_prompt_length + data.max_response_length
    if rollout.max_model_len is not None and rollout.max_model_len < needed:
        raise UserError(
            f"actor_rollout_ref.rollout.max_model_len={rollout.max_model_len} is less than data.max_prompt_length + "
            f"data.max_response_length, {needed}: vLLM would refuse some prompts and cut some answers; raise it to {needed}"
        )


def _check_estimator(config: DictConfig) -> None:
    from verl.trainer.ppo.core_algos import ADV_ESTIMATOR_REGISTRY

    credit.register()
    estimator, normalise = config.algorithm.adv_estimator, config.iranker.credit.normalise
    if estimator not in ADV_ESTIMATOR_REGISTRY:
        raise UserError(f"algorithm.adv_estimator={estimator}: one of {', '.join(sorted(ADV_ESTIMATOR_REGISTRY))}")
    normalisers = credit.NORMALISERS.get(estimator, credit.NORMALISERS[credit.GRPO_ESTIMATOR])
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
    if estimator in credit.LABEL_ESTIMATORS:
        _check_label_estimator(config)
    # verl turns the critic on by itself for its own gae, unless it is told not to
    if (estimator == credit.GAE_ESTIMATOR and not config.critic.enable) or (
        estimator == "gae" and config.critic.enable is False
    ):
        raise UserError(f"algorithm.adv_estimator={estimator} needs a critic: set critic.enable=true")
    for name in ("gamma", "lam") if estimator == credit.GAE_ESTIMATOR else ():
        _check_share(config, f"algorithm.{name}")


def _check_batches(config: DictConfig, critic: bool) -> None:
    """Batches and mini-batches, which both count tasks, and the loss over them."""
    actor = config.actor_rollout_ref.actor
    if config.iranker.credit.balance_sessions and not actor.loss_agg_mode.startswith("seq-mean"):
        raise UserError(
            f"actor_rollout_ref.actor.loss_agg_mode={actor.loss_agg_mode} weighs rows by their tokens; sessions can be "
            "balanced with seq-mean-token-mean or seq-mean-token-sum only (or set iranker.credit.balance_sessions=false)"
        )
    roles = {"actor_rollout_ref.actor": actor} | ({"critic": config.critic} if critic else {})
    for name, role in roles.items():
        if config.data.train_batch_size % role.ppo_mini_batch_size:
            raise UserError(
                f"data.train_batch_size={config.data.train_batch_size} is not a multiple of {name}.ppo_mini_batch_size="
                f"{role.ppo_mini_batch_size} (both count tasks)"
            )


def _check_trainer(config: DictConfig) -> None:
    """What our trainer, which is verl's synchronous one of V1, works with. UserError with the option's name."""
    from verl.utils.tracking import Tracking

    for name, wanted in (("trainer.use_v1", (True, None)), ("trainer.v1.trainer_mode", ("sync",))):
        if (value := OmegaConf.select(config, name)) not in wanted:
            raise UserError(
                f"{name}={value}: elimination episodes are trained by verl's V1 trainer in mode sync; leave it out"
            )
    kept = config.actor_rollout_ref.actor.checkpoint.save_contents or ()
    if missing := [part for part in ("model", "hf_model") if part not in kept]:
        raise UserError(
            f"actor_rollout_ref.actor.checkpoint.save_contents={list(kept)} lacks {missing[0]}, which a run goes on from, or "
            "ends with; set it to [model,optimizer,extra,hf_model]"
        )
    for name in loggers(config):
        if name not in Tracking.supported_backend:
            raise UserError(f"trainer.logger={name}: of {', '.join(Tracking.supported_backend)}")
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


def loggers(config: DictConfig) -> list[Any]:
    """``trainer.logger``, which may be one name or a list of them."""
    given = config.trainer.logger
    return list(given) if OmegaConf.is_list(given) else [given]


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
            earned(form.answer(task, form.right(task))) > earned(form.answer(task, form.wrong(task)))
            for form in dialects(ranking)
        )
    except (TypeError, ValueError) as error:
        raise UserError(f"reward.custom_reward_function: {' '.join(str(error).split())}") from error
    except (Exception, SystemExit):  # whatever a stranger's function misses in an example
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


def _check_label_estimator(config: DictConfig) -> None:
    """Check what ``exclusion_expected`` and ``exclusion_order`` need. Raise UserError with the option's name."""
    estimator = config.algorithm.adv_estimator
    actor, model = config.actor_rollout_ref.actor, config.actor_rollout_ref.model
    template = load(config.iranker.template)
    if template.kind != "exclusion" or template.answer != "label" or "<think>" in repr(template):
        raise UserError(
            f"algorithm.adv_estimator={estimator} is for answers that are a label alone, and the template "
            f"{template.id} asks for others; take iranker.template=label, or exclusion_grpo"
        )
    if model.external_lib != ENGINE or model.use_remove_padding:
        raise UserError(
            f"algorithm.adv_estimator={estimator} reads all labels' log-probs: set "
            f"actor_rollout_ref.model.external_lib={ENGINE} and actor_rollout_ref.model.use_remove_padding=false"
        )
    if actor.policy_loss.loss_mode != "vanilla":
        raise UserError(
            f"actor_rollout_ref.actor.policy_loss.loss_mode={actor.policy_loss.loss_mode} weighs sampled answers; with "
            f"{estimator} take vanilla"
        )
    if model.use_fused_kernels:
        raise UserError(
            f"actor_rollout_ref.model.use_fused_kernels keeps the logits to itself, and {estimator} needs them; "
            "set it to false"
        )
    correction = config.algorithm.rollout_correction or {}
    for name in ("rollout_is", "rollout_rs"):
        if correction.get(name) is not None:
            raise UserError(
                f"algorithm.rollout_correction.{name} corrects for sampled labels, and {estimator} takes none; "
                "set it to null, or take exclusion_grpo"
            )
    if actor.use_kl_loss:
        raise UserError(
            f"actor_rollout_ref.actor.use_kl_loss has no log-prob of a sampled label with {estimator}; set it to "
            "false, or take exclusion_grpo"
        )
