"""verl's colocated asynchronous trainer with credit for every exclusion: ``trainer.v1.trainer_mode=colocate_async``.

A batch ends with the first ``data.train_batch_size`` tasks whose rollouts are all done, so a step does not wait for its longest
episodes: they are interrupted, and continue after the update with the new weights. ``num_warmup_batches`` more are in flight. A
task's rows still come together (:class:`verl.trainer.ppo.v1.replay_buffer.ReplayBufferAsync` takes whole tasks), so credit is that
of the synchronous trainer; what differs is how old the policy is that answered (``training/off_policy/*``).

A checkpoint holds the queue of rows: a resumed run trains tasks that were done, and runs those again that were not.

verl's ``separate_async`` is refused (:mod:`iranker_verl.preflight.recipe`): it makes one optimiser step of every
``train_batch_size / parameter_sync_step`` tasks it samples, where ours cuts a batch into steps, and its weights travel between
GPUs only (``checkpoint_engine.backend`` may not be ``naive``), so that nothing of it can be shown without them.
"""

from __future__ import annotations

from typing import Any

import transfer_queue as tq
from verl.trainer.ppo.v1.trainer_colocate_async import PPOTrainerColocateAsync

from iranker_verl.training.sampler import AsyncPromptReplayBuffer, PromptReplayBuffer
from iranker_verl.training.trainer import EliminationTrainer


class ColocatedTrainer(PPOTrainerColocateAsync, EliminationTrainer):
    """See the module's docstring. verl's class has the hooks around a step, ours has the step."""

    def _build_replay_buffer(self) -> Any:
        custom = self.config.trainer.v1.sampler.custom_sampler
        if custom.name == PromptReplayBuffer.__name__:
            custom.name = AsyncPromptReplayBuffer.__name__
        return super()._build_replay_buffer()

    def _load_checkpoint(self) -> None:
        super()._load_checkpoint()
        drop_trained_rows()


def drop_trained_rows(partition_id: str = "train") -> int:
    """Remove rows without a task from the queue, and return their number.

    verl 0.9.1 saves the queue after it has taken the tasks of a step out of it and before it does so with their rows, which no step
    would ever read again: after each resume a batch more would fill it.
    """
    tags = (tq.kv_list(partition_id) or {}).get(partition_id, {})
    tasks = {key for key, tag in tags.items() if tag.get("is_prompt")}
    if left := [key for key in tags if key.split("_")[0] not in tasks]:
        tq.kv_clear(keys=left, partition_id=partition_id)
    return len(left)
