"""The shards of a checkpoint put together again, for an export or for another number of ranks.

verl 0.9.1 saves of each rank its part of every tensor, as torch's ``DTensor``, and loads them into as many ranks only. Its own merger
(``verl.model_merger``) rounds to bfloat16 and unpickles anything; here the precision stays and only tensors are read.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch.distributed.tensor import DTensor

from iranker_verl.errors import UserError
from iranker_verl.training.checkpoints import saved_by
from iranker_verl.training.lora import merge_adapter


def read_shards(folder: Path, part: str) -> list[dict[str, Any]]:
    """Return what each rank saved as ``part`` (``model``, ``optim``) in ``folder``, mapped from the disk, by rank.

    Raise UserError where there are no shards, or one is not a file of tensors.
    """
    ranks = saved_by(folder).ranks
    files = [folder / f"{part}_world_size_{ranks}_rank_{rank}.pt" for rank in range(ranks)]
    try:
        return [torch.load(file, map_location="cpu", mmap=True, weights_only=True) for file in files]
    except (OSError, RuntimeError, UnpicklingError) as error:
        raise UserError(f"{folder}: no whole shards of {part} ({str(error).partition(chr(10))[0]})") from error


def full_tensor(parts: Sequence[Any]) -> Any:
    """Return a tensor from its parts, by rank; what is no ``DTensor`` is the same on all ranks, and the first is returned.

    Of a mesh of two dimensions the first one counts replicas.
    """
    first = parts[0]
    if not isinstance(first, DTensor):
        return first
    ranks = first.device_mesh.mesh.reshape(-1, first.device_mesh.mesh.shape[-1])[0].tolist()
    placement: Any = first.placements[-1]
    with torch.no_grad():
        local = [parts[rank].to_local() for rank in ranks]
    return torch.cat(local, dim=placement.dim) if placement.is_shard() else local[0]


def full_weights(folder: Path) -> dict[str, torch.Tensor]:
    """Return the weights that the ranks saved in ``folder``, by name, in the precision of training."""
    shards = read_shards(folder, "model")
    return {name: full_tensor([shard[name] for shard in shards]) for name in shards[0]}


def write_model(folder: Path, out: Path, dtype: str, lora_alpha: float | None = None) -> None:
    """Write the checkpoint in ``folder`` (a role's, ``global_step_N/actor``) to ``out`` as a Hugging Face model.

    Args:
        folder: the shards, and beside them verl's ``huggingface`` with configuration and tokenizer.
        out: an existing folder.
        dtype: of the weights there, and in its ``config.json``, e.g. ``bfloat16``.
        lora_alpha: of the adapter that is merged into the weights; None where there is none.

    Raises:
        UserError: see :func:`read_shards`; where there is an adapter and no ``lora_alpha``, or the reverse.
    """
    from accelerate import init_empty_weights
    from transformers import AutoConfig, AutoModelForCausalLM
    from verl.utils.transformers_compat import drop_tied_target_keys

    precision = getattr(torch, dtype)
    weights = full_weights(folder)
    merged = merge_adapter(weights, lora_alpha or 0.0)
    if bool(merged) != (lora_alpha is not None):
        raise UserError(
            f"{folder}: it has {merged} adapted matrices, and actor_rollout_ref.model.lora_rank is "
            f"{'0' if lora_alpha is None else 'above 0'}; give the run's own config.yaml"
        )
    config = AutoConfig.from_pretrained(folder / "huggingface", trust_remote_code=False)
    with init_empty_weights():
        model = AutoModelForCausalLM.from_config(config, dtype=precision)
    drop_tied_target_keys(weights, model, config)
    model.save_pretrained(out, state_dict={name: weight.to(precision).contiguous() for name, weight in weights.items()})
    others = shutil.ignore_patterns("config.json", "*.safetensors*")  # tokenizer, and how answers are generated
    shutil.copytree(folder / "huggingface", out, dirs_exist_ok=True, ignore=others)
