"""What a recipe may say: values that verl takes, and cannot use or uses for nothing, are one line with the option's name.

Types and ranges are those of :mod:`iranker_verl.training.config.schema`; here is what several options have to be together.
"""

from __future__ import annotations

from typing import Any

from omegaconf import DictConfig, OmegaConf

from iranker_verl.errors import UserError
from iranker_verl.options import check_options
from iranker_verl.ranking import DATASETS
from iranker_verl.ranking.templates import load
from iranker_verl.training import credit
from iranker_verl.training.config.schema import Composed

# The module whose engine computes the log-probs of all labels.
ENGINE = "iranker_verl.training.answer_engine"
# verl's estimators whose baseline is the other rollouts of a task: with a single one they silently use the bare reward.
_NEED_ROLLOUTS = (
    *("grpo", "grpo_vectorized", "grpo_passk", "gdpo", "gpg"),
    *("rloo", "rloo_vectorized", "opo", "reinforce_plus_plus_baseline"),
)
# Whose classes ``_target_`` may name: verl instantiates it, so it is code.
_TARGETS = ("verl.", "iranker_verl.")


def check_values(config: DictConfig) -> None:
    """Raise UserError, with the option's name, for values that a run cannot use."""
    check_options(config, made_of=Composed)
    _check_targets(config)
    _check_datasets(config)
    _check_data(config)
    _check_trainer(config)
    _check_estimator(config)
    _check_batches(config)


def _check_targets(config: Any, name: str = "") -> None:
    """Raise UserError for a class outside verl: checking a config makes what it names."""
    for key in config if isinstance(config, DictConfig) else ():
        value: Any = OmegaConf.select(config, str(key), throw_on_missing=False)
        if key == "_target_" and not str(value).startswith(_TARGETS):
            raise UserError(f"{name}_target_={value}: only classes of verl; leave it out")
        if isinstance(value, DictConfig):
            _check_targets(value, f"{name}{key!s}.")


def _check_datasets(config: DictConfig) -> None:
    """Raise UserError for datasets that the embedded world has not, and for a zero-shot test on what is trained on."""
    ours = config.iranker.data
    trained, tested = list(ours.tasks or []), list(ours.test_tasks or [])
    if ours.raw is None and (unknown := [name for name in trained + tested if name not in DATASETS]):
        raise UserError(f"the embedded world has no {unknown[0]}; it has {', '.join(DATASETS)}")
    if tested and not trained:
        raise UserError("iranker.data.test_tasks is set, but not iranker.data.tasks; name what to train on as well")
    if both := [name for name in tested if name in trained]:
        raise UserError(
            f"{both[0]} is in iranker.data.tasks and in iranker.data.test_tasks; a zero-shot test is on datasets of "
            "scenarios that are not trained on"
        )


def _check_data(config: DictConfig) -> None:
    """Check what is prepared, and whether its prompts and answers fit."""
    ours, data, rollout = config.iranker.data, config.data, config.actor_rollout_ref.rollout
    curriculum = config.iranker.curriculum
    if curriculum.rise < curriculum.fall:
        raise UserError(
            f"iranker.curriculum.rise={curriculum.rise} is below iranker.curriculum.fall={curriculum.fall}: pools would grow "
            "where they should shrink"
        )
    if curriculum.first_pool is not None and ours.options.rows == "states":
        raise UserError(
            "iranker.curriculum goes by the reciprocal ranks of whole episodes; with iranker.data.options.rows=states set "
            "iranker.curriculum.first_pool=null (states are of all pool sizes anyway)"
        )
    if (buffer := config.iranker.credit.overlong) is not None and buffer >= data.max_response_length:
        raise UserError(
            f"iranker.credit.overlong={buffer} is not less than data.max_response_length={data.max_response_length}: responses of all "
            "lengths would lose reward"
        )
    needed = data.max_prompt_length + data.max_response_length
    if rollout.max_model_len is not None and rollout.max_model_len < needed:
        raise UserError(
            f"actor_rollout_ref.rollout.max_model_len={rollout.max_model_len} is less than data.max_prompt_length + "
            f"data.max_response_length, {needed}: vLLM would refuse some prompts and cut some answers; raise it to {needed}"
        )


def _check_trainer(config: DictConfig) -> None:
    """Check what our trainers, which are verl's of V1, work with. Raise UserError with the option's name."""
    from verl.utils.tracking import Tracking

    modes = ("sync", "colocate_async")
    for name, wanted in (("trainer.use_v1", (True, None)), ("trainer.v1.trainer_mode", modes)):
        if (value := OmegaConf.select(config, name)) not in wanted:
            raise UserError(
                f"{name}={value}: elimination episodes are trained by verl's V1 trainer in mode {' or '.join(modes)}; leave it out"
            )
    if config.trainer.v1.trainer_mode != "sync" and config.iranker.curriculum.first_pool is not None:
        raise UserError(
            "trainer.v1.trainer_mode=colocate_async draws tasks before the last step is known, which iranker.curriculum goes by: "
            "set iranker.curriculum.first_pool=null"
        )
    if config.reward.reward_model.enable and not config.reward.num_workers:
        raise UserError("reward.reward_model.enable=true needs workers that call it: set reward.num_workers=8")
    kept = config.actor_rollout_ref.actor.checkpoint.save_contents or ()
    if missing := [part for part in ("model", "optimizer", "extra") if part not in kept]:
        raise UserError(
            f"actor_rollout_ref.actor.checkpoint.save_contents={list(kept)} lacks {missing[0]}, which a run resumes from; set it to "
            "[model,optimizer,extra]"
        )
    for name in loggers(config):
        if name not in Tracking.supported_backend:
            raise UserError(f"trainer.logger={name}: of {', '.join(Tracking.supported_backend)}")
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
    """Return ``trainer.logger``, which may be one name or a list of them."""
    given = config.trainer.logger
    return list(given) if OmegaConf.is_list(given) else [given]


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
    if estimator == credit.SUPERVISED and config.trainer.nnodes > 1:
        raise UserError(
            f"algorithm.adv_estimator={estimator} trains on one machine (verl's SFT trainer, one process a GPU); set trainer.nnodes=1"
        )
    if estimator in credit.LABEL_ESTIMATORS:
        _check_label_estimator(config)
    # verl turns the critic on by itself for its own gae, unless it is told not to
    if (estimator == credit.GAE_ESTIMATOR and not config.critic.enable) or (
        estimator == "gae" and config.critic.enable is False
    ):
        raise UserError(f"algorithm.adv_estimator={estimator} needs a critic: set critic.enable=true")
    for name in ("gamma", "lam") if estimator == credit.GAE_ESTIMATOR else ():
        value = config.algorithm[name]
        if not isinstance(value, int | float) or not 0 <= value <= 1:
            raise UserError(f"algorithm.{name}={value} has to be a number, from 0 to 1")


def _check_label_estimator(config: DictConfig) -> None:
    """Check what ``exclusion_expected`` and ``exclusion_order`` need. Raise UserError with the option's name."""
    estimator = config.algorithm.adv_estimator
    actor, model = config.actor_rollout_ref.actor, config.actor_rollout_ref.model
    template = load(config.iranker.template)
    if not template.asks_for_a_label:
        raise UserError(
            f"algorithm.adv_estimator={estimator} is for answers that are a label alone, and the template "
            f"{template.id} asks for others; take iranker.template=label, or exclusion_grpo"
        )
    if model.external_lib != ENGINE or actor.ulysses_sequence_parallel_size > 1:
        raise UserError(
            f"algorithm.adv_estimator={estimator} reads all labels' log-probs: set actor_rollout_ref.model.external_lib={ENGINE} "
            "and actor_rollout_ref.actor.ulysses_sequence_parallel_size=1"
        )
    if actor.policy_loss.loss_mode != "vanilla":
        raise UserError(
            f"actor_rollout_ref.actor.policy_loss.loss_mode={actor.policy_loss.loss_mode} weighs sampled answers; with "
            f"{estimator} take vanilla"
        )
    if model.use_fused_kernels:
        raise UserError(
            f"actor_rollout_ref.model.use_fused_kernels hides the logits, which {estimator} needs; set it to false"
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


def _check_batches(config: DictConfig) -> None:
    """Check batches and mini-batches, which both count tasks, and the loss over them."""
    from verl.trainer.ppo.utils import need_critic

    actor = config.actor_rollout_ref.actor
    if config.iranker.credit.weights != "none" and not actor.loss_agg_mode.startswith("seq-mean"):
        raise UserError(
            f"actor_rollout_ref.actor.loss_agg_mode={actor.loss_agg_mode} weighs rows by their tokens; iranker.credit.weights="
            f"{config.iranker.credit.weights} goes with seq-mean-token-mean or seq-mean-token-sum only (or set it to none)"
        )
    roles = {"actor_rollout_ref.actor": actor} | ({"critic": config.critic} if need_critic(config) else {})
    for name, role in roles.items():
        if config.data.train_batch_size % role.ppo_mini_batch_size:
            raise UserError(
                f"data.train_batch_size={config.data.train_batch_size} is not a multiple of {name}.ppo_mini_batch_size="
                f"{role.ppo_mini_batch_size} (both count tasks)"
            )
    longest = config.data.max_prompt_length + config.data.max_response_length
    policy = config.actor_rollout_ref
    for name, by_tokens, most in (
        ("actor_rollout_ref.actor.ppo", actor.use_dynamic_bsz, actor.ppo_max_token_len_per_gpu),
        *(
            (
                f"actor_rollout_ref.{role}.log_prob",
                policy[role].log_prob_use_dynamic_bsz,
                policy[role].log_prob_max_token_len_per_gpu,
            )
            for role in ("rollout", "ref")
        ),
        ("critic.ppo_infer", True, config.critic.ppo_infer_max_token_len_per_gpu),
    ):
        if by_tokens and most < longest:
            raise UserError(
                f"{name}_max_token_len_per_gpu={most} is less than data.max_prompt_length + data.max_response_length, {longest}: "
                f"a micro-batch has at least one row; raise it to {longest} or more"
            )
    attention = (policy.model.override_config or {}).get("attn_implementation")
    if actor.ulysses_sequence_parallel_size > 1 and attention == "packed":
        raise UserError(
            "actor_rollout_ref.actor.ulysses_sequence_parallel_size above 1 needs flash-attn: set "
            "actor_rollout_ref.model.override_config.attn_implementation=flash_attention_2, or leave the size at 1"
        )
