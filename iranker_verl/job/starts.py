"""The starts of a run: which settings may change from one to the next, and what is kept of each in ``run.json``.

``made_of``  the settings in force, flat, with the run's folder written as ``RUN``
``hash``     of those that change the result
``starts``   one entry a start: its time, the step that it went on from, and what had changed (name to before and now)
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from iranker_verl import provenance
from iranker_verl.errors import NOT_JSON, UserError
from iranker_verl.files import write_json, write_text
from iranker_verl.provenance import Difference

RUN = "RUN"
# Options that may change between starts, by pattern, with the reason. Any other difference is refused.
MAY_CHANGE: dict[str, tuple[str, ...]] = {
    "names and places": (
        *(
            "iranker.run_dir",
            "iranker.base.cache",
            "iranker.gpu_memory",
            "trainer.project_name",
            "trainer.experiment_name",
        ),
        *("actor_rollout_ref.rollout.prometheus.*", "actor_rollout_ref.rollout.trace.*"),
    ),
    "what is saved, validated, logged and profiled, and how often": (
        *("trainer.save_freq", "trainer.max_actor_ckpt_to_keep", "trainer.max_critic_ckpt_to_keep"),
        *("*.checkpoint.save_contents", "*.checkpoint.load_contents"),
        *("trainer.test_freq", "trainer.val_before_train", "data.val_max_samples", "data.val_batch_size"),
        *("trainer.logger", "trainer.log_val_generations", "trainer.rollout_data_dir", "trainer.validation_data_dir"),
        *("global_profiler.*", "*.profiler.*"),
    ),
    "where weights, gradients and activations are kept; what is computed again": (
        *("*.param_offload", "*.optimizer_offload", "*.offload_policy", "*.reshard_after_forward"),
        *("*.forward_prefetch", "*.enable_gradient_checkpointing", "*.enable_activation_offload"),
        *("*.entropy_checkpointing", "*.entropy_from_logits_with_chunking", "*.entropy_from_logits_chunk_size"),
    ),
    "how the rows of an optimiser step are split to be computed": (
        *("*.ppo_micro_batch_size", "*.ppo_micro_batch_size_per_gpu", "*.ppo_max_token_len_per_gpu"),
        *("*.log_prob_micro_batch_size", "*.log_prob_micro_batch_size_per_gpu", "*.log_prob_max_token_len_per_gpu"),
        *("*.forward_micro_batch_size", "*.forward_micro_batch_size_per_gpu", "*.forward_max_token_len_per_gpu"),
        *("*.use_dynamic_bsz", "*.log_prob_use_dynamic_bsz", "*.use_remove_padding", "*.attn_implementation"),
    ),
    "the number of GPUs, among which the same rows are shared": (*("*.n_gpus_per_node", "*.nnodes", "*.fsdp_size"),),
    "memory and scheduling of vLLM, which answers the same": tuple(
        f"actor_rollout_ref.rollout.{name}"
        for name in (
            *("gpu_memory_utilization", "free_cache_engine", "enforce_eager", "cudagraph_capture_sizes"),
            *("max_num_batched_tokens", "max_num_seqs", "max_model_len", "tensor_model_parallel_size"),
            *("enable_chunked_prefill", "enable_prefix_caching", "scheduling_policy", "enable_sleep_mode"),
            *("disable_log_stats", "multi_stage_wake_up", "layered_summon", "agent.num_workers"),
        )
    ),
    "Ray, queues, deadlines and restarts": (
        *(
            "iranker.max_restarts",
            "ray_kwargs.*",
            "transfer_queue.*",
            "trainer.ray_wait_register_center_timeout",
            "reward.num_workers",
        ),
        *("actor_rollout_ref.nccl_timeout", "trainer.v1.sampler.sampler_kwargs.*"),
    ),
}
_PATTERNS = tuple(pattern for patterns in MAY_CHANGE.values() for pattern in patterns)
# Options that may grow (null: without limit), since what is done already is the beginning of the longer run.
LENGTHS = ("trainer.total_training_steps", "trainer.total_epochs", "iranker.token_budget")
STEPS, _, TOKENS = LENGTHS
_PATHS = ("iranker.data.raw", "actor_rollout_ref.model.path", "critic.model.path")
_WAY_OUT = "choose another folder with RUN=… (iranker.run_dir=…), or remove that one"


def may_change(name: str) -> bool:
    """Return whether an option may have another value at the next start of a run."""
    return any(fnmatchcase(name, pattern) for pattern in _PATTERNS)


def settings(config: DictConfig) -> dict[str, Any]:
    """Return the resolved config, flat. Options of ours come first, as differences of verl's mostly follow from them."""
    content: Any = OmegaConf.to_container(config, resolve=True)
    flat = provenance.flatten({"iranker": content.pop("iranker")} | content)
    return _placed(flat, str(flat["iranker.run_dir"]))


def _placed(flat: Mapping[str, Any], run: str) -> dict[str, Any]:
    """Return settings without the present folder: paths in the run's folder begin with ``RUN``, others with ``/``."""
    placed = {
        name: RUN + value[len(run) :] if isinstance(value, str) and f"{value}/".startswith(f"{run}/") else value
        for name, value in flat.items()
    }
    for name in _PATHS:
        if (path := placed.get(name)) and Path(path).exists():
            placed[name] = str(Path(path).resolve())
    return placed


def result_hash(made_of: Mapping[str, Any]) -> str:
    """Return the hash of the settings that change the result."""
    return provenance.digest({name: value for name, value in made_of.items() if not may_change(name)})


def check_changes(before: Mapping[str, Any], now: Mapping[str, Any], holder: str, step: int) -> list[Difference]:
    """Return what has changed since the last start. Raise UserError for what may not: it changes the result.

    Args:
        before: :func:`settings` of the last start.
        now: those of this one.
        holder: the beginning of the message.
        step: the RL step of the last checkpoint.
    """
    changed = provenance.differences(before, now)
    fixed = [one.name for one in changed if not may_change(one.name) and one.name not in LENGTHS]
    provenance.require_same(before, now, holder, _WAY_OUT, names=fixed)
    for one in changed:
        if one.name not in LENGTHS:
            continue
        if not (grows(one) or (one.name == STEPS and one.now is not None and one.now >= step)):
            raise UserError(f"{holder} of {step} steps; {one}: it may only grow; {_WAY_OUT}")
        if schedule := _schedule(now):
            raise UserError(f"{holder}; {one}, on which {schedule} depends; {_WAY_OUT}")
    return changed


def grows(one: Difference) -> bool:
    """Return whether a length has grown; null is without limit."""
    return one.now is None or (one.before is not None and one.now >= one.before)


def _schedule(now: Mapping[str, Any]) -> str | None:
    """Return the option by which a learning rate depends on the number of steps; None where it is constant."""
    for optim in ("actor_rollout_ref.actor.optim", "critic.optim"):
        if now.get(f"{optim}.lr_scheduler_type", "constant") != "constant":
            return f"{optim}.lr_scheduler_type"
        if now.get(f"{optim}.lr_warmup_steps_ratio"):
            return f"{optim}.lr_warmup_steps_ratio"
    return None


def goes_further(before: Mapping[str, Any], changed: list[Difference], step: int) -> bool:
    """Return whether a run whose training had ended at ``step`` has more to train: what ended it has grown."""
    ended_by_steps = before.get(TOKENS) is None or before.get(STEPS) == step
    return any(
        grows(one) and (one.name == TOKENS) != ended_by_steps
        for one in changed
        if one.name in LENGTHS and one.before is not None
    )


def last_start(run: Path) -> dict[str, Any]:
    """Return ``run.json``, with paths as :func:`settings` writes them. Raise UserError for one of an earlier version."""
    try:
        content: dict[str, Any] = json.loads((run / "run.json").read_text(encoding="utf-8"))
        content["made_of"] = _placed(content["made_of"], str(content["made_of"].get("iranker.run_dir", run)))
        return content
    except (*NOT_JSON, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{run} holds a run of an earlier version of iranker; {_WAY_OUT}") from error


def read_config(run: Path) -> DictConfig:
    """Return the config in force of the run in a folder (:func:`write_start`). Raise UserError where there is no run."""
    path = run / "config.yaml"
    if not path.is_file():
        raise UserError(f"{run}: no config.yaml; this is no folder of `iranker train`")
    config = OmegaConf.load(path)
    assert isinstance(config, DictConfig)
    return config


def write_start(
    config: DictConfig, run: Path, starts: list[dict[str, Any]], changed: list[Difference], step: int
) -> None:
    """Write ``run.json`` and ``config.yaml``, the config in force; say in one line what has changed."""
    now = settings(config)
    told = [one for one in changed if one.name != "iranker.run_dir"]
    if told:
        more = f", and {len(told) - 3} more" if len(told) > 3 else ""
        print(f"{'run':>9}  continues with other settings: {'; '.join(map(str, told[:3]))}{more}", flush=True)
    start = {
        "time": time.strftime("%Y-%m-%d %H:%M:%S"),
        "step": step,
        "changed": {one.name: [one.before, one.now] for one in told},
    }
    write_json(run / "run.json", {"made_of": now, "hash": result_hash(now), "starts": [*starts, start]})
    resolved = OmegaConf.create(OmegaConf.to_container(config, resolve=True))
    write_text(run / "config.yaml", OmegaConf.to_yaml(resolved))
