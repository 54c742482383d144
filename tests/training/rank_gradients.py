"""One rank of several: ``python -m tests.training.rank_gradients RANK RANKS MODEL OUT`` saves the gradients of an update."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
import torch.distributed as dist

from benchmarks import update_gpu
from benchmarks.row_lengths import sample_rows
from iranker_verl.training import optimizer_steps
from iranker_verl.training.answer_engine import AnswerOnlyEngine
from iranker_verl.training.main import compose_recipe

ROWS = 8


def save_gradients(rank: int, ranks: int, model: str, out: Path, packed: bool = True) -> None:
    """Take rank's share of a batch of eight rows through the engine, in micro-batches; rank 0 saves all gradients as one."""
    overrides = [f"actor_rollout_ref.model.path={model}", "actor_rollout_ref.actor.ppo_max_token_len_per_gpu=2048"]
    config = compose_recipe("recipes/tiny_cpu", overrides)
    engine, loss = update_gpu.make_engine(config, AnswerOnlyEngine)
    lengths = sample_rows("iranker_3b", ROWS)
    batch = update_gpu.make_batch(lengths, 1024, config, packed)
    order = optimizer_steps.order_rows([sum(row) for row in lengths], parts=1, ranks=ranks)
    own = order.reshape(ranks, -1)[rank].tolist()
    mine = update_gpu.tu.index_select_tensor_dict(batch, own)
    with engine.train_mode():
        engine.forward_backward_batch(mine, loss, forward_only=False)
        gradients = [
            p.grad.full_tensor() if hasattr(p.grad, "full_tensor") else p.grad for p in engine.module.parameters()
        ]
    if rank == 0:
        torch.save(torch.cat([g.flatten() for g in gradients]), out)


if __name__ == "__main__":
    torch.set_num_threads(1)
    rank, ranks, model, out = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], Path(sys.argv[4])
    dist.init_process_group("gloo", init_method=f"file://{out}.store", rank=rank, world_size=ranks)
    save_gradients(rank, ranks, model, out)
    dist.destroy_process_group()
