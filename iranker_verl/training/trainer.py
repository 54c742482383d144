"""verl's synchronous PPO trainer with credit for every exclusion.

What differs from :class:`verl.trainer.ppo.v1.trainer_sync.PPOTrainerSync`, and where it is computed:

* ``algorithm.adv_estimator=exclusion_grpo``, ``exclusion_gae``, ``exclusion_expected`` and ``exclusion_order`` take step-level advantages from
  :mod:`iranker_verl.training.credit` (verl's own ``grpo`` uses each session's last row only, its ``gae`` cuts an episode at
  every step), and the last one the loss of :mod:`iranker_verl.training.policy_loss`; every other estimator is verl's;
* ``iranker.credit.weights`` says how rows weigh in the loss (:func:`iranker_verl.training.credit.row_weights`);
* the number of optimiser steps of a batch does not depend on its number of rows (:mod:`iranker_verl.training.optimizer_steps`);
* with ``iranker.curriculum`` a batch has the tasks that :mod:`iranker_verl.training.curriculum` draws;
* ``iranker.token_budget`` ends training (:mod:`iranker_verl.training.token_budget`);
* lines of ``trainer.rollout_data_dir`` tell the prompt of each response (:mod:`iranker_verl.training.rollout_dump`);
* metrics and checkpoints are written by :mod:`iranker_verl.training.saving`.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
import transfer_queue as tq
from tensordict import TensorDict
from transfer_queue import KVBatchMeta
from verl.trainer.ppo import padding_utils
from verl.utils import tensordict_utils as tu
from verl.utils.dataset.rl_dataset import collate_fn
from verl.utils.metric import reduce_metrics
from verl.utils.py_functional import rename_dict
from verl.utils.seqlen_balancing import log_seqlen_unbalance

from iranker_verl.console import say
from iranker_verl.ranking.label_tokens import label_tokens
from iranker_verl.training import credit, optimizer_steps, policy_loss, rollout_dump, token_budget, verl_version
from iranker_verl.training.curriculum import FIRST_POOL, Curriculum, pool_sizes
from iranker_verl.training.metrics_log import step_metrics
from iranker_verl.training.rollout_correction import rollout_correction
from iranker_verl.training.saving import SavingTrainer
from iranker_verl.training.step_record import StepRecord

# verl's own padding rows have 128 tokens, more than many a real row.
verl_version.require("the length of padding rows")
padding_utils.SYNTHETIC_PADDING_SEQ_LEN = optimizer_steps.PADDING_TOKENS


class EliminationTrainer(SavingTrainer):
    """See the module's docstring. Reads ``config.iranker.*``."""

    def init(self) -> None:
        """Set up as verl does, then resume the metrics file and the curriculum where the last checkpoint left them."""
        say("loading the model, for updates and into vLLM")
        super().init()
        if self.config.algorithm.adv_estimator in credit.LABEL_ESTIMATORS:
            largest = max(max(candidates.values()) for candidates in self._pool_sizes.values())
            label_tokens(self.tokenizer, largest)  # an error now and not after the first rollout
        self.curriculum = self._resume_curriculum()
        self._end_by_tokens()

    def fit(self, agent_loop_manager: Any) -> None:
        """Train. While the replay buffer waits, ``agent_loop_manager`` replaces workers that die."""
        self.replay_buffer.rollout = agent_loop_manager  # type: ignore[attr-defined]  # it is our own replay buffer
        say("playing the first episodes")
        super().fit(agent_loop_manager)

    # ------------------------------------------------------------------ which tasks a batch has

    @cached_property
    def _pool_sizes(self) -> dict[str, dict[int, int]]:
        return pool_sizes(self.train_dataset.dataframe)

    def _resume_curriculum(self) -> Curriculum | None:
        options = self.config.iranker.curriculum
        if options.first_pool is None:
            return None
        curriculum = Curriculum(self._pool_sizes, seed=self.config.iranker.seed, **options)
        curriculum.replay(self.metrics_log.lines, self.config.data.train_batch_size)
        return curriculum

    def _next_train_batch(self, num_prompts: int | None = None) -> TensorDict:
        """Return verl's next batch, or with a curriculum the tasks that it draws.

        The curriculum reads the data set itself, since verl's loader fixes the order of an epoch before the first step.
        """
        if self.curriculum is None:
            return super()._next_train_batch(num_prompts)
        indices = self.curriculum.draw(num_prompts or self.config.data.train_batch_size)
        batch = collate_fn([self.train_dataset[index] for index in indices])
        batch["uid"] = np.array([str(uuid.uuid4()) for _ in indices], dtype=object)
        batch[FIRST_POOL] = np.array([self.curriculum.size[source] for source in batch["data_source"]], dtype=object)
        rows = tu.get_tensordict(batch)
        tu.assign_non_tensor_data(rows, "global_steps", self.global_steps)
        return rows

    # ------------------------------------------------------------------ optimiser steps a batch

    @property
    def _roles(self) -> list[Any]:
        """The configs of what learns: the actor, and the critic where there is one."""
        return [self.config.actor_rollout_ref.actor] + ([self.config.critic] if self.use_critic else [])

    def _steps_per_epoch(self, role: Any) -> int:
        return optimizer_steps.steps_per_epoch(self.config.data.train_batch_size, role)

    def _get_required_batch_multiple(self, dp_size: int) -> int:
        # old log-probs and the reference's are computed of the whole batch at once, in micro-batches of their own size
        bypass = (self.config.algorithm.rollout_correction or {}).get("bypass_mode")
        passes = [] if bypass else [self.config.actor_rollout_ref.rollout]
        passes += [self.config.actor_rollout_ref.ref] if self.use_reference_policy else []
        sizes = [p.log_prob_micro_batch_size_per_gpu for p in passes if not p.log_prob_use_dynamic_bsz]
        return optimizer_steps.batch_multiple(self.config.data.train_batch_size, self._roles, sizes, dp_size)

    def _balance_batch(self, batch: KVBatchMeta, metrics: dict, *_: Any, **__: Any) -> KVBatchMeta:
        """Pad the batch, and order its rows by :func:`optimizer_steps.order_rows`.

        With verl's own order, what an optimiser step learns from depends on the number of ranks.
        """
        info = self.actor_rollout_wg._dispatch_info
        if "actor" not in info:
            info["actor"] = self.actor_rollout_wg._query_dispatch_info("actor")
        ranks = max(info["actor"]) + 1
        multiple = self._get_required_batch_multiple(ranks)
        batch = padding_utils.upsample_batch_to_divisible_size(batch, multiple, self.tokenizer.eos_token_id)
        parts = optimizer_steps.parts(self.config.data.train_batch_size, self._roles)
        lengths = [tag["seq_len"] for tag in batch.tags]
        order = optimizer_steps.order_rows(lengths, parts, ranks)
        metrics |= log_seqlen_unbalance(lengths, order.reshape(ranks, -1).tolist(), "global_seqlen")
        batch.reorder(order.tolist())
        ordered = [lengths[row] for row in order]
        metrics["perf/slowest_rank_over_mean"] = optimizer_steps.slowest_over_mean(ordered, parts, ranks)
        return batch

    def _update_settings(self, batch: KVBatchMeta, role: Any) -> dict[str, Any]:
        rows, real = len(batch), sum(_is_real(batch))
        temperature = self.config.actor_rollout_ref.rollout.temperature
        return optimizer_steps.update_settings(self.config.data.train_batch_size, role, rows, real, temperature)

    def _update_critic(self, batch: KVBatchMeta, metrics: dict) -> KVBatchMeta:
        batch.extra_info.update(self._update_settings(batch, self.config.critic))
        output = rename_dict(self.critic_wg.train_mini_batch(batch).get()["metrics"], "critic/")
        output["perf/mfu/critic"] = output.pop("critic/mfu")
        metrics.update(reduce_metrics(output))
        return batch

    def _update_actor(self, batch: KVBatchMeta, metrics: dict) -> KVBatchMeta:
        actor = self.config.actor_rollout_ref.actor
        batch.extra_info.update(
            self._update_settings(batch, actor)
            | {
                "calculate_entropy": actor.calculate_entropy or actor.entropy_coeff != 0.0,
                "distillation_use_topk": False,
                "distillation_only": False,
            }
        )
        update = self.actor_rollout_wg.update_actor(batch)["metrics"]
        if computed := update.pop(optimizer_steps.COMPUTED_TOKENS, None):  # of every micro-batch
            metrics["perf/computed_over_real_tokens"] = sum(computed) / (actor.ppo_epochs * _real_tokens(batch))
        output = rename_dict(update, "actor/")
        output["perf/mfu/actor"] = output.pop("actor/mfu")
        metrics.update(reduce_metrics(output))
        metrics["training/optimizer_steps"] = self._steps_per_epoch(actor) * actor.ppo_epochs
        return batch

    # ------------------------------------------------------------------ advantages

    def _compute_advantage(self, batch: KVBatchMeta, metrics: dict) -> KVBatchMeta:
        """Store the advantages and returns of every response token, and what the loss of ``exclusion_expected`` reads."""
        estimator, options = self.config.algorithm.adv_estimator, self.config.iranker.credit
        steps = self._step_records(batch)
        known = [step for step in steps if step is not None]
        metrics.update(self._rollout_metrics(batch, known))
        weights = torch.as_tensor(credit.row_weights(steps, options.weights))
        if estimator not in credit.ESTIMATORS:
            batch = super()._compute_advantage(batch, metrics)
            if options.weights == "none":
                return batch
            data = _get(batch, "advantages", "response_mask")
            weighted = data["advantages"].to_padded_tensor(padding=0.0) * weights[:, None]
            return _put(batch, data["response_mask"], advantages=weighted)
        real = np.array(_is_real(batch))
        data = _get(batch, "response_mask", "old_log_probs", "rollout_log_probs")
        corrections, correction_metrics = rollout_correction(data, self.config.algorithm.rollout_correction)
        metrics.update(correction_metrics)
        mask = data["response_mask"].to_padded_tensor(padding=0)  # (rows, response tokens)
        if estimator in credit.LABEL_ESTIMATORS:
            advantages = returns = policy_loss.label_advantages(steps, weights, mask)
            _store(batch, policy_loss.label_fields(steps, self.tokenizer, estimator))
        else:
            credited = np.zeros((2, len(steps)))  # advantages and returns; padding rows keep 0
            credited[:, real], credit_metrics = self._credit(batch, known, real)
            metrics.update(credit_metrics)
            advantages, returns = (torch.as_tensor(row)[:, None] * mask for row in credited)
            advantages = advantages * weights[:, None]
        return _put(batch, data["response_mask"], advantages=advantages, returns=returns, **corrections)

    def _credit(
        self, batch: KVBatchMeta, steps: Sequence[StepRecord], real: np.ndarray
    ) -> tuple[np.ndarray, dict[str, float]]:
        """Return advantages and returns of the real rows, shape (2, rows), and credit's metrics."""
        options, algorithm = self.config.iranker.credit, self.config.algorithm
        if algorithm.adv_estimator == credit.GAE_ESTIMATOR:
            # entry 0 is the critic's value at the last prompt token (credit.episode_advantages)
            values = _get(batch, "values")["values"].to_padded_tensor(padding=0.0)[:, 0].double().numpy()
            advantages, returns, metrics = credit.episode_advantages(
                steps, values[real], gamma=algorithm.gamma, lam=algorithm.lam, normalise=options.normalise
            )
            return np.stack([advantages, returns]), metrics
        advantages, metrics = credit.step_advantages(steps, prior=options.prior, normalise=options.normalise)
        return np.stack([advantages, advantages]), metrics

    def _rollout_metrics(self, batch: KVBatchMeta, steps: Sequence[StepRecord]) -> dict[str, float]:
        requested = self.config.data.train_batch_size * self.config.actor_rollout_ref.rollout.n
        return {
            "elimination/failed_sessions": requested - len({step.session for step in steps}),
            "tokens/step": _real_tokens(batch),
            **step_metrics(steps),
        }

    @staticmethod
    def _step_records(batch: KVBatchMeta) -> list[StepRecord | None]:
        """Return the record of every row of the batch, in its order; None for a padding row."""
        real = _is_real(batch)
        stored = iter(_plain(_get_real(batch, "extra_fields")["extra_fields"]))
        return [StepRecord.from_dict(next(stored)["step"]) if is_real else None for is_real in real]

    # ------------------------------------------------------------------ trainer.rollout_data_dir

    @cached_property
    def _answer_prefix(self) -> str:
        if self.config.algorithm.adv_estimator not in credit.LABEL_ESTIMATORS:
            return ""
        return str(self.tokenizer.decode(label_tokens(self.tokenizer, 2).prefix))

    def _log_rollout_data(self, batch: KVBatchMeta, timing_raw: dict, rollout_data_dir: str) -> None:
        """Remember the prompt of each response by its key, for :meth:`_dump_generations`, which verl calls with keys alone."""
        steps = {key: step for key, step in zip(batch.keys, self._step_records(batch), strict=True) if step is not None}
        data = _get_real(batch, "extra_info", "reward_model")
        rows = zip(steps.items(), _plain(data["extra_info"]), _plain(data["reward_model"]), strict=True)
        self._ranking = {
            key: rollout_dump.ranking_field(step, info, model["ground_truth"]) for (key, step), info, model in rows
        }
        super()._log_rollout_data(batch, timing_raw, rollout_data_dir)

    def _dump_generations(
        self, inputs: list, outputs: list, gts: list, scores: list, reward_extra_infos_dict: dict, dump_path: str
    ) -> None:
        """Write verl's lines, with whole answers; of training rollouts without padding rows, and with ``ranking``."""
        inputs, outputs = rollout_dump.whole_answers(inputs, outputs, self._answer_prefix)
        extra = reward_extra_infos_dict
        if dump_path == self.config.trainer.get("rollout_data_dir", None):
            columns = (inputs, outputs, gts, scores)
            (inputs, outputs, gts, scores), extra = rollout_dump.real_rows(columns, extra["uid"], self._ranking)
        super()._dump_generations(inputs, outputs, gts, scores, extra, dump_path)

    # ------------------------------------------------------------------ validation

    def _val_metrics_update(
        self,
        data_sources: list,
        sample_uids: list,
        reward_extra_infos_dict: dict,
        sample_turns: list,
        expected_acc_counts: dict | None = None,
    ) -> dict[str, Any]:
        """Return verl's metrics, and the sessions that failed: verl silently leaves them out of its means."""
        metrics = super()._val_metrics_update(
            data_sources, sample_uids, reward_extra_infos_dict, sample_turns, expected_acc_counts
        )
        failed = sum((expected_acc_counts or {}).values()) - len(sample_uids)
        if failed:
            say(
                f"validation: {failed} episodes failed and are in no mean; the cause is above, at 'Error in _run_prompt'"
            )
        return metrics | {"val-aux/failed_sessions": failed}

    # ------------------------------------------------------------------ the end of a step

    def _compute_metrics(
        self, batch: KVBatchMeta, metrics: dict, timing_raw: dict, global_steps: int, epoch: int
    ) -> None:
        super()._compute_metrics(batch, metrics, timing_raw, global_steps, epoch)
        if self.curriculum is not None:
            self.curriculum.observe(metrics)
        self._end_by_tokens()

    def _end_by_tokens(self) -> None:
        self.total_training_steps = token_budget.last_step(
            self.config.iranker.token_budget, self.metrics_log.lines, self.total_training_steps
        )


# ---------------------------------------------------------------------- TransferQueue


def _plain(values: Any) -> list[Any]:
    """Return a non-tensor column as a list; TransferQueue returns a tensordict stack or a list, depending on the backend."""
    return values.tolist() if hasattr(values, "tolist") else list(values)


def _is_real(batch: KVBatchMeta) -> list[bool]:
    """Return of each row whether it is real; verl pads a batch with copies that have no gradient."""
    return [not tag.get("is_padding", False) for tag in batch.tags]


def _real_tokens(batch: KVBatchMeta) -> int:
    return sum(tag["seq_len"] for tag, is_real in zip(batch.tags, _is_real(batch), strict=True) if is_real)


def _get(batch: KVBatchMeta, *fields: str) -> TensorDict:
    return tq.kv_batch_get(keys=batch.keys, partition_id=batch.partition_id, select_fields=list(fields))


def _get_real(batch: KVBatchMeta, *fields: str) -> TensorDict:
    """Return fields of the real rows; padding rows do not have all of them."""
    keys = [key for key, is_real in zip(batch.keys, _is_real(batch), strict=True) if is_real]
    return tq.kv_batch_get(keys=keys, partition_id=batch.partition_id, select_fields=list(fields))


def _put(batch: KVBatchMeta, mask: torch.Tensor, **fields: torch.Tensor) -> KVBatchMeta:
    """Store padded (rows, response tokens) tensors; return verl's new metadata, which lists them. ``mask`` is jagged."""
    return _store(batch, {name: to_nested(values.to(torch.float32), mask) for name, values in fields.items()})


def to_nested(values: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Return padded (rows, tokens) values as a jagged tensor with the lengths of ``like``; verl's own loops over rows."""
    offsets: torch.Tensor = like.offsets()  # type: ignore[attr-defined]  # a jagged tensor has them
    valid = torch.arange(values.shape[1]) < offsets.diff()[:, None]
    return torch.nested.nested_tensor_from_jagged(values[valid], offsets)


def _store(batch: KVBatchMeta, nested: dict[str, torch.Tensor]) -> KVBatchMeta:
    """Store jagged tensors of one entry a row; return verl's new metadata, which lists them."""
    return tq.kv_batch_put(
        keys=batch.keys, partition_id=batch.partition_id, fields=TensorDict(nested, batch_size=len(batch))
    )
