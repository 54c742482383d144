"""verl's checkpoints of a run: which are whole, which one a run resumes from, which ones are removed, and room for them.

verl 0.9.1 writes ``global_step_N/actor`` (and ``critic``): for each rank and kept part ``PART_world_size_W_rank_R.pt``, then
``fsdp_config.json`` with W and the Hugging Face files; then ``data.pt``, and last ``latest_checkpointed_iteration.txt``.
After a resume it forgets the checkpoints that were there (upstream issue 7395), and it would remove the best one as any other,
so :func:`prune` removes in its place (:func:`all_kept`).
"""

from __future__ import annotations

import json
import re
import shutil
import struct
import warnings
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from iranker_verl.console import say
from iranker_verl.errors import NOT_JSON, UserError
from iranker_verl.files import MARK
from iranker_verl.training.metrics_log import read_metrics

LATEST = "latest_checkpointed_iteration.txt"
PARTS = {"model": "model", "optimizer": "optim", "extra": "extra_state"}  # of save_contents, as files call them
SAVED_BY = "fsdp_config.json"
RESHARDING = ("iranker_verl.training.answer_engine", "iranker_verl.training.resharding")  # external_lib
LIMITS = ("max_actor_ckpt_to_keep", "max_critic_ckpt_to_keep")
# Bytes of a parameter in a checkpoint: the weights of training are float32, Adam has two such numbers for each.
BYTES = {"model": 4, "optimizer": 8, "hf_model": 4}
MARGIN = 1.05  # of a checkpoint's size: tokenizer, states of the random numbers and of the loader
WRITTEN = {"actor", "critic", "data.pt", "transfer_queue"}
_FOLDER = re.compile(r"global_step_(\d+)")


def last_step(checkpoints: Path) -> int:
    """Return the step of the checkpoint that verl resumes from; 0 where there is none. verl writes this file last."""
    try:
        return int((checkpoints / LATEST).read_text())
    except (FileNotFoundError, ValueError):
        return 0


def saved_steps(checkpoints: Path) -> list[int]:
    """Return the steps of the folders of checkpoints, whole or not, in order."""
    if not checkpoints.is_dir():
        return []
    found = (path for path in checkpoints.iterdir() if path.is_dir() and not path.is_symlink())
    return sorted(int(match[1]) for path in found if (match := _FOLDER.fullmatch(path.name)))


def has_critic(config: Any) -> bool:
    """Return whether a recipe has a critic."""
    from verl.trainer.ppo.utils import need_critic

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # verl says here that there is none
        return bool(need_critic(config))


def roles(config: Any) -> dict[str, Any]:
    """Return the configs of what is saved, by the name of its folder."""
    return {"actor": config.actor_rollout_ref.actor} | ({"critic": config.critic} if has_critic(config) else {})


def lack_of(folder: Path, config: Any) -> str | None:
    """Return what a checkpoint's folder lacks to be whole, a file or what is wrong with it; None where it is whole."""
    if not zipfile.is_zipfile(folder / "data.pt"):
        return "data.pt"
    for name, role in roles(config).items():
        try:
            ranks = saved_by(folder / name).ranks
        except UserError:
            return f"{name}/{SAVED_BY}"
        for part in (PARTS[part] for part in role.checkpoint.load_contents if part in PARTS):
            for rank in range(ranks):
                file = f"{name}/{part}_world_size_{ranks}_rank_{rank}.pt"
                if not zipfile.is_zipfile(folder / file):  # its directory is at its end
                    return file
    return None


@dataclass(frozen=True)
class SavedBy:
    """How many ranks saved a model, and with which version of FSDP."""

    ranks: int
    fsdp: int


def saved_by(folder: Path) -> SavedBy:
    """Return what saved the model in ``folder`` (``global_step_N/actor``). Raise UserError where the folder does not say."""
    try:
        content = json.loads((folder / SAVED_BY).read_text(encoding="utf-8"))
        return SavedBy(int(content["world_size"]), int(content.get("FSDP_version", 1)))
    except (OSError, *NOT_JSON, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{folder / SAVED_BY}: it has to say how many ranks saved the model; is it verl's?") from error


def check_ranks(config: Any, step: int, log: Callable[[str], None] = say) -> None:
    """Tell where the checkpoint of ``step`` is loaded into another number of GPUs. Raise UserError where that cannot be."""
    now = config.trainer.n_gpus_per_node * config.trainer.nnodes
    loads = {
        "actor": config.actor_rollout_ref.model.get("external_lib"),
        "critic": config.critic.model.get("external_lib"),
    }
    for name, role in roles(config).items():
        folder = Path(config.trainer.default_local_dir) / f"global_step_{step}" / name
        if (saved := saved_by(folder)).ranks == now:
            continue
        if saved.fsdp != 2 or role.strategy != "fsdp2" or loads[name] not in RESHARDING:
            raise UserError(
                f"{folder} was saved by {saved.ranks} GPUs and there are {now}; only FSDP2's shards are loaded into another number: "
                f"continue with {saved.ranks}, or train from the start with strategy=fsdp2 and external_lib={RESHARDING[0]} of {name}"
            )
        log(f"the {name} of {saved.ranks} GPUs is loaded into {now}")


def parameters_in(path: Path) -> int | None:
    """Return the number of values in a safetensors file, from its header; None where the file is cut short."""
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > path.stat().st_size:
                return None
            header = json.loads(file.read(length))
    except (OSError, struct.error, *NOT_JSON):
        return None
    tensors = [tensor for name, tensor in header.items() if name != "__metadata__"]
    end = max((tensor["data_offsets"][1] for tensor in tensors), default=0)
    return sum(prod(tensor["shape"]) for tensor in tensors) if path.stat().st_size >= 8 + length + end else None


def go_on(config: Any, log: Callable[[str], None] = say) -> int:
    """Point verl at the newest whole checkpoint, and return its step; 0 where there is none.

    ``log`` gets a line for each newer one that is cut short. Raise UserError where verl's last one is, and no other is whole.
    """
    checkpoints = Path(config.trainer.default_local_dir)
    recorded = last_step(checkpoints)
    skipped: list[str] = []
    for step in reversed(saved_steps(checkpoints)):
        if (lack := lack_of(checkpoints / f"global_step_{step}", config)) is None:
            for line in skipped:
                log(f"{line}; continuing from that of step {step}")
            if step != recorded:
                (checkpoints / LATEST).write_text(str(step))
            return step
        skipped.append(f"the checkpoint of step {step} is not whole ({lack} is missing or cut short)")
    if recorded and skipped:
        raise UserError(
            f"{checkpoints}: {skipped[0]}, and no other is whole; remove {checkpoints} to train from the start"
        )
    return 0


def limit(config: Any) -> int | None:
    """Return how many checkpoints are kept; None for all."""
    kept = [config.trainer.get(name) for name in LIMITS[: len(roles(config))]]
    return max(kept) if all(isinstance(number, int) and number > 0 for number in kept) else None


@contextmanager
def all_kept(config: Any) -> Iterator[None]:
    """Have verl remove nothing while the block saves a checkpoint."""
    before = {name: config.trainer.get(name) for name in LIMITS}
    config.trainer.update(dict.fromkeys(LIMITS))
    try:
        yield
    finally:
        config.trainer.update(before)


def whole_steps(config: Any) -> list[int]:
    """Return the steps of the whole checkpoints, in order."""
    folder = Path(config.trainer.default_local_dir)
    return [step for step in saved_steps(folder) if lack_of(folder / f"global_step_{step}", config) is None]


def best(config: Any, steps: list[int]) -> int | None:
    """Return the one of ``steps`` with the highest validation MRR, the earliest of equal ones; None where none was validated."""
    found = {line["step"]: line.get("val/mrr") for line in read_metrics(Path(config.iranker.run_dir, "metrics.jsonl"))}
    return max((s for s in steps if found.get(s) is not None), key=lambda step: (found[step], -step), default=None)


def prune(config: Any, log: Callable[[str], None] = say, kept: int | None = None) -> None:
    """Remove what verl wrote beyond the newest whole checkpoints that are kept and the best one, whichever start wrote it.

    Only ``global_step_N`` folders within the run's marked folder go, and of them only those that hold nothing but verl's files. The
    newest whole checkpoint, and what is newer, stays.

    Args:
        config: the recipe.
        log: gets a line for each that is removed.
        kept: how many to keep; :func:`limit` where it is None.
    """
    checkpoints, kept = Path(config.trainer.default_local_dir), kept or limit(config)
    run = Path(config.iranker.run_dir).resolve()
    if kept is None or not (run / MARK).is_file() or not checkpoints.resolve().is_relative_to(run):
        return
    whole = whole_steps(config)
    stays = {*whole[-kept:], best(config, whole)}
    for step in saved_steps(checkpoints):
        folder = checkpoints / f"global_step_{step}"
        if whole and step < whole[-1] and step not in stays and _is_verls(folder):
            shutil.rmtree(folder, ignore_errors=True)
            log(f"removed the checkpoint of step {step}, as {kept} are kept, and the best by validation MRR")


def _is_verls(folder: Path) -> bool:
    return {path.name for path in folder.iterdir()} <= WRITTEN and not any(p.is_symlink() for p in folder.iterdir())


def save_bytes(config: Any) -> int | None:
    """Return the size of a checkpoint: that of the newest whole one, else what the base's weights come to; None if it is not here."""
    folder = Path(config.trainer.default_local_dir)
    if whole := whole_steps(config):
        return _size(folder / f"global_step_{whole[-1]}")
    weights = sorted(Path(str(config.actor_rollout_ref.model.path)).glob("*.safetensors"))
    parameters = sum(parameters_in(path) or 0 for path in weights)
    models = {"actor": config.actor_rollout_ref.model, "critic": config.critic.model}
    total = 0
    for name, role in roles(config).items():
        adapted = models[name].get("lora_rank")  # then Adam's numbers are those of the adapter, a few per cent
        parts = set(role.checkpoint.save_contents) - ({"optimizer"} if adapted else set())
        total += parameters * sum(BYTES.get(part, 0) for part in parts)
    return total or None


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def lack_of_room(config: Any, saves: int = 1, partial: int = 0) -> str | None:
    """Return the numbers where the disk has no room for this many more checkpoints; None where it has, or it is unknown.

    Args:
        config: the recipe.
        saves: how many.
        partial: a step whose checkpoint was begun; what it takes counts as free.
    """
    folder = Path(config.trainer.default_local_dir)
    size, there = (
        save_bytes(config),
        next(path for path in (folder.resolve(), *folder.resolve().parents) if path.is_dir()),
    )
    begun = folder / f"global_step_{partial}"
    free = shutil.disk_usage(there).free + (_size(begun) if begun.is_dir() else 0)
    if size is None or free >= (needed := size * MARGIN * saves):
        return None
    gib = [f"{number / 2**30:.1f} GiB" for number in (free, size, needed)]
    many = "1 more checkpoint" if saves == 1 else f"{saves} more checkpoints"
    return f"{folder}: {gib[0]} free, but {many} of {gib[1]} need {gib[2]}"


def check_room(config: Any, saves: int = 1, partial: int = 0) -> None:
    """Raise UserError for :func:`lack_of_room`."""
    if lack := lack_of_room(config, saves, partial):
        raise UserError(
            f"{lack}; free some, or keep fewer (trainer.{LIMITS[0]}, {LIMITS[1]}), then give the same command to resume"
        )


def check_room_for_all(config: Any) -> None:
    """Raise UserError where the disk has no room for all checkpoints that a run keeps and the one that it is saving."""
    validated = config.trainer.test_freq > 0
    most = (limit(config) or 1) + 1 + validated
    steps = config.trainer.total_training_steps
    planned = -(-steps // config.trainer.save_freq) if steps else most
    check_room(config, max(1, min(most, planned) - len(whole_steps(config))))
