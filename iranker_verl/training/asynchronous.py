"""verl's colocated asynchronous trainer with credit for every exclusion: ``trainer.v1.trainer_mode=colocate_async``.

A batch ends with the first ``data.train_batch_size`` tasks whose rollouts are all done, so a step does not wait for its longest
episodes: they are interrupted, and continue after the update with the new weights. ``num_warmup_batches`` more are in flight. A
task's rows still come together (:class:`verl.trainer.ppo.v1.replay_buffer.ReplayBufferAsync` takes whole tasks), so credit is that
of the synchronous trainer; what differs is how old the policy is that answered (``training/off_policy/*``).

verl's ``separate_async`` is refused (:mod:`iranker_verl.preflight.recipe`): it makes one optimiser step of every
``train_batch_size / parameter_sync_step`` tasks it samples, where ours cuts a batch into steps, and its weights travel between
GPUs only (``checkpoint_engine.backend`` may not be ``naive``), so that nothing of it can be shown without them.
"""

from __future__ import annotations

from typing import Any

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
