"""What a composed recipe says of devices, models, sharding, offload and batches, as :mod:`.memory` and :mod:`.duration` count."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from omegaconf import DictConfig

from data_prep.options import Options
from iranker_verl.errors import UserError
from iranker_verl.plan.peak import Batch
from iranker_verl.plan.shape import Shape, find_config
from iranker_verl.preflight.recipe import ENGINE

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
        score: micro-batch of a pass without gradients.
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
    score: Batch
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


def shape_of(config: DictConfig) -> Shape:
    """Return the shape of the policy's model. Raise UserError where it is not known."""
    model = config.actor_rollout_ref.model
    described = _tiny() if config.iranker.base.make is not None else find_config(str(model.path))
    if model.get("lora", {}).get("rank", 0):
        raise UserError("actor_rollout_ref.model.lora is another engine's; set actor_rollout_ref.model.lora_rank")
    return Shape.of(described, lora_rank=int(model.lora_rank))


def _tiny() -> dict[str, Any]:
    """Return the ``config.json`` of the tiny base, which a run makes (:mod:`iranker_verl.toy.base`)."""
    from iranker_verl.toy.base import BaseConfig

    sizes = BaseConfig()
    return {
        "model_type": "qwen2",
        "vocab_size": sizes.vocab,
        "hidden_size": sizes.hidden,
        "intermediate_size": sizes.feed_forward,
        "num_hidden_layers": sizes.layers,
        "num_attention_heads": sizes.heads,
        "num_key_value_heads": sizes.kv_heads,
        "tie_word_embeddings": True,
    }


def roles_of(config: DictConfig) -> list[Role]:
    """Return the models of a recipe in the order of a step: actor, critic and reference, as far as it has them."""
    from verl.trainer.ppo.utils import need_critic, need_reference_policy

    machine, policy = machine_of(config), config.actor_rollout_ref
    shape, actor, data = shape_of(config), policy.actor, config.data
    longest = int(data.max_prompt_length), int(data.max_response_length)
    packed = bool(policy.model.use_remove_padding)
    only_answers = policy.model.external_lib == ENGINE

    def batch(dynamic: bool, rows: Any, tokens: Any) -> Batch:
        return _batch(longest, packed, only_answers, int(tokens) if dynamic else None, int(rows or 1))

    made = [
        _role(
            *("actor", shape, actor.fsdp_config, actor.optim, machine),
            checkpointing=bool(policy.model.enable_gradient_checkpointing),
            train=batch(actor.use_dynamic_bsz, actor.ppo_micro_batch_size_per_gpu, actor.ppo_max_token_len_per_gpu),
            score=batch(
                policy.rollout.log_prob_use_dynamic_bsz,
                policy.rollout.log_prob_micro_batch_size_per_gpu,
                policy.rollout.log_prob_max_token_len_per_gpu,
            ),
            save_contents=tuple(actor.checkpoint.save_contents),
        )
    ]
    if need_critic(config):
        critic = config.critic
        value = Shape(
            shape.config
            if critic.model.path == policy.model.path
            else Shape.of(find_config(str(critic.model.path))).config,
            value=True,
        )
        packed = bool(critic.model.use_remove_padding)
        made.append(
            _role(
                *("critic", value, critic.fsdp, critic.optim, machine),
                checkpointing=bool(critic.model.enable_gradient_checkpointing),
                train=batch(True, None, critic.ppo_infer_max_token_len_per_gpu),
                score=batch(True, None, critic.ppo_infer_max_token_len_per_gpu),
                save_contents=tuple(critic.checkpoint.save_contents),
            )
        )
    # of a policy with an adapter, the reference is the policy without it
    if need_reference_policy(config) and not shape.lora_rank:
        ref = policy.ref
        packed = bool(policy.model.use_remove_padding)
        made.append(
            _role(
                *("reference", shape, ref.fsdp_config, None, machine),
                checkpointing=False,
                train=None,
                score=batch(
                    ref.log_prob_use_dynamic_bsz,
                    ref.log_prob_micro_batch_size_per_gpu,
                    ref.log_prob_max_token_len_per_gpu,
                ),
            )
        )
    return made


def _role(
    name: str, shape: Shape, engine: DictConfig, optimiser: DictConfig | None, machine: Machine, **others: Any
) -> Role:
    mixed = engine.get("mixed_precision") or {}
    size = int(engine.fsdp_size)
    states = None if optimiser is None else STATES.get(str(optimiser.optimizer), 2)
    return Role(
        name=name,
        shape=shape,
        stored=_dtype(engine.model_dtype or "fp32").itemsize,
        dtype=_dtype(mixed.get("param_dtype", "bf16")),
        reduced=_dtype(mixed.get("reduce_dtype", "fp32")).itemsize,
        shards=machine.devices if size < 0 or size >= machine.devices else size,
        states=states,
        offload_weights=bool(engine.param_offload),
        offload_states=bool(engine.optimizer_offload),
        stays_on_host=bool(engine.offload_policy or engine.forward_only) and not machine.cpu,
        **others,
    )


def _dtype(name: Any) -> torch.dtype:
    if str(name) not in DTYPES:
        raise UserError(f"weights of type {name} cannot be planned; one of {', '.join(DTYPES)}")
    return DTYPES[str(name)]


def _batch(longest: tuple[int, int], packed: bool, only_answers: bool, tokens: int | None, rows: int) -> Batch:
    """Return the micro-batch that takes most: of rows as long as they may be.

    Of a budget of ``tokens``, more tokens are of answers where prompts are short: half as long as they may be, here.
    """
    prompt, answer = longest
    if tokens is None:
        taken, length, answers = rows, prompt + answer, rows * answer
    else:
        taken, length = max(1, tokens // (prompt + answer)), prompt + answer
        answers = tokens * answer // (prompt // 2 + answer)
    total = taken * length if tokens is None else tokens
    if packed:
        return Batch(rows=1, length=total, answers=answers if only_answers else total)
    return Batch(rows=taken, length=length, answers=answers if only_answers else taken * length)


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


def engine_of(config: DictConfig) -> Engine:
    """Return what a recipe says of vLLM. Raise UserError where its GPUs cannot be shared out."""
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
    """What a step works on: ``episodes`` of ``rows`` rows each at most, of so many tokens on average."""

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

    An episode has a row for each exclusion, up to the number of candidates less one. Where ``prompt`` and ``answer``, in
    tokens, are not given, prompts fill three quarters of their limit and answers half of theirs.
    """
    data, options = config.data, config.iranker.data.options
    rows = (options.candidates or Options.candidates) - 1 if options.rows == "episodes" else 1
    return Work(
        episodes=int(data.train_batch_size) * int(config.actor_rollout_ref.rollout.n),
        rows=int(rows),
        prompt=prompt if prompt is not None else 0.75 * data.max_prompt_length,
        answer=answer if answer is not None else 0.5 * data.max_response_length,
    )
