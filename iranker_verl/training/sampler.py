"""A replay buffer that returns as soon as a batch of episodes is complete, and never waits without end.

verl's own polls every 2.0 seconds, which is most of a tiny model's step, and waits for ever for prompts whose worker was
killed. Chosen by ``trainer.v1.sampler.custom_sampler.{path,name}``; its options are
``trainer.v1.sampler.sampler_kwargs.poll_interval`` and ``.deadline_s``.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from typing import Any, Protocol

from transfer_queue import KVBatchMeta
from verl.trainer.ppo.v1.replay_buffer import ReplayBuffer, ReplayBufferAsync

from iranker_verl.console import WAITS

LOG_INTERVAL_S = 15.0


class Rollout(Protocol):
    """What runs the episodes: :class:`iranker_verl.training.recovery.RecoveringManager`."""

    def replace_dead_workers(self, partition_id: str) -> int:
        """Run the unfinished prompts of dead workers again, and return how many these are."""


class PromptReplayBuffer(ReplayBuffer):
    """verl's synchronous replay buffer, polled every ``poll_interval`` seconds (0.05 by default).

    While it waits it has :attr:`rollout` replace workers that have died. It raises RuntimeError when for ``deadline_s``
    seconds (1800 by default) no prompt has changed its status and no row has been stored.
    """

    rollout: Rollout | None = None  # set by the trainer
    on_wait: Callable[[], None] = staticmethod(lambda: None)  # called while it waits, set by the trainer

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        options = kwargs.get("sampler_kwargs") or {}
        interval = float(options.get("poll_interval", 0.05))
        self.deadline_s = float(options.get("deadline_s", 1800.0))
        super().__init__(*args, **(kwargs | {"poll_interval": interval}))

    def sample(self, global_steps: int, partition_id: str, batch_size: int) -> tuple[KVBatchMeta, dict]:
        """Return a complete batch as verl does; the metrics say how many prompts were run again (usually 0)."""
        self._seen: tuple[int, ...] = ()
        self._changed_at = self._logged_at = time.monotonic()
        self._run_again = 0
        try:
            batch, metrics = super().sample(global_steps, partition_id, batch_size)
        except RuntimeError as error:
            if "no materializable trajectories" not in str(error):
                raise
            raise _all_failed(batch_size) from None  # verl's own names an option that has no effect here
        return batch, metrics | {f"{self._metrics_prefix(partition_id)}/prompts_run_again": self._run_again}

    def _wait_for_next_poll(self, partition_id: str, last_debug_time: float) -> float:
        self.on_wait()
        if self.rollout is not None:
            self._run_again += self.rollout.replace_dead_workers(partition_id)
        self._end_idle_wait(partition_id)
        return super()._wait_for_next_poll(partition_id, last_debug_time)

    def _end_idle_wait(self, partition_id: str) -> None:
        pending, running = len(self.pending_keys[partition_id]), len(self.running_keys[partition_id])
        finished = len(self.finished_keys[partition_id]) + len(self.failure_keys[partition_id])
        if time.monotonic() - self._logged_at > LOG_INTERVAL_S:
            self._logged_at = time.monotonic()
            print(f"{WAITS}{partition_id}: {pending} prompts not begun, {running} run, {finished} done", flush=True)
        seen = (pending, running, finished, len(self.partitions[partition_id]))
        if seen != self._seen:
            self._seen, self._changed_at = seen, time.monotonic()
        elif time.monotonic() - self._changed_at > self.deadline_s:
            raise RuntimeError(
                f"no episode has ended for {self.deadline_s:g} s: {finished} prompts are done, {running} run, {pending} have "
                "not begun. A process of the rollout hangs or is gone; give the same command to resume, or raise "
                "trainer.v1.sampler.sampler_kwargs.deadline_s if single episodes take that long"
            )


class AsyncPromptReplayBuffer(PromptReplayBuffer, ReplayBufferAsync):
    """The same for ``trainer_mode=colocate_async``, whose failed tasks are replaced by new ones."""

    def sample(self, global_steps: int, partition_id: str, batch_size: int) -> tuple[KVBatchMeta, dict]:
        """Return a complete batch as verl does. Raise RuntimeError where as many tasks fail as the batch has."""
        self._batch_size, self._failed = batch_size, 0
        return super().sample(global_steps, partition_id, batch_size)

    def _evict_terminal_groups(
        self, global_steps: int, partition_id: str, eviction_reasons: tuple[set[str], set[str], set[str], Counter]
    ) -> tuple[set[str], int, int, dict]:
        self._failed += len(eviction_reasons[2])
        if self._failed >= self._batch_size:  # verl would draw, and lose, new ones without end
            raise _all_failed(self._failed)
        return super()._evict_terminal_groups(global_steps, partition_id, eviction_reasons)


def _all_failed(prompts: int) -> RuntimeError:
    return RuntimeError(
        f"all {prompts} prompts of a batch failed, as when vLLM has died; the log has the cause, at 'Error in _run_prompt'"
    )
