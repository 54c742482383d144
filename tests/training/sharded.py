"""A tiny model on several ranks (gloo), saved and loaded by verl's manager of checkpoints; run as a module of its own process.

``python -m tests.training.sharded RANKS FOLDER LOAD SAVE STEPS …``: load ``FOLDER/LOAD`` (``-``: nothing), take STEPS optimiser steps,
save ``FOLDER/SAVE``, and so on with further pairs; print the mean of the loss, one a step. The rows of a step are the same whatever the number of ranks.
"""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path

ROWS, LENGTH, VOCABULARY = 4, 8, 512


def work(rank: int, ranks: int, port: int, folder: str, load: str, *saves: str) -> None:
    import torch
    from omegaconf import OmegaConf
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    from iranker_verl.training.resharding import ReshardingManager
    from tests import tiny_models

    torch.set_num_threads(1)
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.distributed.init_process_group("gloo", rank=rank, world_size=ranks)
    torch.manual_seed(0)
    # one layer of an odd size, so that ranks hold parts of different lengths
    model = tiny_models.qwen2(VOCABULARY, hidden_size=65, num_hidden_layers=1, head_dim=32)
    mesh = init_device_mesh("cpu", (ranks,), mesh_dim_names=("fsdp",))
    for layer in model.model.layers:
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 / (1 + step))
    parts = OmegaConf.create(
        {"save_contents": ["model", "optimizer", "extra"], "load_contents": ["model", "optimizer", "extra"]}
    )
    manager = ReshardingManager(model, optimizer, schedule, tiny_models.tokenizer(), checkpoint_config=parts)
    if load != "-":
        manager.load_checkpoint(f"{folder}/{load}")
    for save, steps in zip(saves[::2], saves[1::2], strict=True):
        for _ in range(int(steps)):
            done = schedule.last_epoch
            rows = torch.randint(
                VOCABULARY, (ROWS, LENGTH), generator=torch.Generator().manual_seed(0)
            )  # learned by heart
            own = rows[rank::ranks]
            loss = model(input_ids=own, labels=own).loss  # a mean over rows, and FSDP's gradients are means over ranks
            loss.backward()
            optimizer.step(), optimizer.zero_grad(), schedule.step()
            torch.distributed.all_reduce(whole := loss.detach() / ranks)
            if rank == 0:
                print(f"loss {done} {whole.item():.7f}", flush=True)
        manager.save_checkpoint(f"{folder}/{save}")
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    import torch.multiprocessing

    ranks, folder, *others = sys.argv[1:]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    Path(folder).mkdir(exist_ok=True)
    torch.multiprocessing.spawn(work, (int(ranks), port, folder, *others), nprocs=int(ranks))
