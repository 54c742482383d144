"""Memory of a GPU by part and phase, memory of a node, and disk, in bytes.

A step of verl's synchronous trainer has phases that follow one another on the same GPUs: answers, log-probs, update, and the
update of vLLM's weights; one of supervision, which has no vLLM (``engine`` is None), has the update alone. In each, one model is at work and the others rest. FSDP2 shards weights, gradients and the
optimiser's tensors over ``shards`` ranks; the layer at work is gathered in whole, in what it computes in.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from iranker_verl.plan.peak import Batch, Pass, count
from iranker_verl.plan.placement import Engine, Machine, Role, Work
from iranker_verl.plan.shape import Shape

GIB = 2**30
# What no config has. The first four are usual sizes with GPUs of compute capability 8 and 9; none was measured here.
CONTEXT = int(0.6 * GIB)  # a process's CUDA context and cuBLAS workspace
NCCL = int(0.6 * GIB)  # its communicators' buffers, with more than one rank
GRAPHS = int(0.8 * GIB)  # vLLM's CUDA graphs, which stay while it sleeps
PROCESS = int(2.5 * GIB)  # a process's libraries on the host, CUDA's among them
# On a CPU, measured by benchmarks/plan_memory.py: a process with torch 2.13 and verl 0.9.1 in a process group, and what glibc
# holds beyond what lives, as a share of all that comes and goes. Updates of a tiny model, 32 and 256 rows, planned and then
# measured: .82 and .83 GiB, 3.02 and 2.89; where glibc returns what is freed, .78 and .77, 2.41 and 2.37.
LIBRARIES = int(0.65 * GIB)
HELD = 0.35
COME_AND_GO = ("gathered", "activations", "logits")
# Processes of a node beside one a GPU for training and one for vLLM: driver, agent loops, rewards, queue, Ray itself.
HELPERS = 16
# Bytes of a token of a row in the queue: ids, positions, masks, log-probs, advantages, some twice.
QUEUED = 100
SHARE_FOR_FRAGMENTS = 0.08  # of a GPU, left to what the allocator cannot use
GATHERED = 3  # copies of a layer while it is at work: its own, the next one's, and the buffer that they come in

# Bytes by part. Of a GPU: weights, gradients, optimiser; gathered (layers at work, gradients that are summed, weights on
# their way to vLLM); activations (kept for backward); logits (and log-probs, or the layer that is computed again where that is
# more); vLLM (weights and its batch), KV cache, CUDA (contexts, graphs, NCCL); libraries and allocator, on a CPU.
Parts = dict[str, int]


@dataclass(frozen=True)
class Phase:
    """What a GPU holds in one phase of a step, in bytes by part."""

    name: str
    parts: Parts

    @property
    def total(self) -> int:
        """Return the sum of the parts."""
        return sum(self.parts.values())


@dataclass(frozen=True)
class Kept:
    """Bytes of a role's weights, gradients and optimiser on one rank."""

    weights: int
    gradients: int
    states: int


def kept_by(role: Role) -> Kept:
    """Return what a rank holds of a role while it trains, wherever that is."""
    learns = role.states is not None
    trained = role.shape.trainable.all if learns else 0
    one = role.stored * trained // role.shards
    return Kept(role.stored * role.shape.parameters.all // role.shards, one, one * (role.states or 0))


def phases(roles: Sequence[Role], engine: Engine | None, machine: Machine) -> list[Phase]:
    """Return what a GPU holds in each phase of a step, in its order."""
    by_name = {role.name: role for role in roles}
    context = {"libraries": LIBRARIES} if machine.cpu else {"CUDA": CONTEXT + NCCL * (machine.devices > 1)}
    asleep = _asleep(engine, roles[0].shape, machine) if engine else {}
    waiting = {role.name: _waiting(role) for role in roles}
    found = []
    if engine:
        found.append(Phase("answers", _add(context, *waiting.values(), _awake(engine, roles[0].shape, machine))))
    for role in (one for one in roles if one.score):
        others = _add(*(parts for name, parts in waiting.items() if name != role.name))
        found.append(Phase(f"{role.name} scores", _add(context, others, asleep, _scoring(role))))
    for name in ("critic", "actor"):
        if learner := by_name.get(name):
            others = _add(*(parts for other, parts in waiting.items() if other != name))
            found += [
                Phase(f"{name} update", _add(context, others, asleep, training(learner))),
                Phase(f"{name} optimiser", _add(context, others, asleep, stepping(learner, foreach=not machine.cpu))),
            ]
    if machine.cpu:
        return [Phase(one.name, one.parts | _held(one.parts)) for one in found]
    if engine:
        found.append(Phase("weights to vLLM", _add(context, *waiting.values(), _sending(roles[0], engine))))
    return found


def _held(parts: Parts) -> Parts:
    return {"allocator": int(HELD * sum(parts.get(name, 0) for name in COME_AND_GO))}


def _add(*parts: Parts) -> Parts:
    """Return the sums of parts of the same name, in the order in which they come."""
    total: Parts = {}
    for one in parts:
        for name, size in one.items():
            total[name] = total.get(name, 0) + size
    return {name: size for name, size in total.items() if size}


def _waiting(role: Role) -> Parts:
    """Return what a role leaves on the GPU between its passes."""
    kept = kept_by(role)
    on_gpu = not role.stays_on_host
    return {
        "weights": kept.weights * (on_gpu and not role.offload_weights),
        "optimiser": kept.states * (on_gpu and not role.offload_states),
    }


def _gathered(role: Role) -> int:
    """Return the bytes of gathered weights: what is in no layer stays for a whole pass, layers come in turn."""
    sizes = role.shape.parameters
    return role.computed * (sizes.root + GATHERED * sizes.layer)


def _scoring(role: Role) -> Parts:
    kept, taken = kept_by(role), score_pass(role)
    return {
        "weights": kept.weights * (not role.stays_on_host),
        "optimiser": kept.states * (not role.stays_on_host and not role.offload_states),
        "gathered": _gathered(role),
        **_activations(taken),
    }


def training(role: Role) -> Parts:
    """Return what an update holds at most, before the optimiser steps."""
    kept, taken, trained = kept_by(role), train_pass(role), role.shape.trainable
    on_gpu = not role.stays_on_host
    # of the layer at work: its gradient, and that of two in the form in which ranks sum it; of what is in no layer: the head's
    reducing = role.computed * (trained.layer + trained.root) + 2 * role.reduced * trained.layer
    return {
        "weights": kept.weights * on_gpu,
        "gradients": kept.gradients * on_gpu,
        "optimiser": kept.states * on_gpu,
        "gathered": _gathered(role) + reducing,
        **_activations(taken),
    }


def stepping(role: Role, *, foreach: bool) -> Parts:
    """Return what the end of an update holds. With ``foreach``, as on a GPU, AdamW copies all weights at once; else two of one."""
    kept, on_gpu, trained = kept_by(role), not role.stays_on_host, role.shape.trainable
    copies = on_gpu * (kept.gradients if foreach else 2 * role.stored * trained.root // role.shards)
    ending = trained.root * (2 * role.computed + role.reduced) + role.computed * role.shape.parameters.root
    return {
        "weights": kept.weights * on_gpu,
        "gradients": kept.gradients * on_gpu,
        "optimiser": kept.states * on_gpu + copies,
        "gathered": max(0, ending - copies),
    }


def _activations(taken: Pass) -> Parts:
    return {"activations": taken.kept, "logits": taken.peak - taken.kept}


def train_pass(role: Role) -> Pass:
    """Return what an update's forward and backward of a micro-batch take. The role learns."""
    assert role.train is not None
    return count(role.shape, role.train, role.dtype, learns=True, checkpointing=role.checkpointing, scaled=True)


def score_pass(role: Role) -> Pass:
    """Return what a forward pass without gradients takes; of the actor, verl takes the entropy as well. The role scores."""
    assert role.score is not None
    return count(role.shape, role.score, role.dtype, learns=False, entropy=role.name == "actor", scaled=True)


# ---------------------------------------------------------------------- vLLM


def weights_of(engine: Engine, shape: Shape) -> int:
    """Return the bytes of vLLM's weights on a GPU: bfloat16."""
    return 2 * shape.parameters.all // engine.parallel


def cache_of_token(engine: Engine, shape: Shape) -> int:
    """Return the bytes of a token's keys and values on a GPU."""
    heads = max(1, shape.cache_heads // engine.parallel)
    return 2 * 2 * shape.layers * heads * shape.head_width


def working(engine: Engine, shape: Shape) -> int:
    """Return the bytes of vLLM's largest batch: hidden states of its tokens, and logits of its sequences, in float32 twice."""
    states = count(shape, _vllm_batch(engine), torch.bfloat16, learns=False).layers // engine.parallel
    return max(states, engine.sequences * shape.vocabulary * 4 * 2)


def _vllm_batch(engine: Engine) -> Batch:
    return Batch(rows=1, length=engine.batched_tokens, answers=1)


def cache_room(engine: Engine, shape: Shape, machine: Machine) -> int:
    """Return the bytes that vLLM has for keys and values on a GPU; 0 or less where its share is too small."""
    return int(engine.share * machine.memory) - weights_of(engine, shape) - working(engine, shape) - CONTEXT


def _awake(engine: Engine, shape: Shape, machine: Machine) -> Parts:
    if machine.cpu:
        return {}  # vLLM is a process of its own, whose cache is a share of the machine
    return {
        "vLLM": weights_of(engine, shape) + working(engine, shape),
        "KV cache": max(0, cache_room(engine, shape, machine)),
        "CUDA": CONTEXT + GRAPHS * engine.graphs,
    }


def _asleep(engine: Engine, shape: Shape, machine: Machine) -> Parts:
    if machine.cpu:
        return {}
    if not engine.sleeps:
        return _awake(engine, shape, machine)
    return {"CUDA": CONTEXT + GRAPHS * engine.graphs}


def _sending(actor: Role, engine: Engine) -> Parts:
    """Return what it takes to send the actor's weights: vLLM's, a bucket, and the largest weight in whole as it is kept."""
    whole = actor.stored * actor.shape.vocabulary * actor.shape.hidden
    again = kept_by(actor).weights if actor.shape.lora_rank and actor.offload_weights else 0
    return {
        "weights": again,
        "vLLM": weights_of(engine, actor.shape),
        "CUDA": CONTEXT + GRAPHS * engine.graphs,
        "gathered": engine.bucket + whole,
    }


# ---------------------------------------------------------------------- a node, and disk


def host(roles: Sequence[Role], engine: Engine | None, machine: Machine, work: Work) -> Parts:
    """Return the memory of a node by part; while it loads, each rank has a whole model, unless embeddings are not tied."""
    ranks, shape = machine.per_node, roles[0].shape
    loading = [
        role.stored * role.shape.parameters.all * (ranks if role.shape.tied else max(1, ranks // role.shards))
        for role in roles
    ]
    resting = 0
    for role in roles:
        kept = kept_by(role)
        away = role.stays_on_host
        resting += ranks * (kept.weights * (away or role.offload_weights) + kept.states * (away or role.offload_states))
        resting += ranks * kept.gradients * away
    saving = 4 * shape.parameters.all if "hf_model" in roles[0].save_contents else 0
    adapter = weights_of(engine, shape) * ranks if engine and shape.lora_rank and engine.sleeps else 0
    return {
        "processes": PROCESS * 2 * ranks + LIBRARIES * HELPERS if engine else PROCESS * ranks + LIBRARIES,
        "loading models, or saving": max(*loading, saving),
        "offloaded": resting,
        "vLLM's weights while it sleeps": adapter,
        "rows of a step": int(QUEUED * work.tokens) if engine else 0,
    }


def a_save(roles: Sequence[Role], machine: Machine) -> Parts:
    """Return the bytes of one checkpoint by part. Each rank writes its shards, so replicas of them are written too."""
    parts: Parts = {}
    for role in roles:
        kept, contents = kept_by(role), role.save_contents
        parts[f"{role.name}: weights"] = kept.weights * machine.devices * ("model" in contents)
        parts[f"{role.name}: optimiser"] = kept.states * machine.devices * ("optimizer" in contents)
        parts[f"{role.name}: as a model"] = role.stored * role.shape.parameters.all * ("hf_model" in contents)
    return {name: size for name, size in parts.items() if size}
