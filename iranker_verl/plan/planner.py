"""A recipe's plan, whether it fits, and which option would make it fit."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from omegaconf import DictConfig, OmegaConf

from iranker_verl.errors import UserError
from iranker_verl.plan import memory
from iranker_verl.plan.duration import Step, step_of
from iranker_verl.plan.memory import GIB, Parts, Phase
from iranker_verl.plan.placement import Machine, Work, engine_of, machine_of, roles_of, shape_of, supervised, work_of
from iranker_verl.plan.rates import Rates
from iranker_verl.training.checkpoints import has_critic

Options = dict[str, Any]


@dataclass(frozen=True)
class Plan:
    """What a recipe needs, in bytes and seconds.

    ``problem`` is what does not fit, in words, or None.
    """

    machine: Machine
    model: int
    work: Work
    phases: list[Phase]
    cache_tokens: int
    host: Parts
    save: Parts
    saves_kept: int
    step: Step
    steps: int
    price: float | None
    problem: str | None

    @property
    def peak(self) -> Phase:
        """Return the phase that takes most of a GPU."""
        return max(self.phases, key=lambda phase: phase.total)

    @property
    def hours(self) -> float:
        """Return the hours of all steps."""
        return self.steps * self.step.seconds / 3600

    @property
    def disk(self) -> int:
        """Return the bytes of the checkpoints that are kept, and of one more, which is written before the oldest goes."""
        return sum(self.save.values()) * (self.saves_kept + 1)

    @property
    def money(self) -> float | None:
        """Return what the GPUs cost."""
        return None if self.price is None else self.price * self.hours * self.machine.devices

    def to_dict(self) -> dict[str, Any]:
        """Return the plan for JSON."""
        return {
            "fits": self.problem is None,
            "problem": self.problem,
            "machine": asdict(self.machine),
            "parameters": self.model,
            "gpu_bytes": {phase.name: phase.parts | {"total": phase.total} for phase in self.phases},
            "gpu_peak_bytes": self.peak.total,
            "gpu_peak_phase": self.peak.name,
            "kv_cache_tokens": self.cache_tokens,
            "host_bytes": self.host | {"total": sum(self.host.values())},
            "save_bytes": self.save | {"total": sum(self.save.values())},
            "disk_bytes": self.disk,
            "rows_a_step": self.work.all_rows,
            "tokens_a_step": self.work.tokens,
            "seconds_a_step": self.step.parts | {"total": self.step.seconds},
            "steps": self.steps,
            "hours": self.hours,
            "money": self.money,
        }


def plan(config: DictConfig, rates: Rates, work: Work | None = None, host_memory: float | None = None) -> Plan:
    """Return the plan of a composed recipe. Raise UserError where its model or types are not known.

    Args:
        config: the recipe.
        rates: what the machine reaches.
        work: the work of a step; None: as :func:`.placement.work_of` takes it.
        host_memory: GiB of a node's memory, or None where they are not known.
    """
    machine, engine, roles = machine_of(config), engine_of(config), roles_of(config)
    work = work or work_of(config)
    shape = roles[0].shape
    found = memory.phases(roles, engine, machine)
    tokens = 0
    if engine and not machine.cpu:
        tokens = max(0, memory.cache_room(engine, shape, machine) // memory.cache_of_token(engine, shape))
    host = memory.host(roles, engine, machine, work)
    trainer = config.trainer
    return Plan(
        machine=machine,
        model=shape.parameters.all,
        work=work,
        phases=found,
        cache_tokens=tokens,
        host=host,
        save=memory.a_save(roles, machine),
        saves_kept=int(trainer.max_actor_ckpt_to_keep or 1),
        step=Step({}) if machine.cpu else step_of(config, rates, work),  # the rates are of GPUs
        steps=int(trainer.total_training_steps),
        price=rates.price,
        problem=_problem(config, found, machine, host, host_memory),
    )


def _problem(
    config: DictConfig, found: list[Phase], machine: Machine, host: Parts, host_memory: float | None
) -> str | None:
    """Return what does not fit, in words."""
    if host_memory is not None and (needed := sum(host.values())) > host_memory * GIB:
        return f"a node needs {needed / GIB:.0f} GiB of memory and has {host_memory:g}"
    for name, budget in _budgets(config):
        longest = config.data.max_prompt_length + config.data.max_response_length
        if budget < longest:
            return f"{name}={budget} is less than a row may have, {longest} tokens"
    if machine.cpu:
        return None
    if engine := engine_of(config):
        shape = shape_of(config)
        room, one = (
            memory.cache_room(engine, shape, machine),
            memory.cache_of_token(engine, shape) * engine.longest,
        )
        if room < one:
            return (
                f"vLLM's share of a GPU ({engine.share:.0%} of {machine.memory / GIB:g} GiB) leaves {max(0, room) / GIB:.1f} GiB to "
                f"keys and values, and one sequence of {engine.longest} tokens takes {one / GIB:.1f}"
            )
    worst = max(found, key=lambda phase: phase.total)
    usable = machine.memory * (1 - memory.SHARE_FOR_FRAGMENTS)
    if worst.total <= usable:
        return None
    part = max(worst.parts, key=lambda name: worst.parts[name])
    return (
        f"{worst.name} takes {worst.total / GIB:.1f} GiB of a GPU, of which {usable / GIB:.1f} of {machine.memory / GIB:g} can be "
        f"used; {part} take {worst.parts[part] / GIB:.1f}"
    )


def _budgets(config: DictConfig) -> Iterator[tuple[str, int]]:
    """Yield the token budgets of the passes that have one."""
    policy = config.actor_rollout_ref
    passes = (
        (policy.actor.use_dynamic_bsz, "actor_rollout_ref.actor.ppo_max_token_len_per_gpu"),
        (policy.rollout.log_prob_use_dynamic_bsz, "actor_rollout_ref.rollout.log_prob_max_token_len_per_gpu"),
        (policy.ref.log_prob_use_dynamic_bsz, "actor_rollout_ref.ref.log_prob_max_token_len_per_gpu"),
    )
    for switch, name in passes[:1] if supervised(config) else passes:
        if switch:
            yield name, int(OmegaConf.select(config, name))
    if has_critic(config):
        yield "critic.ppo_infer_max_token_len_per_gpu", int(config.critic.ppo_infer_max_token_len_per_gpu)


# ---------------------------------------------------------------------- what would make it fit


def advice(config: DictConfig, host_memory: float | None = None) -> str:
    """Return which options make a recipe fit that does not, as overrides; the fewest, and of one kind before several."""
    tried = list(_ways(config))
    for options in [*tried, *_together(tried)]:
        if _fits(config, options, host_memory):
            return f"it fits with {' '.join(f'{name}={_text(value)}' for name, value in options.items())}"
    if config.actor_rollout_ref.model.lora_rank == 0:
        adapter: Options = {"actor_rollout_ref.model.lora_rank": 32}
        if not supervised(config):
            adapter["actor_rollout_ref.rollout.load_format"] = "safetensors"
        for options in (adapter, *({**adapter, **one} for one in tried)):
            if _fits(config, options, host_memory):
                return f"all weights do not fit, an adapter does: {' '.join(f'{n}={_text(v)}' for n, v in options.items())}"
    return "no option that keeps this model makes it fit; take a smaller one, or larger GPUs"


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _fits(config: DictConfig, options: Options, host_memory: float | None) -> bool:
    other = config.copy()
    for name, value in options.items():
        OmegaConf.update(other, name, value, force_add=True)
    try:
        return plan(other, Rates(), host_memory=host_memory).problem is None
    except UserError:
        return False


def _ways(config: DictConfig) -> Iterator[Options]:
    """Yield single changes, those that cost least speed first."""
    policy, critic = config.actor_rollout_ref, config.critic
    engines = ("actor_rollout_ref.actor.fsdp_config", "critic.fsdp")[: 1 + has_critic(config)]
    models = ("actor_rollout_ref.model", "critic.model")[: 1 + has_critic(config)]
    longest = config.data.max_prompt_length + config.data.max_response_length
    if not (policy.model.enable_gradient_checkpointing and critic.model.enable_gradient_checkpointing):
        yield {f"{name}.enable_gradient_checkpointing": True for name in models}
    budgets = dict(_budgets(config))
    for size in (32768, 16384, 8192, 4096, longest):
        if budgets and longest <= size < max(budgets.values()):
            yield {name: size for name, budget in budgets.items() if budget > size}
    if budgets and min(budgets.values()) < longest:
        yield {name: longest for name, budget in budgets.items() if budget < longest}
    if not policy.actor.use_dynamic_bsz:
        for rows in (4, 2, 1):
            if rows < (policy.actor.ppo_micro_batch_size_per_gpu or 1):
                yield {"actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu": rows}
    for share in (0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2):
        if share != policy.rollout.gpu_memory_utilization:
            yield {"actor_rollout_ref.rollout.gpu_memory_utilization": share}
    yield {f"{name}.optimizer_offload": True for name in engines}
    yield {f"{name}.{what}": True for name in engines for what in ("param_offload", "optimizer_offload")}
    yield {f"{name}.offload_policy": True for name in engines}
    for gpus in (2, 4, 8):
        if gpus > config.trainer.n_gpus_per_node:
            yield {"trainer.n_gpus_per_node": gpus}
    for nodes in () if supervised(config) else (2, 4, 8):
        if nodes > config.trainer.nnodes:
            yield {"trainer.n_gpus_per_node": max(8, config.trainer.n_gpus_per_node), "trainer.nnodes": nodes}


def _together(tried: list[Options]) -> Iterator[Options]:
    """Yield pairs of single changes, where the second adds to the first."""
    for i, one in enumerate(tried):
        for other in tried[i + 1 :]:
            if not set(one) & set(other):
                yield one | other
