"""The driver's own work of a step, beside the workers': ``python -m benchmarks.driver_step [ROWS]``. 50,000 rows by default.

Rows of episodes of ten candidates, four rollouts a task, are put in order for 64 ranks, given advantages and counted.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from transfer_queue import KVBatchMeta
from verl.utils.seqlen_balancing import log_seqlen_unbalance

from iranker_verl.training import credit, optimizer_steps
from iranker_verl.training.metrics_log import step_metrics
from iranker_verl.training.step_record import StepRecord
from iranker_verl.training.trainer import to_nested

RANKS, PARTS, POOL, ROLLOUTS = 64, 8, 10, 4


def records(rows: int) -> list[dict[str, Any]]:
    """Return the records of ``rows`` exclusions, as TransferQueue returns them."""
    draw = np.random.default_rng(0)
    made = []
    for number in range(rows):
        session, step = divmod(number, POOL - 1)
        pool = tuple(f"c{i}" for i in range(POOL - step))
        reward = float(draw.random())
        record = StepRecord(
            task=f"t{session // ROLLOUTS}",
            session=f"t{session // ROLLOUTS}_{session % ROLLOUTS}",
            candidate_ids=pool,
            reward=reward,
            expected_reward=0.5,
            counterfactual_rewards=(0.5,) * (len(pool) + 1),
            reward_parts={"score": reward, "corrected": reward - 0.5},
            malformed=False,
            positive_survived=True,
            dataset="rec-movie",
            reciprocal_rank=0.5,
            calls=POOL - 1,
        )
        made.append(record.to_dict())
    return made


def main() -> None:
    """Print the seconds of each part, and in all."""
    rows = int(sys.argv[1]) if len(sys.argv) > 1 else 50_000
    rows -= rows % (RANKS * PARTS)
    stored = records(rows)
    lengths = np.random.default_rng(0).integers(300, 2400, rows).tolist()
    mask = torch.nested.nested_tensor_from_jagged(
        torch.ones(rows * 4), torch.arange(0, rows * 4 + 1, 4), min_seqlen=4, max_seqlen=4
    )
    total = 0.0

    def timed(name: str, call: Callable[[], Any]) -> Any:
        nonlocal total
        start = time.process_time()  # one thread: the same as a clock's on a machine that has nothing else to do
        result = call()
        total += (seconds := time.process_time() - start)
        print(f"{name}: {seconds:.2f} s")
        return result

    batch = KVBatchMeta(
        keys=[str(i) for i in range(rows)], tags=[{"seq_len": n} for n in lengths], partition_id="train"
    )
    order = timed("order of rows", lambda: optimizer_steps.order_rows(lengths, PARTS, RANKS))
    timed("balance metrics", lambda: log_seqlen_unbalance(lengths, order.reshape(RANKS, -1).tolist(), "global_seqlen"))
    timed("reorder", lambda: batch.reorder(order.tolist()))
    steps = timed("records", lambda: [StepRecord.from_dict(record) for record in stored])
    timed("advantages", lambda: credit.step_advantages(steps, prior=8.0, normalise="batch"))
    timed("session weights", lambda: credit.row_weights(steps))
    timed("metrics", lambda: step_metrics(steps))
    timed("nested advantages", lambda: to_nested(torch.ones(rows, 4), mask))
    print(f"{rows} rows: {total:.2f} s in all")


if __name__ == "__main__":
    main()
