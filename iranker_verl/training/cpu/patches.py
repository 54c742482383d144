"""The places where verl 0.9.1 has no seam for a CPU: one function each, with its reason. :mod:`.plugin` checks the version.

All of them are for verl 0.9.1 and can go when upstream issue #3266 is resolved.
"""

from __future__ import annotations

from typing import Any

from iranker_verl.vllm_cpu import vllm_distribution_name


def single_gloo_backend() -> None:
    """verl builds the backend as ``cpu:gloo,{device}:{backend}``; for the device "cpu" that names cpu twice, and torch
    refuses it."""
    import torch.distributed as dist

    original = dist.init_process_group

    def init_process_group(backend: str | None = None, *args: Any, **kwargs: Any) -> Any:
        return original("gloo" if backend == "cpu:gloo,cpu:gloo" else backend, *args, **kwargs)

    dist.init_process_group = init_process_group


def critic_without_flash_attention() -> None:
    """``verl.utils.model.load_valuehead_model`` asks for flash attention whatever the config says; without it the critic
    fails with the misleading "not a value head model, please install trl"."""
    import transformers

    model: Any = transformers.AutoModelForTokenClassification
    original = model.from_pretrained.__func__

    def from_pretrained(cls: type, *args: Any, **kwargs: Any) -> Any:
        if kwargs.get("attn_implementation") == "flash_attention_2":
            kwargs["attn_implementation"] = "eager"
        return original(cls, *args, **kwargs)

    model.from_pretrained = classmethod(from_pretrained)


def reference_without_pinned_memory() -> None:
    """verl gives forward-only engines ``CPUOffloadPolicy(pin_memory=True)``, and pinning memory needs an accelerator."""
    import torch.distributed.fsdp as fsdp

    class UnpinnedOffloadPolicy(fsdp.CPUOffloadPolicy):
        def __init__(self, pin_memory: bool = False) -> None:
            super().__init__(pin_memory=False)

    setattr(fsdp, "CPUOffloadPolicy", UnpinnedOffloadPolicy)  # noqa: B010


PATCHES = (
    single_gloo_backend,
    vllm_distribution_name,
    critic_without_flash_attention,
    reference_without_pinned_memory,
)


def apply() -> None:
    """Apply every patch, once a process."""
    if getattr(apply, "done", False):
        return
    for patch in PATCHES:
        patch()
    apply.done = True  # type: ignore[attr-defined]
