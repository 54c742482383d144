"""What is installed, on what a recipe would run, and whether it fits: ``iranker doctor``."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import psutil

from iranker_verl.provenance import versions


def rows(config: Any | None, folder: Path) -> list[tuple[str, str]]:
    """Return what ``iranker doctor`` prints: (what, value), in order."""
    lines = [(name, version) for name, version in versions().items()]
    memory = psutil.virtual_memory()
    lines.append(
        (
            "processors, memory",
            f"{os.cpu_count()} cores, {memory.available / 2**30:.1f} of {memory.total / 2**30:.1f} GiB free",
        )
    )
    for path in (folder, Path("/dev/shm")):
        if path.exists():
            usage = shutil.disk_usage(path)
            lines.append((str(path), f"{usage.free / 2**30:.1f} of {usage.total / 2**30:.1f} GiB free"))
    try:
        from iranker_verl.training.cpu.detect import chosen

        on_cpu, why = chosen()
        lines.append(("platform", f"{'cpu' if on_cpu else 'accelerator (verl detects which)'}, because {why}"))
    except ImportError:
        lines.append(("platform", "torch is not installed; run `make setup`"))
    if config is not None:
        from iranker_verl.preflight import machine

        wanted, given = machine.demand(config), machine.supply(config)
        missing = " (flash_attn is not installed)" if machine.lacks_flash(config) else ""
        lines.append(("attention, recipe asks for", machine.attention(config) + missing))
        lines.append(("Ray, recipe asks for", f"{wanted.cpus:g} CPUs, {wanted.gpus:g} GPUs (logical)"))
        lines.append(("Ray, will have", f"{given.cpus:g} CPUs, {given.gpus:g} GPUs (logical)"))
    return lines
