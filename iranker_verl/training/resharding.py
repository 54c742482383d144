"""Load a checkpoint into another number of ranks than saved it, so that a run resumes with more GPUs or fewer.

verl 0.9.1 looks for files of its present number of ranks (``FSDPCheckpointManager.load_checkpoint``). Importing this module, which
``actor_rollout_ref.model.external_lib`` and ``critic.model.external_lib`` do in every worker, has verl's engine use
:class:`ReshardingManager`. Weights, optimiser and learning rate are as they were; random numbers of ranks that are new begin again.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch.distributed.tensor import DTensor, distribute_tensor
from verl.utils.checkpoint.fsdp_checkpoint_manager import FSDPCheckpointManager
from verl.workers.engine.fsdp import transformer_impl

from iranker_verl.training import verl_version
from iranker_verl.training.checkpoints import saved_by
from iranker_verl.training.shards import full_tensor, read_shards


class ReshardingManager(FSDPCheckpointManager):
    """verl's manager of the checkpoints of a model, which also loads those of another number of ranks (FSDP2 only)."""

    def load_checkpoint(self, local_path: str, *args: Any, **kwargs: Any) -> None:
        """Load as verl does, or from the shards of all ranks. Raise UserError where these are not whole."""
        if local_path is None or saved_by(Path(local_path)).ranks == self.world_size:
            return super().load_checkpoint(local_path, *args, **kwargs)
        folder = Path(local_path)
        self._load_weights(read_shards(folder, "model"))
        if self.optimizer is not None:
            self._load_optimizer(read_shards(folder, "optim"))
        self._load_extra(folder, saved_by(folder).ranks)
        torch.distributed.barrier()
        return None

    def _load_weights(self, shards: Sequence[dict[str, Any]]) -> None:
        own = self.model.state_dict()
        full = {name: _as_held(own[name], [shard[name] for shard in shards]) for name in shards[0]}
        self.model.load_state_dict(full, strict=not self.is_lora_only_state_dict(full))

    def _load_optimizer(self, shards: Sequence[dict[str, Any]]) -> None:
        parameters = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
        state = {
            number: {name: _as_held(parameters[number], [s["state"][number][name] for s in shards]) for name in entries}
            for number, entries in shards[0]["state"].items()
        }
        self.optimizer.load_state_dict({"state": state, "param_groups": shards[0]["param_groups"]})

    def _load_extra(self, folder: Path, ranks: int) -> None:
        def read(rank: int) -> dict[str, Any]:
            # as verl reads this file of the run's own; it is not one of tensors alone
            return torch.load(folder / f"extra_state_world_size_{ranks}_rank_{rank}.pt", weights_only=False)

        if (schedule := read(0)["lr_scheduler"]) is not None and self.lr_scheduler is not None:
            self.lr_scheduler.load_state_dict(schedule)
        if self.rank < ranks:
            self.load_rng_state(read(self.rank)["rng"])


def _as_held(own: torch.Tensor, parts: Sequence[Any]) -> Any:
    """Return the tensor that ``parts`` make, or this rank's part of it where ``own`` is a part; the others are not asked."""
    whole = full_tensor(parts)
    if not isinstance(own, DTensor) or not isinstance(parts[0], DTensor):
        return whole
    return distribute_tensor(whole.to(own.device), own.device_mesh, own.placements, src_data_rank=None)


verl_version.require("a resume on another number of GPUs")
transformer_impl.FSDPCheckpointManager = ReshardingManager  # type: ignore[misc]
