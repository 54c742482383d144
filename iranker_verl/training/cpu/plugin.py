"""Entry point of the group ``verl.plugins``: ``import verl`` loads this module in the driver and in every Ray worker.

verl logs an exception here at DEBUG level only and continues without the plug-in, so what must not be missed is raised as
``SystemExit``, which verl does not catch.
"""

from __future__ import annotations

import os

from iranker_verl import vllm_cpu
from iranker_verl.training import verl_version
from iranker_verl.training.cpu.detect import chosen

# Settings that have to be in the environment before vLLM or verl read them; a user's own values win.
ENVIRONMENT = {
    "VERL_ENGINE_DEVICE": "cuda",  # picks verl's FSDP engine, which is registered for cuda and npu only
    **vllm_cpu.ENVIRONMENT,
}


def _activate() -> None:
    on_cpu, _ = chosen()
    if not on_cpu:
        return
    verl_version.require("the CPU platform")
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    from iranker_verl.training.cpu import patches
    from iranker_verl.training.cpu import platform as _platform  # noqa: F401 (registers the platform)

    patches.apply()
    # OMP_NUM_THREADS is chosen for vLLM, which shares its cores; while the actor learns, vLLM is idle.
    import torch

    torch.set_num_threads(os.cpu_count() or 1)


try:
    _activate()
except Exception as error:
    raise SystemExit(f"iranker-verl: its CPU platform for verl failed ({type(error).__name__}: {error})") from error
