"""Seconds of a step by part, from stated rates: nothing here was measured on the machine that is planned for.

Arithmetic counts two operations a weight and token forward, twice that backward, and a forward pass again where layers are
computed again; attention is half of all pairs of tokens. Communication runs beside it, so a pass takes the longer of the two.
A ring over n ranks moves (n - 1) / n of a tensor to gather or to scatter it, and twice that to sum it. Vectors of the
optimiser, sampling and Python are in ``driver``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from omegaconf import DictConfig, OmegaConf

from iranker_verl.plan import memory
from iranker_verl.plan.memory import kept_by
from iranker_verl.plan.placement import Engine, Machine, Role, Work, engine_of, machine_of, roles_of
from iranker_verl.plan.rates import Rates
from iranker_verl.plan.shape import Shape
from iranker_verl.training.optimizer_steps import steps_per_epoch

GAIN = 1.25  # scaling has ended where twice the nodes make a step less than so many times as fast


@dataclass(frozen=True)
class Step:
    """Seconds of a step by part."""

    parts: dict[str, float]

    @property
    def seconds(self) -> float:
        """Return the sum."""
        return sum(self.parts.values())

    @property
    def largest(self) -> str:
        """Return the part that takes longest."""
        return max(self.parts, key=lambda name: self.parts[name])


def step_of(config: DictConfig, rates: Rates, work: Work) -> Step:
    """Return the seconds of a step of a recipe; saving and validation count with their share of a step."""
    machine, engine, roles = machine_of(config), engine_of(config), roles_of(config)
    shape, trainer = roles[0].shape, config.trainer
    saving = sum(memory.a_save(roles, machine).values()) / (rates.disk_rate * 1e9) / trainer.save_freq
    if engine is None:
        return Step({"actor update": updating(roles[0], machine, rates, work, steps=1), "saving": saving})
    parts = {"answers": answering(engine, machine, shape, rates, work.episodes, work)}
    bypass = bool((config.algorithm.rollout_correction or {}).get("bypass_mode"))
    for role in roles:
        if role.name != "actor" or not bypass:
            parts[f"{role.name} scores"] = scoring(role, machine, rates, work)
        elif shape.lora_rank and config.actor_rollout_ref.actor.use_kl_loss:
            parts["reference scores"] = scoring(role, machine, rates, work)
    for role, of in ((r, config.critic if r.name == "critic" else config.actor_rollout_ref.actor) for r in roles):
        if role.train is not None:
            steps = steps_per_epoch(config.data.train_batch_size, of)
            parts[f"{role.name} update"] = of.ppo_epochs * updating(role, machine, rates, work, steps)
    parts["weights to vLLM"] = 1 + memory.weights_of(engine, shape) * engine.parallel / (rates.link * 1e9)
    parts["saving"] = saving
    if trainer.test_freq > 0:
        tasks = config.data.val_max_samples if config.data.val_max_samples > 0 else 900
        parts["validation"] = answering(engine, machine, shape, rates, tasks, work) / trainer.test_freq
    parts["driver"] = rates.driver + work.all_rows * rates.row_ms / 1000
    return Step(parts)


def forward_flops(shape: Shape, work: Work, *, head: bool = True) -> float:
    """Return the operations of a forward pass for one row: weights of the layers, attention, and the head on the answer."""
    tokens = work.prompt + work.answer
    layers = 2 * shape.parameters.layer * shape.layers * tokens
    attention = 2 * tokens**2 * shape.heads * shape.head_width * shape.layers
    return layers + attention + (2 * shape.vocabulary * shape.hidden * work.answer if head and not shape.value else 0)


def answering(engine: Engine, machine: Machine, shape: Shape, rates: Rates, episodes: int, work: Work) -> float:
    """Return the seconds of generation: answers of an episode come one after the other, those of several at once."""
    mine = math.ceil(episodes / engine.replicas)
    room = memory.cache_room(engine, shape, machine) / memory.cache_of_token(engine, shape)
    at_once = max(1, min(mine, engine.sequences, int(room / (work.prompt + work.answer))))
    read = memory.weights_of(engine, shape) + at_once * (work.prompt + work.answer) * memory.cache_of_token(
        engine, shape
    )
    operations = 2 * shape.parameters.all * at_once / engine.parallel
    token = max(read / (rates.memory_rate * 1e9), operations / (rates.tflops * 1e12)) + rates.token_ms / 1000
    prompts = 2 * shape.parameters.all * mine * work.rows * work.prompt / engine.parallel / (rates.tflops * 1e12)
    return math.ceil(mine / at_once) * work.rows * work.answer * token + prompts


def scoring(role: Role, machine: Machine, rates: Rates, work: Work) -> float:
    """Return the seconds of log-probs or values of all rows. The role scores."""
    assert role.score is not None
    rows = math.ceil(work.all_rows / machine.devices)
    compute = rows * forward_flops(role.shape, work) / (rates.tflops * 1e12)
    passes = _passes(role.score.rows * role.score.length, rows, work)
    return max(compute, passes * (_gather(role, machine, rates) + _from_host(role, rates))) + _loading(
        role, rates, states=False
    )


def updating(role: Role, machine: Machine, rates: Rates, work: Work, steps: int) -> float:
    """Return the seconds of forward, backward and ``steps`` steps of the optimiser over all rows."""
    assert role.train is not None
    rows = math.ceil(work.all_rows / (machine.devices * steps)) * steps  # each rank has as many
    frozen = role.shape.trainable.all < role.shape.parameters.all
    times = (2 if frozen else 3) + role.checkpointing
    compute = rows * times * forward_flops(role.shape, work) / (rates.tflops * 1e12)
    passes = steps * _passes(role.train.rows * role.train.length, rows / steps, work)
    moved = 2 * (_gather(role, machine, rates) + _from_host(role, rates)) + _reduce(role, machine, rates)
    kept, stepping = kept_by(role), 0.0
    if role.stays_on_host:  # its optimiser steps there, reading and writing all of it, at a fraction of that rate
        moved += kept.gradients / (rates.host_rate * 1e9)
        stepping = steps * 2 * (kept.weights + kept.gradients + kept.states) / (rates.host_rate * 1e9)
    return max(compute, passes * moved) + stepping + _loading(role, rates, states=True)


def _passes(size: int, rows: float, work: Work) -> int:
    return max(1, math.ceil(rows * (work.prompt + work.answer) / size))


def _gather(role: Role, machine: Machine, rates: Rates) -> float:
    """Return the seconds in which all layers are gathered once."""
    rate = rates.link if role.shards <= machine.per_node else rates.network
    return role.computed * role.shape.parameters.all * (role.shards - 1) / role.shards / (rate * 1e9)


def _reduce(role: Role, machine: Machine, rates: Rates) -> float:
    """Return the seconds in which gradients are summed, over the shards and then over their replicas."""
    size = role.reduced * role.shape.trainable.all
    rate = rates.link if role.shards <= machine.per_node else rates.network
    replicas = machine.devices // role.shards
    over_replicas = 2 * (replicas - 1) / replicas * size / role.shards / (rates.network * 1e9)
    return size * (role.shards - 1) / role.shards / (rate * 1e9) + over_replicas


def _from_host(role: Role, rates: Rates) -> float:
    return kept_by(role).weights / (rates.host_rate * 1e9) if role.stays_on_host else 0.0


def _loading(role: Role, rates: Rates, *, states: bool) -> float:
    """Return the seconds in which what waits on the host comes to the GPU and goes back."""
    if role.stays_on_host:
        return 0.0
    kept = kept_by(role)
    moved = kept.weights * role.offload_weights + kept.states * (role.offload_states and states)
    return 2 * moved / (rates.host_rate * 1e9)


@dataclass(frozen=True)
class Scaled:
    """A step on a number of nodes."""

    nodes: int
    devices: int
    seconds: float
    speedup: float
    efficiency: float
    largest: str


def simulate(config: DictConfig, rates: Rates, work: Work, most: int = 64) -> Iterator[Scaled]:
    """Yield the same step on 1, 2, 4 … ``most`` nodes of the recipe's GPUs."""
    first = 0.0
    for nodes in (2**power for power in range(most.bit_length())):
        other = config.copy()
        OmegaConf.update(other, "trainer.nnodes", nodes)
        step = step_of(other, rates, work)
        first = first or step.seconds
        yield Scaled(
            nodes,
            nodes * config.trainer.n_gpus_per_node,
            step.seconds,
            first / step.seconds,
            first / step.seconds / nodes,
            step.largest,
        )


def last_useful(scaled: list[Scaled]) -> Scaled:
    """Return the number of nodes beyond which twice as many make a step less than :data:`GAIN` times as fast."""
    for one, twice in pairwise(scaled):
        if one.seconds / twice.seconds < GAIN:
            return one
    return scaled[-1]
