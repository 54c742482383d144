"""What ``iranker plan`` says of memory, against the resident memory of real updates on a CPU, each in a process of its own.

A child makes a model with random weights, shards it over one rank as verl's FSDP2 engine does, and takes updates of padded rows
through the engine that training uses: forward, log-probs of the answers, backward, AdamW. Its peak is the kernel's (VmHWM,
reset before the update), once as glibc runs by default, where it holds freed blocks of up to 32 MiB, and once where it gives
all above 64 KiB back (MALLOC_MMAP_THRESHOLD_), so that what is resident is what lives. The plan counts the same sizes on the meta
device, and for the former adds what it expects glibc to hold.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

SMOLLM2_135M = {
    "model_type": "llama",
    "vocab_size": 49152,
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "tie_word_embeddings": True,
}
TINY = {
    "model_type": "qwen2",
    "vocab_size": 2048,
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "tie_word_embeddings": True,
}


@dataclass(frozen=True)
class Case:
    """One update: rows of ``prompt`` and ``answer`` tokens."""

    name: str
    shape: dict[str, Any]
    rows: int
    prompt: int
    answer: int
    checkpointing: bool


CASES = (
    Case("tiny", TINY, 32, 80, 2, False),
    Case("tiny, 256 rows", TINY, 256, 160, 2, False),
    Case("135M, 2 rows of 256", SMOLLM2_135M, 2, 192, 64, False),
    Case("135M, 2 rows of 512, layers again", SMOLLM2_135M, 2, 256, 256, True),
)


def status(name: str) -> int:
    """Return a field of this process's status in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise KeyError(name)


def child(case: Case | None) -> None:
    """Print the resident bytes before a model is made, and the most during its updates."""
    import torch
    import verl  # noqa: F401 (registers the platform before the engines are imported)
    from verl.utils.fsdp_utils import apply_fsdp2
    from verl.workers.engine.fsdp.transformer_impl import FSDPEngineWithLMHead  # noqa: F401

    from iranker_verl.plan.shape import Shape
    from iranker_verl.training.answer_engine import AnswerOnlyEngine

    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    mesh = torch.distributed.device_mesh.init_device_mesh("cpu", (1,), mesh_dim_names=("fsdp",))
    libraries = status("VmRSS")
    if case is None:
        print(json.dumps({"libraries": libraries}))
        return
    module = Shape.of(case.shape).build(attention="sdpa").to_empty(device="cpu").train()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(std=0.02)
    if case.checkpointing:
        module.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    policy = torch.distributed.fsdp.MixedPrecisionPolicy(param_dtype=torch.float32, reduce_dtype=torch.float32)
    apply_fsdp2(module, {"mesh": mesh, "mp_policy": policy, "reshard_after_forward": True}, {})
    engine: Any = object.__new__(AnswerOnlyEngine)
    settings = SimpleNamespace(entropy_checkpointing=False)
    engine.__dict__.update(pad_to_length=False, engine_config=settings, module=module)
    engine.hook_head()
    optimiser = torch.optim.AdamW(module.parameters(), lr=1e-6)
    batch = micro_batch(case)
    Path("/proc/self/clear_refs").write_text("5")  # VmHWM begins again here
    for _ in range(2):  # the optimiser's tensors are there from the end of the first on
        inputs, arguments = engine.prepare_model_inputs(batch)
        output = engine.prepare_model_outputs(module(**inputs, use_cache=False), arguments, batch, None)
        loss = output["log_probs"].values().sum()
        del output, inputs, arguments
        loss.backward()
        torch.nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad()
    print(json.dumps({"libraries": libraries, "peak": status("VmHWM")}))


def micro_batch(case: Case) -> Any:
    """Return the rows as verl hands them to its engine."""
    from benchmarks.rl_step import micro_batch as made

    return made(case.rows, case.prompt, case.answer, case.shape["vocab_size"])


def planned(case: Case) -> tuple[int, int]:
    """Return the bytes that the plan counts for the update, libraries included: with and without what glibc holds."""
    import torch

    from iranker_verl.plan import memory
    from iranker_verl.plan.peak import Batch
    from iranker_verl.plan.placement import Engine, Machine, Role
    from iranker_verl.plan.shape import Shape

    rows = Batch(case.rows, case.prompt + 5 + case.answer, case.rows * case.answer)  # micro_batch varies prompts by 5
    role = Role(
        *("actor", Shape.of(case.shape), 4, torch.float32, 4, 1, 2, False, False, False, case.checkpointing),
        train=rows,
        score=rows,
    )
    found = memory.phases([role], Engine(1, 1, 0.2, 1, 1, 1, False, False, 0), Machine(1, 1, 0, cpu=True))
    worst = max((one for one in found if one.name in ("actor update", "actor optimiser")), key=lambda one: one.total)
    return worst.total, worst.total - worst.parts["allocator"]


def measure(case: Case | None, **environment: str) -> dict[str, int]:
    """Return what a child prints."""
    command = [sys.executable, "-m", "benchmarks.plan_memory", "--child", json.dumps(case and asdict(case))]
    done = subprocess.run(command, text=True, capture_output=True, check=False, env=os.environ | environment)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def main() -> None:
    """Print planned and measured bytes of every case."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--only", help="cases whose names have this in them")
    arguments = parser.parse_args()
    if arguments.child:
        case = json.loads(arguments.child)
        child(case and Case(**case))
        return
    gib = 2**30
    print(f"libraries alone: {measure(None)['libraries'] / gib:.2f} GiB")
    print(f"{'update':36} {'glibc':9} {'planned':>9} {'measured':>9} {'off by':>8}   GiB")
    for case in CASES:
        if arguments.only and arguments.only not in case.name:
            continue
        said = planned(case)
        found = (
            measure(case)["peak"],
            measure(case, MALLOC_MMAP_THRESHOLD_="65536", MALLOC_TRIM_THRESHOLD_="0")["peak"],
        )
        for name, plan, real in zip(("default", "returns"), said, found, strict=True):
            print(f"{case.name:36} {name:9} {plan / gib:9.2f} {real / gib:9.2f} {plan / real - 1:+8.1%}", flush=True)


if __name__ == "__main__":
    main()
