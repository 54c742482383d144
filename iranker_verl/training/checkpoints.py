"""verl's checkpoints of a run: which are whole, which one a run resumes from, and which ones are removed.

verl 0.9.1 writes ``global_step_N/actor`` (and ``critic``): for each rank and kept part ``PART_world_size_W_rank_R.pt``, then
``fsdp_config.json`` with W and the Hugging Face files; then ``data.pt``, and last ``latest_checkpointed_iteration.txt``.
After a resume it forgets the checkpoints that were there (upstream issue 7395), so it never removes them.
"""

from __future__ import annotations

import json
import re
import shutil
import struct
import zipfile
from collections.abc import Callable
from math import prod
from pathlib import Path
from typing import Any

from iranker_verl.console import say
from iranker_verl.errors import NOT_JSON, UserError
from iranker_verl.files import MARK

LATEST = "latest_checkpointed_iteration.txt"
PARTS = {"model": "model", "optimizer": "optim", "extra": "extra_state"}  # of save_contents, as files call them
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


def roles(config: Any) -> dict[str, Any]:
    """Return the configs of what is saved, by the name of its folder."""
    from verl.trainer.ppo.utils import need_critic

    return {"actor": config.actor_rollout_ref.actor} | ({"critic": config.critic} if need_critic(config) else {})


def lack_of(folder: Path, config: Any) -> str | None:
    """Return what a checkpoint's folder lacks to be whole, a file or what is wrong with it; None where it is whole."""
    if not zipfile.is_zipfile(folder / "data.pt"):
        return "data.pt"
    for name, role in roles(config).items():
        try:
            ranks = int(json.loads((folder / name / "fsdp_config.json").read_text())["world_size"])
        except (OSError, *NOT_JSON, KeyError, TypeError):
            return f"{name}/fsdp_config.json"
        kept = role.checkpoint.save_contents
        for part in (PARTS[part] for part in kept if part in PARTS):
            for rank in range(ranks):
                file = f"{name}/{part}_world_size_{ranks}_rank_{rank}.pt"
                if not zipfile.is_zipfile(folder / file):  # its directory is at its end
                    return file
        if "hf_model" in kept:
            weights = sorted((folder / name / "huggingface").glob("*.safetensors"))
            if not weights:
                return f"{name}/huggingface/*.safetensors"
            for path in weights:
                if parameters_in(path) is None:
                    return f"{name}/huggingface/{path.name}"
    return None


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
    trainer = config.trainer
    kept = [trainer.get(f"max_{name}_ckpt_to_keep") for name in roles(config)]
    return max(kept) if all(isinstance(number, int) and number > 0 for number in kept) else None


def prune(config: Any, log: Callable[[str], None] = say) -> None:
    """Remove what verl wrote beyond the newest whole checkpoints that are kept, whichever start of the run wrote it.

    Only ``global_step_N`` folders within the run's marked folder go, and of them only those that hold nothing but verl's files. The
    newest whole checkpoint, and what is newer, stays.
    """
    checkpoints, kept = Path(config.trainer.default_local_dir), limit(config)
    run = Path(config.iranker.run_dir).resolve()
    if kept is None or not (run / MARK).is_file() or not checkpoints.resolve().is_relative_to(run):
        return
    steps = saved_steps(checkpoints)
    whole = [step for step in steps if lack_of(checkpoints / f"global_step_{step}", config) is None]
    for step in steps:
        folder = checkpoints / f"global_step_{step}"
        if whole and step < whole[-1] and step not in whole[-kept:] and _is_verls(folder):
            shutil.rmtree(folder, ignore_errors=True)
            log(f"removed the checkpoint of step {step}, as {kept} are kept")


def _is_verls(folder: Path) -> bool:
    return {path.name for path in folder.iterdir()} <= WRITTEN and not any(p.is_symlink() for p in folder.iterdir())
