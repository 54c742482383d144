"""verl's synchronous trainer, with the checkpoints that an unattended run needs.

* The step's line of metrics is written before its checkpoint, so that a resumed run has every line up to it.
* Room on the disk is checked before a checkpoint, and for the next one after it: the run then ends with nothing lost.
* What is beyond the newest checkpoints that are kept and the best one is removed after each (:mod:`iranker_verl.training.checkpoints`).
* On request (:mod:`iranker_verl.training.ending`) the last step that is done is saved, and the run ends.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transfer_queue import KVBatchMeta
from verl.trainer.ppo.v1.trainer_sync import PPOTrainerSync

from iranker_verl.errors import UserError
from iranker_verl.training import checkpoints, ending
from iranker_verl.training.metrics_log import MetricsLog


class SavingTrainer(PPOTrainerSync):
    """See the module's docstring. Writes the run's ``metrics.jsonl``."""

    def init(self) -> None:
        """Set up as verl does, then resume the metrics file where the last checkpoint left it."""
        super().init()
        self._updated = self._saved = self.global_steps  # the last steps whose updates are done, and that are saved
        self._requests = ending.Requests(Path(self.config.iranker.run_dir))
        self.metrics_log = MetricsLog(Path(self.config.iranker.run_dir, "metrics.jsonl"), last_step=self.global_steps)

    def fit(self, agent_loop_manager: Any) -> None:
        """Train. While the replay buffer waits, look for a request to end."""
        self.replay_buffer.on_wait = self._end_if_requested  # type: ignore[attr-defined]  # it is our own replay buffer
        super().fit(agent_loop_manager)

    def step(self, metrics: dict, timing_raw: dict) -> KVBatchMeta:
        """Take a step as verl does, unless the run is to end; keep what saving in its middle, or at its end, needs."""
        self._metrics, self._loader_state = metrics, self.train_dataloader.state_dict()
        self._end_if_requested()
        batch = super().step(metrics, timing_raw)
        self._updated = self.global_steps
        return batch

    def _compute_metrics(
        self, batch: KVBatchMeta, metrics: dict, timing_raw: dict, global_steps: int, epoch: int
    ) -> None:
        super()._compute_metrics(batch, metrics, timing_raw, global_steps, epoch)
        self.metrics_log.append(global_steps, self.total_training_steps, metrics, timing_raw)

    def _save_checkpoint(self) -> None:
        """Save the present step. Raise UserError where the disk has no room for it, or, with it saved, for the next one."""
        step = self.global_steps
        if step > self.metrics_log.last_step:  # it is validated after this
            self.metrics_log.append(step, self.total_training_steps, self._metrics, self.timing_raw, complete=False)
        if checkpoints.lack_of_room(self.config):
            checkpoints.prune(self.config, kept=1)
        checkpoints.check_room(self.config)
        try:
            with checkpoints.all_kept(self.config):
                super()._save_checkpoint()
        except Exception:
            checkpoints.check_room(self.config, partial=step)  # a full disk is reported as one
            raise
        self._saved = step
        checkpoints.prune(self.config)
        if step < self.total_training_steps:
            checkpoints.check_room(self.config)

    def _end_if_requested(self) -> None:
        """Save the last step that is done and raise UserError, where the run is to end.

        While a batch is generated, weights and optimiser are those of the step before it, and the loader is ahead by that batch.
        An asynchronous trainer saves with them the prompts that are in flight.
        """
        if not self._requests.pending():
            return
        if self._updated > self._saved:
            ahead, self.global_steps = self.global_steps > self._updated, self._updated
            self._save_checkpoint()
            if ahead and self.config.trainer.v1.trainer_mode == "sync":
                folder = Path(self.config.trainer.default_local_dir) / f"global_step_{self._updated}"
                torch.save(self._loader_state, folder / "data.pt")
        raise UserError(f"ended by SIGTERM, with step {self._updated} saved; give the same command to resume")
