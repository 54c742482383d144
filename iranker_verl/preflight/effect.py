"""What a person has named has an effect, or is refused with the option that has.

Three kinds have none: keys of verl's earlier reward configuration (found by verl's own migration), options that nothing reads
(:mod:`.reads`), and options of a mode that is off (:func:`off`).
"""

from __future__ import annotations

import ast
import dataclasses
import difflib
import inspect
import os
import sys
import textwrap
import warnings
from collections.abc import Collection, Iterator
from copy import deepcopy
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict

from iranker_verl.errors import UserError
from iranker_verl.preflight.reads import is_read, names_variable, owner_of
from iranker_verl.provenance import flatten
from iranker_verl.training import credit

LEGACY = ("custom_reward_function", "reward_model", "sandbox_fusion")
# Groups whose options verl hands on whole, to Ray, vLLM, transformers, a reward function, a sampler or an optimizer.
HANDED_ON = (
    *("ray_kwargs.ray_init", "reward.custom_reward_function.reward_kwargs", "reward.reward_kwargs"),
    *("actor_rollout_ref.model.override_config", "critic.model.override_config", "data.apply_chat_template_kwargs"),
    *(
        "actor_rollout_ref.rollout.engine_kwargs",
        "actor_rollout_ref.rollout.custom",
    ),
    *("actor_rollout_ref.actor.optim.override_optimizer_config", "critic.optim.override_optimizer_config"),
    *("global_profiler.global_tool_config", "iranker", "transfer_queue"),
)
# Names that verl's own defaults lists read.
CHOICES = ("model_engine",)
# Groups and options of the actor that supervision has of it (training/supervised.py).
SUPERVISED_READS = (
    *("optim", "fsdp_config", "strategy", "checkpoint", "profiler"),
    *("use_dynamic_bsz", "ppo_max_token_len_per_gpu", "ppo_micro_batch_size_per_gpu"),
)
# Options of the critic that verl's V1 trainer does not hand to its engine (trainer_base.py, EngineConfig.use_dynamic_bsz).
_OF_CRITICS_BATCHES = (
    *("use_dynamic_bsz", "ppo_micro_batch_size", "ppo_micro_batch_size_per_gpu", "ppo_max_token_len_per_gpu"),
    "forward_max_token_len_per_gpu",
)


def check_effect(config: DictConfig, named: Collection[str]) -> None:
    """Raise UserError for the first of the options ``named`` that has no effect on this recipe."""
    _check_legacy(config)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # verl says that there is no critic
        modes = list(off(config))
    for name in named:
        value = OmegaConf.select(config, name)
        if value is None or name in CHOICES:
            continue
        # a recipe's own option, where a person has exchanged the recipe's base for a model
        if name == "iranker.base.effort" and "iranker.base.make" in named:
            continue
        for option, why in modes:
            if name == option or (option.endswith(".") and name.startswith(option)):
                raise UserError(f"{name}={value} has no effect: {why}")
        _check_gates(config, name, value)
        _check_read(config, name, value)
    _check_environment()


def _check_environment() -> None:
    """Raise UserError for a variable ``IRANKER_…`` that nothing reads.

    For one of verl's it is a warning: images and scripts around verl set some that verl itself does not read.
    """
    for name in sorted(os.environ):
        if name.startswith("IRANKER_") and not names_variable("iranker_verl", name):
            raise UserError(f"the environment variable {name} has no effect: nothing here reads it; unset it")
        if name.startswith("VERL_") and not names_variable("verl", name):
            about = f"the environment variable {name} has no effect: nothing in verl {version('verl')} reads it"
            print(f"warning: {about}", file=sys.stderr)


def _check_legacy(config: DictConfig) -> None:
    """Raise UserError for a key of verl's earlier reward configuration, with what verl's migration makes of it."""
    plain: Any = OmegaConf.to_container(config)
    named = flatten({group: plain[group] for group in LEGACY if group in config})
    asked = {name: value for name, value in named.items() if value is not None}
    if not asked:
        return
    from verl.experimental.reward_loop import migrate_legacy_reward_impl

    migrated = deepcopy(config)
    with open_dict(migrated):
        migrate_legacy_reward_impl(migrated)
    before, after = (flatten({"reward": OmegaConf.to_container(one.reward)}) for one in (config, migrated))
    for name, value in asked.items():
        last = name.rsplit(".", 1)[-1]
        new = [key for key, now in after.items() if now == value and before.get(key) != now]
        new.sort(key=lambda key: difflib.SequenceMatcher(None, key, last).ratio(), reverse=True)
        way_out = f"set {new[0]}={value}" if new else "its options are under reward now"
        raise UserError(f"{name}={value} has no effect: verl {version('verl')} reads another option; {way_out}")


def _check_gates(config: DictConfig, name: str, value: Any) -> None:
    """Raise UserError where a group that the option is in is switched off."""
    parts = name.split(".")
    for end in range(1, len(parts)):
        group = ".".join(parts[:end])
        for switch in ("enable", "enabled"):
            node = OmegaConf.select(config, group)
            if not isinstance(node, DictConfig) or parts[end] == switch or group == "transfer_queue":
                continue
            if node.get(switch) is False:
                raise UserError(
                    f"{name}={value} has no effect: {group}.{switch} is false; set {group}.{switch}=true, or leave it out"
                )


def _check_read(config: DictConfig, name: str, value: Any) -> None:
    """Raise UserError for an option that nothing reads."""
    if name.endswith("._target_") or name.startswith(tuple(f"{group}." for group in HANDED_ON)) or name in HANDED_ON:
        return
    group, _, last = name.rpartition(".")
    owner = owner_of(OmegaConf.select(config, group) if group else None)
    added = name not in _names_of_verl()
    if added and owner and last not in (fields := [field.name for field in dataclasses.fields(owner)]):
        near = difflib.get_close_matches(last, fields, n=1)
        raise UserError(f"{group} has no option {last}{f'; {near[0]} is the nearest' if near else ''}")
    if is_read(last, owner, group=(group.rpartition(".")[2] or "config") if added and owner is None else None):
        return
    words = set(last.split("_"))
    same = [other for other in _names_of_verl() if set(other.rsplit(".", 1)[-1].split("_")) == words and other != name]
    near = difflib.get_close_matches(name, same, n=1, cutoff=0) or difflib.get_close_matches(
        name, [other for other in _names_of_verl() if other.startswith(f"{group}.")] if added else [], n=1, cutoff=0.8
    )
    way_out = f"{near[0]} is what has; set that" if near else "leave it out"
    raise UserError(f"{name}={value} has no effect: nothing in verl {version('verl')} reads it here; {way_out}")


@cache
def _names_of_verl() -> list[str]:
    """Return the names of all options of verl's own config, which verl keeps composed in one file."""
    import verl

    composed = OmegaConf.load(Path(verl.__file__).parent / "trainer" / "config" / "_generated_ppo_trainer.yaml")
    return list(flatten(OmegaConf.to_container(composed)))  # type: ignore[arg-type]


def off(config: DictConfig) -> Iterator[tuple[str, str]]:
    """Yield the options, and the groups (``name.``), of modes that are off in ``config``, each with why and what to do.

    Reviewed against verl 0.9.1.
    """
    from verl.trainer.ppo.utils import need_critic, need_reference_policy

    ours, algorithm, trainer = config.iranker, config.algorithm, config.trainer
    policy, estimator = config.actor_rollout_ref, config.algorithm.adv_estimator
    if not need_critic(config):
        for group in [name for name in config.critic if name != "enable"]:
            why = (
                f"there is no critic with algorithm.adv_estimator={estimator}; leave it out, or set critic.enable=true"
            )
            yield from _both(f"critic.{group}", why)
    if not need_reference_policy(config):
        yield (
            "actor_rollout_ref.ref.",
            "there is no reference policy; set actor_rollout_ref.actor.use_kl_loss=true, or leave it out",
        )
    if estimator == credit.SUPERVISED:
        yield from _off_by_supervision(config)
    elif ours.data.traces is not None:
        yield "iranker.data.traces", f"it is for algorithm.adv_estimator={credit.SUPERVISED}; leave it out"
    if not algorithm.use_kl_in_reward:
        why = "algorithm.use_kl_in_reward is false; the KL loss has actor_rollout_ref.actor.kl_loss_coef"
        yield from (("algorithm.kl_ctrl.", why), ("algorithm.kl_penalty", why))
    if not policy.actor.use_kl_loss:
        for name in ("kl_loss_coef", "kl_loss_type"):
            yield (
                f"actor_rollout_ref.actor.{name}",
                "actor_rollout_ref.actor.use_kl_loss is false; set it to true, or leave it out",
            )
    if policy.actor.policy_loss.loss_mode == "vanilla" and None not in (
        policy.actor.clip_ratio_low,
        policy.actor.clip_ratio_high,
    ):
        why = "clip_ratio_low and clip_ratio_high are what is read; set actor_rollout_ref.actor.clip_ratio_low and clip_ratio_high"
        yield "actor_rollout_ref.actor.clip_ratio", why
    read = _read_by(estimator)
    for name in ("gamma", "lam", "norm_adv_by_std_in_grpo"):
        if name not in read:
            yield f"algorithm.{name}", f"algorithm.adv_estimator={estimator} does not read it; leave it out"
    for name, read_by in (("prior", (credit.GRPO_ESTIMATOR,)), ("normalise", tuple(credit.NORMALISERS))):
        if estimator not in read_by:
            yield f"iranker.credit.{name}", f"it is for {', '.join(read_by)}, not for {estimator}; leave it out"
    if estimator != credit.ORDER_ESTIMATOR:
        yield "iranker.one_call", f"it is for {credit.ORDER_ESTIMATOR}, not for {estimator}; leave it out"
    if estimator != credit.GRPO_ESTIMATOR:
        yield "iranker.branch", f"it is for {credit.GRPO_ESTIMATOR}, not for {estimator}; leave it out"
    if estimator in credit.LABEL_ESTIMATORS:
        yield "iranker.credit.overlong", f"{estimator} takes the rewards of labels, not of responses; leave it out"
    if estimator in credit.ESTIMATORS or estimator == "gae":
        yield "iranker.credit.session_reward", f"{estimator} takes the reward of every exclusion; leave it out"
    yield from _off_by_size(policy)
    for name in _OF_CRITICS_BATCHES:
        why = "verl's critic takes micro-batches of at most critic.ppo_infer_max_token_len_per_gpu tokens; set that"
        yield f"critic.{name}", why
    for name in ("param_offload", "offload_policy"):
        if not policy.ref.fsdp_config[name]:
            why = "verl keeps the reference policy on the host whatever is set; leave it out"
            yield f"actor_rollout_ref.ref.fsdp_config.{name}", why
    if not policy.model.lora_rank and not policy.model.lora.get("rank", 0):
        for name in ("lora_alpha", "target_modules", "exclude_modules", "lora."):
            yield f"actor_rollout_ref.model.{name}", "actor_rollout_ref.model.lora_rank is 0; set it, or leave this out"
    for engine in policy.rollout.engine_kwargs:
        if engine != policy.rollout.name:
            why = f"actor_rollout_ref.rollout.name is {policy.rollout.name}; leave it out"
            yield f"actor_rollout_ref.rollout.engine_kwargs.{engine}.", why
    mode = trainer.v1.trainer_mode
    for other in {"colocate_async", "separate_async"} - {mode}:
        yield f"trainer.v1.{other}.", f"trainer.v1.trainer_mode is {mode}; leave it out"
    for name in ("max_off_policy_threshold", "max_off_policy_strategy") if mode == "sync" else ():
        yield f"trainer.v1.sampler.{name}", "trainer.v1.trainer_mode is sync, on policy; leave it out"
    if trainer.v1.sampler.custom_sampler.get("path"):
        why = "trainer.v1.sampler.custom_sampler is set, and verl hands it to its own sampler only; leave it out"
        yield from (("trainer.v1.sampler.sync_refill_failed_groups", why), ("algorithm.filter_groups.", why))
    yield from (
        ("skip.rollout.", "it is for verl's V0 trainer; leave it out"),
        ("transfer_queue.enable", "it is always on"),
    )
    if trainer.resume_mode != "resume_path":
        yield "trainer.resume_from_path", "trainer.resume_mode is not resume_path; set it, or leave this out"
    if trainer.test_freq < 1 and not trainer.val_before_train:
        why = (
            "nothing is validated with trainer.test_freq=-1; set trainer.test_freq to so many steps, or leave this out"
        )
        for name in (
            "data.val_max_samples",
            "data.val_batch_size",
            "trainer.validation_data_dir",
            "trainer.log_val_generations",
        ):
            yield name, why
        yield "actor_rollout_ref.rollout.val_kwargs.", why
    if ours.base.make is not None:
        why = f"iranker.base.make={ours.base.make} makes its own base; set iranker.base.make=null to start from this model"
        yield "actor_rollout_ref.model.path", why
    else:
        yield "iranker.base.effort", "no base is made (iranker.base.make=null); leave it out"
    if "${per_hour:" not in repr(OmegaConf.to_container(config)):
        yield "iranker.minutes", "the recipe sets nothing by the time that there is (${per_hour:…}); leave it out"
    if ours.curriculum.first_pool is None:
        for name in ("rise", "fall", "patience", "focus"):
            yield (
                f"iranker.curriculum.{name}",
                "there is no curriculum; set iranker.curriculum.first_pool, or leave it out",
            )
    if ours.data.raw is not None:
        yield (
            "iranker.data.world.",
            "iranker.data.raw is set, so the embedded world is not used; leave one of the two out",
        )


def _off_by_supervision(config: DictConfig) -> Iterator[tuple[str, str]]:
    """Yield what supervision, which rolls nothing out, does not read."""
    why = f"algorithm.adv_estimator={credit.SUPERVISED} teaches worked answers and rolls nothing out; leave it out"
    actor, taken = "actor_rollout_ref.actor", set(SUPERVISED_READS)
    for group in (
        "iranker.credit",
        "iranker.curriculum",
        "actor_rollout_ref.rollout",
        "actor_rollout_ref.ref",
        "reward",
    ):
        yield f"{group}.", why
    for name in ("iranker.token_budget", "iranker.one_call", "trainer.test_freq", "trainer.val_before_train"):
        yield name, why
    for name in (f"algorithm.{key}" for key in config.algorithm if key != "adv_estimator"):
        yield from _both(name, why)
    for name in (f"{actor}.{key}" for key in config.actor_rollout_ref.actor if key not in taken):
        yield from _both(name, why)


def _both(name: str, why: str) -> Iterator[tuple[str, str]]:
    yield from ((name, why), (f"{name}.", why))


def _off_by_size(policy: DictConfig) -> Iterator[tuple[str, str]]:
    """Yield batch sizes in rows where batches are made by tokens, and the other way round."""
    for group, switch, of in (
        ("actor_rollout_ref.actor.ppo", "use_dynamic_bsz", policy.actor),
        ("actor_rollout_ref.rollout.log_prob", "log_prob_use_dynamic_bsz", policy.rollout),
        ("actor_rollout_ref.ref.log_prob", "log_prob_use_dynamic_bsz", policy.ref),
    ):
        name = "micro_batch_size_per_gpu" if of[switch] else "max_token_len_per_gpu"
        where = group.rpartition(".")[0]
        yield (
            f"{group}_{name}",
            f"{where}.{switch} is {str(of[switch]).lower()}; set it the other way, or leave this out",
        )


def _read_by(estimator: str) -> set[str]:
    """Return the names in an advantage estimator of verl's registry; of ours, those of its options."""
    from verl.trainer.ppo.core_algos import ADV_ESTIMATOR_REGISTRY

    if estimator in credit.ESTIMATORS:
        return {"gamma", "lam"} if estimator == credit.GAE_ESTIMATOR else set()
    tree = ast.parse(textwrap.dedent(inspect.getsource(ADV_ESTIMATOR_REGISTRY[estimator])))
    nodes = [node for node in ast.walk(tree) if isinstance(node, ast.Name | ast.Constant)]
    return {str(node.id if isinstance(node, ast.Name) else node.value) for node in nodes}
