"""The places where verl 0.9.1 has no seam for a CPU: one function each, with its reason. :mod:`.plugin` checks the version.

All of them are for verl 0.9.1 and can go when upstream issue #3266 is resolved.
"""

from __future__ import annotations

from typing import Any

from iranker_verl.vllm_cpu import vllm_distribution_name


def single_gloo_backend() -> None:
    """Replace the backend ``cpu:gloo,cpu:gloo``, which torch refuses, by ``gloo``.

    verl builds it as ``cpu:gloo,{device}:{backend}``, which for the device "cpu" names cpu twice.
    """
    import torch.distributed as dist

    original = dist.init_process_group

    def init_process_group(backend: str | None = None, *args: Any, **kwargs: Any) -> Any:
        return original("gloo" if backend == "cpu:gloo,cpu:gloo" else backend, *args, **kwargs)

    dist.init_process_group = init_process_group


def reference_without_pinned_memory() -> None:
    """Let forward-only engines offload without pinned memory, which needs an accelerator; verl sets ``pin_memory=True``."""
    import torch.distributed.fsdp as fsdp

    class UnpinnedOffloadPolicy(fsdp.CPUOffloadPolicy):
        def __init__(self, pin_memory: bool = False) -> None:
            super().__init__(pin_memory=False)

    setattr(fsdp, "CPUOffloadPolicy", UnpinnedOffloadPolicy)  # noqa: B010


PATCHES = (
    single_gloo_backend,
    vllm_distribution_name,
    reference_without_pinned_memory,
)


def apply() -> None:
    """Apply every patch, once a process."""
    if getattr(apply, "done", False):
        return
    for patch in PATCHES:
        patch()
    apply.done = True  # type: ignore[attr-defined]
