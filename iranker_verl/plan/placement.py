"""What a composed recipe says of devices, models, sharding, offload and batches, as :mod:`.memory` and :mod:`.duration` count."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import torch
from omegaconf import DictConfig

from data_prep.options import Options
from iranker_verl.errors import UserError
from iranker_verl.plan.peak import Batch
from iranker_verl.plan.shape import Shape, find_config
from iranker_verl.preflight.recipe import ENGINE
from iranker_verl.training.checkpoints import has_critic
from iranker_verl.training.credit import SUPERVISED

# Tensors of the size of the weights that an optimiser keeps.
STATES = {"AdamW": 2, "Adam": 2, "SGD": 0}
DTYPES = {"fp32": torch.float32, "float32": torch.float32, "bf16": torch.bfloat16, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class Machine:
    """Devices: GPUs of ``memory`` bytes, or one CPU."""

    nodes: int
    per_node: int
    memory: int
    cpu: bool = False

    @property
    def devices(self) -> int:
        """Return the number of all devices."""
        return self.nodes * self.per_node


@dataclass(frozen=True)
class Role:
    """A model that trains or scores: its shape, how its weights are kept, and its micro-batches.

    Attributes:
        name: actor, critic or reference.
        shape: the model.
        stored: bytes of a weight as it is kept.
        dtype: what it computes in.
        reduced: bytes of a gradient while ranks sum it.
        shards: ranks that share one copy of the weights.
        states: tensors that the optimiser keeps for each weight; None: it does not learn.
        offload_weights: weights (and gradients) wait on the host between passes.
        offload_states: the optimiser's tensors wait there.
        stays_on_host: all of them are on the host always (FSDP2's CPUOffloadPolicy), and layers come to the GPU in turn.
        checkpointing: layers are computed again for backward.
        train: micro-batch of an update; None where it does not learn.
        score: micro-batch of a pass without gradients; None where it has none (supervision).
        save_contents: what a checkpoint holds of it.
    """

    name: str
    shape: Shape
    stored: int
    dtype: torch.dtype
    reduced: int
    shards: int
    states: int | None
    offload_weights: bool
    offload_states: bool
    stays_on_host: bool
    checkpointing: bool
    train: Batch | None
    score: Batch | None
    save_contents: tuple[str, ...] = ()

    @property
    def computed(self) -> int:
        """Return the bytes of a number in what it computes in."""
        return self.dtype.itemsize


def machine_of(config: DictConfig) -> Machine:
    """Return the devices that a recipe asks for."""
    trainer = config.trainer
    memory = int(float(config.iranker.gpu_memory) * 2**30)
    return Machine(int(trainer.nnodes), int(trainer.n_gpus_per_node), memory, cpu=trainer.device == "cpu")


def supervised(config: DictConfig) -> bool:
    """Return whether a recipe learns given answers: it generates nothing, and has no log-probs, reference or critic."""
    return bool(config.algorithm.adv_estimator == SUPERVISED)


def shape_of(config: DictConfig) -> Shape:
    """Return the shape of the policy's model. Raise UserError where it is not known."""
    model = config.actor_rollout_ref.model
    make = config.iranker.base.make
    described = find_config(str(model.path)) if make is None else _made(str(make))
    if model.get("lora", {}).get("rank", 0):
        raise UserError("actor_rollout_ref.model.lora is another engine's; set actor_rollout_ref.model.lora_rank")
    return Shape.of(described, lora_rank=int(model.lora_rank))


def _made(name: str) -> dict[str, Any]:
    """Return the ``config.json`` of a base that a run makes (:mod:`iranker_verl.toy`), with its largest vocabulary."""
    from iranker_verl.toy.base import architecture
    from iranker_verl.toy.real import BASES

    sizes = BASES[name]
    return {"model_type": "qwen2", **architecture(sizes, sizes.vocab + sizes.titles)}


def roles_of(config: DictConfig) -> list[Role]:
    """Return the models of a recipe: the actor, then a critic and a reference as far as it has them."""
    from verl.trainer.ppo.utils import need_reference_policy

    made = [_actor(config)]
    if supervised(config):
        return made
    if has_critic(config):
        made.append(_critic(config))
    # of a policy with an adapter, the reference is the policy without it
    if need_reference_policy(config) and not made[0].shape.lora_rank:
        made.append(_reference(config))
    return made


def _actor(config: DictConfig) -> Role:
    policy, actor = config.actor_rollout_ref, config.actor_rollout_ref.actor
    rollout = policy.rollout
    update = (actor.use_dynamic_bsz, actor.ppo_micro_batch_size_per_gpu, actor.ppo_max_token_len_per_gpu)
    scores = (
        rollout.log_prob_use_dynamic_bsz,
        rollout.log_prob_micro_batch_size_per_gpu,
        rollout.log_prob_max_token_len_per_gpu,
    )
    return Role(
        name="actor",
        shape=shape_of(config),
        checkpointing=bool(policy.model.enable_gradient_checkpointing),
        train=_batch(config, policy.model, *update),
        score=None if supervised(config) else _batch(config, policy.model, *scores),
        save_contents=tuple(actor.checkpoint.save_contents),
        **_engine(config, actor.fsdp_config, actor.optim),
    )


def _critic(config: DictConfig) -> Role:
    critic, base = config.critic, config.actor_rollout_ref.model.path
    described = (
        shape_of(config).config if critic.model.path == base else json.dumps(find_config(str(critic.model.path)))
    )
    batch = _batch(config, critic.model, True, None, critic.ppo_infer_max_token_len_per_gpu)
    return Role(
        name="critic",
        shape=Shape(described, value=True),
        checkpointing=bool(critic.model.enable_gradient_checkpointing),
        train=batch,
        score=batch,
        save_contents=tuple(critic.checkpoint.save_contents),
        **_engine(config, critic.fsdp, critic.optim),
    )


def _reference(config: DictConfig) -> Role:
    policy, ref = config.actor_rollout_ref, config.actor_rollout_ref.ref
    scores = (ref.log_prob_use_dynamic_bsz, ref.log_prob_micro_batch_size_per_gpu, ref.log_prob_max_token_len_per_gpu)
    return Role(
        name="reference",
        shape=shape_of(config),
        checkpointing=False,
        train=None,
        score=_batch(config, policy.model, *scores),
        **_engine(config, ref.fsdp_config, None),
    )


def _engine(config: DictConfig, engine: DictConfig, optimiser: DictConfig | None) -> dict[str, Any]:
    """Return the fields of a role that are its engine's: types, shards, and what is on the host."""
    machine, mixed, size = machine_of(config), engine.get("mixed_precision") or {}, int(engine.fsdp_size)
    return {
        "stored": _dtype(engine.model_dtype or "fp32").itemsize,
        "dtype": _dtype(mixed.get("param_dtype", "bf16")),
        "reduced": _dtype(mixed.get("reduce_dtype", "fp32")).itemsize,
        "shards": machine.devices if size < 0 or size >= machine.devices else size,
        "states": None if optimiser is None else STATES.get(str(optimiser.optimizer), 2),
        "offload_weights": bool(engine.param_offload),
        "offload_states": bool(engine.optimizer_offload),
        "stays_on_host": bool(engine.offload_policy or engine.forward_only) and not machine.cpu,
    }


def _dtype(name: Any) -> torch.dtype:
    if str(name) not in DTYPES:
        raise UserError(f"weights of type {name} cannot be planned; one of {', '.join(DTYPES)}")
    return DTYPES[str(name)]


def _batch(config: DictConfig, model: DictConfig, dynamic: bool, rows: int | None, tokens: int | None) -> Batch:
    """Return the micro-batch that takes most, of ``rows`` rows or with ``dynamic`` of ``tokens`` tokens.

    Rows are as long as they may be. Of a budget of tokens, more are of answers where prompts are short: half as long as they
    may be, here.
    """
    prompt, answer = int(config.data.max_prompt_length), int(config.data.max_response_length)
    longest = prompt + answer
    if dynamic:
        total = int(tokens or 0)
        taken, answers = max(1, total // longest), total * answer // (prompt // 2 + answer)
    else:
        taken = int(rows or 1)
        total, answers = taken * longest, taken * answer
    packed = bool(model.use_remove_padding)
    if config.actor_rollout_ref.model.external_lib != ENGINE:
        answers = total  # verl's own engine takes the logits of prompts as well
    return (
        Batch(rows=1, length=total, answers=answers) if packed else Batch(rows=taken, length=longest, answers=answers)
    )


@dataclass(frozen=True)
class Engine:
    """vLLM as a recipe sets it: replicas of ``parallel`` GPUs each."""

    replicas: int
    parallel: int
    share: float
    sequences: int
    batched_tokens: int
    longest: int
    graphs: bool
    sleeps: bool
    bucket: int


def engine_of(config: DictConfig) -> Engine | None:
    """Return what a recipe sets for vLLM, None where it generates nothing. Raise UserError where its GPUs cannot be shared out."""
    if supervised(config):
        return None
    rollout, machine = config.actor_rollout_ref.rollout, machine_of(config)
    parallel = int(rollout.tensor_model_parallel_size) * int(rollout.pipeline_model_parallel_size)
    if machine.devices % parallel:
        raise UserError(
            f"actor_rollout_ref.rollout.tensor_model_parallel_size={parallel} does not divide the {machine.devices} GPUs; "
            "take one that does"
        )
    needed = int(config.data.max_prompt_length) + int(config.data.max_response_length)
    return Engine(
        replicas=machine.devices // parallel,
        parallel=parallel,
        share=float(rollout.gpu_memory_utilization),
        sequences=int(rollout.max_num_seqs),
        batched_tokens=int(rollout.max_num_batched_tokens),
        longest=int(rollout.max_model_len or needed),
        graphs=not rollout.enforce_eager,
        sleeps=bool(rollout.free_cache_engine),
        bucket=int(rollout.checkpoint_engine.update_weights_bucket_megabytes) * 2**20,
    )


@dataclass(frozen=True)
class Work:
    """What a step works on: ``episodes`` of at most ``rows`` rows each, with the mean numbers of tokens."""

    episodes: int
    rows: int
    prompt: float
    answer: float

    @property
    def all_rows(self) -> int:
        """Return the rows of a step."""
        return self.episodes * self.rows

    @property
    def tokens(self) -> float:
        """Return the tokens of a step."""
        return self.all_rows * (self.prompt + self.answer)


def work_of(config: DictConfig, prompt: float | None = None, answer: float | None = None) -> Work:
    """Return the work of a step.

    An episode has a row for each exclusion, up to the number of candidates less one, times ``iranker.branch``; supervision
    learns single rows. Where ``prompt`` and ``answer``, in tokens, are not given, prompts fill three quarters of their limit and
    answers half of theirs.
    """
    data, options = config.data, config.iranker.data.options
    rows = (options.candidates or Options.candidates) - 1 if options.rows == "episodes" else 1
    given = supervised(config)
    return Work(
        episodes=int(data.train_batch_size) * (1 if given else int(config.actor_rollout_ref.rollout.n)),
        rows=1 if given else int(rows) * int(config.iranker.branch),
        prompt=prompt if prompt is not None else 0.75 * data.max_prompt_length,
        answer=answer if answer is not None else 0.5 * data.max_response_length,
    )
