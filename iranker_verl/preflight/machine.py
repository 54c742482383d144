"""Whether this machine has what a recipe asks for: device, model, data, packages, Ray's resources, attention and room.

An oversubscribed Ray waits for ever without a message, so :func:`check_fits` refuses before anything is started.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from data_prep.options import Options
from iranker_verl.errors import NOT_JSON, UserError, described, first_line
from iranker_verl.files import make_folder
from iranker_verl.preflight.recipe import loggers
from iranker_verl.training import credit

# verl's loggers that are a package of the same name.
PACKAGES = ("wandb", "mlflow", "swanlab", "tensorboard", "clearml", "trackio")
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


def demand(config: Any) -> Resources:
    """Return what a run of ``config`` (a composed recipe) holds of Ray, in logical CPUs and GPUs.

    A bundle of 3 CPUs and 1 GPU a device (``verl.single_controller.ray.base.RayResourcePool``), 1 CPU for each of
    TransferQueue's storage units and 1 for its controller, and 1 free CPU to place the actors that hold none.
    """
    devices = config.trainer.n_gpus_per_node * config.trainer.nnodes
    units = config.transfer_queue.backend.SimpleStorage.num_data_storage_units
    return Resources(cpus=BUNDLE_CPUS * devices + units + 2, gpus=devices)


def on_cluster(config: Any) -> bool:
    """Return whether a run joins a Ray cluster that is there already."""
    return bool(os.environ.get("RAY_ADDRESS")) and config.ray_kwargs.ray_init.get("address") != "local"


@contextmanager
def cluster() -> Iterator[Any]:
    """Join the cluster at ``RAY_ADDRESS`` for a while and yield Ray. Raise UserError where it cannot be reached."""
    import ray

    try:
        ray.init(address="auto", logging_level=logging.ERROR, log_to_driver=False)
    except (OSError, RuntimeError, ValueError) as error:
        raise UserError(
            f"RAY_ADDRESS={os.environ['RAY_ADDRESS']}: no Ray cluster can be reached there ({first_line(error)}); start "
            "it, or unset RAY_ADDRESS"
        ) from error
    try:
        yield ray
    finally:
        ray.shutdown()


def supply(config: Any) -> Resources:
    """Return what Ray will have: of a running cluster (``RAY_ADDRESS``) its total, else what ``ray_init`` says or detects."""
    if on_cluster(config):
        with cluster() as ray:
            total = ray.cluster_resources()
        return Resources(total.get("CPU", 0.0), total.get("GPU", 0.0))
    init = config.ray_kwargs.ray_init
    cpus = init.get("num_cpus") or os.cpu_count() or 1
    gpus = init.get("num_gpus")
    if gpus is None:
        import torch

        gpus = torch.cuda.device_count()
    return Resources(float(cpus), float(gpus))


def check_fits(config: Any) -> tuple[Resources, Resources]:
    """Return ``(demand, supply)``; raise UserError with the numbers where the recipe asks for more than there is."""
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
    """Return the attention that the actor asks transformers for; verl 0.9.1's own choice is flash attention 2."""
    return str((config.actor_rollout_ref.model.get("override_config") or {}).get("attn_implementation", FLASH))


def lacks_flash(config: Any) -> bool:
    """Return whether the recipe asks for flash attention and the package is not installed."""
    return attention(config) == FLASH and not find_spec("flash_attn")


def check_attention(config: Any) -> None:
    """Raise UserError where :func:`lacks_flash`: verl reports it only after minutes, in a worker's traceback."""
    if lacks_flash(config):
        raise UserError(
            f"the recipe asks for {FLASH}, but the package flash_attn is not installed. Set "
            "++actor_rollout_ref.model.override_config.attn_implementation=packed (and the same of critic.model), or install it"
        )


def check_tokenizer(config: DictConfig) -> None:
    """Raise UserError where the base has no chat template, or, where all labels are read, no token for each label."""
    if config.iranker.base.make is not None:
        return
    from iranker_verl.inference.engine import ChatTokenizer

    tokenizer = ChatTokenizer(Path(config.actor_rollout_ref.model.path))
    if config.algorithm.adv_estimator in credit.LABEL_ESTIMATORS:
        tokenizer.labels(config.iranker.data.options.candidates or Options.candidates)


def check_weights(config: DictConfig) -> None:
    """Raise UserError where the base's weights are not whole: cut short, a pointer of Git LFS, or a part that is missing."""
    if config.iranker.base.make is not None:
        return
    from safetensors import SafetensorError, safe_open

    folder = Path(config.actor_rollout_ref.model.path)
    files = {*folder.glob("*.safetensors")}
    for index in folder.glob("*.safetensors.index.json"):
        try:
            files |= {folder / name for name in json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()}
        except (*NOT_JSON, KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{index}: not an index of weights ({described(error)}); fetch the model again") from error
    for file in sorted(files):
        try:
            with safe_open(str(file), framework="numpy"):  # reads the header, and compares the file's size with it
                pass
        except (SafetensorError, OSError) as error:
            raise UserError(
                f"{file}: not a whole file of weights ({first_line(error)}); fetch the model again"
            ) from error


def check_room(folder: Path) -> None:
    """Raise UserError where ``folder``'s disk or /dev/shm (weights travel through it) is nearly full."""
    make_folder(folder)
    for path, least in ((folder, MIN_DISK_BYTES), (Path("/dev/shm"), MIN_SHM_BYTES)):
        if path.exists() and (free := shutil.disk_usage(path).free) < least:
            raise UserError(
                f"{path}: {free / 2**30:.1f} GiB free, at least {least / 2**30:.1f} GiB are needed; free some"
            )


def check_here(config: DictConfig) -> None:
    """Raise UserError where the recipe's device, model, data or logger is not here."""
    from iranker_verl.training.cpu.detect import chosen

    on_cpu, why = chosen()
    wants_cpu = config.trainer.device == "cpu"
    gpus = config.trainer.n_gpus_per_node * config.trainer.nnodes
    if on_cpu and not wants_cpu:
        raise UserError(
            f"this recipe needs {gpus} GPU(s), and this is a CPU installation ({why}). Submit it to a Ray cluster with GPUs, "
            "or try `make train-tiny` here; DRY_RUN=1 checks its config on any machine"
        )
    if wants_cpu and not on_cpu:
        raise UserError(
            f"this recipe runs on a CPU, but {why}; set VERL_PLATFORM=cpu to run it on the CPU all the same"
        )
    if os.environ.get("RAY_ADDRESS") and config.ray_kwargs.ray_init.get("address") == "local":
        raise UserError(
            "RAY_ADDRESS has no effect: this recipe starts a Ray of its own (ray_kwargs.ray_init.address=local). Unset it, or "
            "submit the recipe to that cluster with recipes/cluster/submit.sh"
        )
    model = config.actor_rollout_ref.model.path
    if config.iranker.base.make is None and not Path(str(model)).is_dir():
        raise UserError(
            f"{model}: no such model folder; download the model and give its folder: actor_rollout_ref.model.path=FOLDER"
        )
    raw = config.iranker.data.raw
    if raw is not None and not Path(str(raw)).exists():
        raise UserError(f"{raw}: no such folder of raw files; see docs/data.md for what is read")
    if raw is None and not wants_cpu and all(size is None for size in config.iranker.data.world.values()):
        raise UserError(
            "iranker.data.raw is not set: give the folder of your raw files (DATA=folder, iranker.data.raw=folder). The embedded "
            "world is a toy for tiny models; to train on it all the same, name its size: +iranker.data.world.users=2100"
        )
    for name in loggers(config):
        if name in PACKAGES and find_spec(name) is None:
            raise UserError(
                f"trainer.logger has {name}, which is not installed here: pip install {name}, or leave it out"
            )
