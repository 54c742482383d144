"""verl's synchronous PPO trainer with credit for every exclusion.

Six things differ from :class:`verl.trainer.ppo.v1.trainer_sync.PPOTrainerSync`:

* ``algorithm.adv_estimator=exclusion_grpo``, ``exclusion_expected`` and ``exclusion_gae`` take step-level advantages from
  :mod:`iranker_verl.training.credit` (verl's own ``grpo`` uses each session's last row only, its ``gae`` cuts an episode at
  every step); every other estimator is verl's, over all rows;
* every session weighs the same in the loss, however many exclusions it took (``iranker.credit.balance_sessions``);
* a batch takes ``data.train_batch_size / actor.ppo_mini_batch_size`` optimiser steps, whatever its number of rows. verl
  counts rows, so episodes of N - 1 rows would take N - 1 times the steps, and a varying number of them;
* with ``iranker.curriculum`` a batch has the tasks that :mod:`iranker_verl.training.curriculum` draws;
* ``iranker.token_budget`` ends training by what the LLM has read and written, so that algorithms can be compared at equal
  cost;
* the lines of ``trainer.rollout_data_dir`` say what was asked, under ``ranking``: see :meth:`EliminationTrainer._asked_of`.
"""

from __future__ import annotations

import math
import time
import uuid
from collections import defaultdict
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow.compute as pc
import torch
import transfer_queue as tq
from tensordict import TensorDict
from transfer_queue import KVBatchMeta
from verl import DataProto
from verl.trainer.ppo.rollout_corr_helper import compute_rollout_correction_and_add_to_batch
from verl.trainer.ppo.v1.trainer_sync import PPOTrainerSync
from verl.utils import tensordict_utils as tu
from verl.utils.dataset.rl_dataset import collate_fn
from verl.utils.metric import reduce_metrics
from verl.utils.py_functional import rename_dict
from verl.workers.utils.padding import response_to_nested

from iranker_verl.ranking.label_tokens import label_tokens
from iranker_verl.training import credit
from iranker_verl.training.curriculum import FIRST_POOL, Curriculum
from iranker_verl.training.metrics_log import MetricsLog, step_metrics


def _plain(values: Any) -> list[Any]:
    """A non-tensor column as a list; TransferQueue returns a tensordict stack or a plain list, depending on the backend."""
    return values.tolist() if hasattr(values, "tolist") else list(values)


def _real(batch: KVBatchMeta) -> list[bool]:
    """Of each row, whether it is one; verl fills a batch up with copies that teach nothing."""
    return [not tag.get("is_padding", False) for tag in batch.tags]


def dealt(lengths: Sequence[int], ranks: int, updates: int) -> list[int]:
    """The order of rows in which each rank's ``len(lengths) / ranks`` rows, cut into ``updates`` equal parts, have like
    lengths side by side, and each part its share of every length.

    >>> dealt([5, 1, 4, 2, 3, 6], ranks=1, updates=2)
    [1, 4, 0, 3, 2, 5]
    """
    share = len(lengths) // ranks
    order = []
    for first in range(0, len(lengths), share):
        by_length = sorted(range(first, first + share), key=lambda i: lengths[i])
        order += [i for part in range(updates) for i in by_length[part::updates]]
    return order


def rollout_correction(data: TensorDict, config: Any) -> tuple[dict[str, torch.Tensor], dict[str, float]]:
    """verl's correction for a vLLM that computes other log-probs than the actor does, as its own estimators have it.

    ``data`` has the jagged ``response_mask``, ``old_log_probs`` and ``rollout_log_probs``. Returns what verl's actor reads,
    (rows, tokens): the ``response_mask`` without what ``rollout_rs`` rejects, and with ``rollout_is`` its
    ``rollout_is_weights``; and the metrics ``rollout_corr/…``. Nothing in bypass mode, where vLLM's log-probs are the old ones.
    """
    if config is None or config.get("bypass_mode") or data.get("rollout_log_probs", None) is None:
        return {}, {}
    batch = DataProto(batch=data.to_padded_tensor())
    batch, metrics = compute_rollout_correction_and_add_to_batch(batch, config)
    names = {"response_mask", "rollout_is_weights"}.intersection(batch.batch.keys())
    return {name: batch.batch[name] for name in names}, metrics


class EliminationTrainer(PPOTrainerSync):
    """See the module's docstring. Reads ``config.iranker.credit`` and writes ``config.iranker.metrics_file``."""

    def init(self) -> None:
        super().init()
        self._save_due = False
        if self.config.algorithm.adv_estimator == credit.EXPECTED_ESTIMATOR:
            most = max(max(candidates.values()) for candidates in self._pools.values())
            label_tokens(self.tokenizer, most)  # an error now and not after the first rollout
        self.metrics_log = MetricsLog(self.config.iranker.metrics_file, last_step=self.global_steps)
        self.curriculum = self._begin_curriculum()
        self._end_by_tokens()

    def fit(self, agent_loop_manager: Any) -> None:
        """Train. While the replay buffer waits, ``agent_loop_manager`` replaces workers that die."""
        self.replay_buffer.rollout = agent_loop_manager
        super().fit(agent_loop_manager)

    # ------------------------------------------------------------------ which tasks a batch has

    def _begin_curriculum(self) -> Curriculum | None:
        """The curriculum as far as the steps written so far have brought it; None where the recipe has none."""
        options = self.config.iranker.curriculum
        if options.first_pool is None:
            return None
        curriculum = Curriculum(self._pools, seed=self.config.iranker.seed, **options)
        for line in self.metrics_log.lines:
            curriculum.draw(self.config.data.train_batch_size)
            curriculum.observe(line)
        return curriculum

    @cached_property
    def _pools(self) -> dict[str, dict[int, int]]:
        """By dataset, the places of its training rows and the number of candidates of each."""
        table = self.train_dataset.dataframe.select_columns(["data_source", "reward_model"]).with_format("arrow")[:]
        pools = pc.struct_field(table["reward_model"], ["ground_truth", "candidates"])
        rows: dict[str, dict[int, int]] = defaultdict(dict)
        for place, (dataset, candidates) in enumerate(
            zip(table["data_source"].to_pylist(), pc.list_value_length(pools).to_pylist(), strict=True)
        ):
            rows[dataset][place] = candidates
        return rows

    def _next_train_batch(self, num_prompts: int | None = None) -> TensorDict:
        """verl's, or with a curriculum the tasks that it draws, from the data set itself: verl's loader decides on an epoch's
        order before the first step."""
        if self.curriculum is None:
            return super()._next_train_batch(num_prompts)
        places = self.curriculum.draw(num_prompts or self.config.data.train_batch_size)
        batch = collate_fn([self.train_dataset[place] for place in places])
        batch["uid"] = np.array([str(uuid.uuid4()) for _ in places], dtype=object)
        batch[FIRST_POOL] = np.array([self.curriculum.size[source] for source in batch["data_source"]], dtype=object)
        rows = tu.get_tensordict(batch)
        tu.assign_non_tensor_data(rows, "global_steps", self.global_steps)
        return rows

    # ------------------------------------------------------------------ optimiser steps a batch

    def _updates(self, role: Any) -> int:
        """Optimiser steps a batch and epoch, in tasks: train_batch_size / ppo_mini_batch_size."""
        return max(1, self.config.data.train_batch_size // role.ppo_mini_batch_size)

    @property
    def _roles(self) -> list[Any]:
        """The configs of what learns: the actor, and the critic where there is one."""
        return [self.config.actor_rollout_ref.actor] + ([self.config.critic] if self.use_critic else [])

    def _get_required_batch_multiple(self, dp_size: int) -> int:
        multiple = dp_size
        for role in self._roles:
            micro = 1 if role.use_dynamic_bsz else role.ppo_micro_batch_size_per_gpu
            multiple = math.lcm(multiple, self._updates(role) * dp_size * micro)
        # old log-probs and the reference's go over the whole batch at once, in micro-batches of their own size
        bypass = (self.config.algorithm.rollout_correction or {}).get("bypass_mode")
        passes = [] if bypass else [self.config.actor_rollout_ref.rollout]
        passes += [self.config.actor_rollout_ref.ref] if self.use_reference_policy else []
        sizes = [p.log_prob_micro_batch_size_per_gpu for p in passes if not p.log_prob_use_dynamic_bsz]
        return math.lcm(multiple, *(dp_size * size for size in sizes))

    def _balance_batch(self, batch: KVBatchMeta, *args: Any, **kwargs: Any) -> KVBatchMeta:
        """verl's, and then each rank's rows such that micro-batches of fixed size hold little padding.

        The rows of a rank, by length, are dealt out to its mini-batches one after the other: each has its share of every
        length, and holds them in order.
        """
        batch = super()._balance_batch(batch, *args, **kwargs)
        updates = {self._updates(role) for role in self._roles}
        if len(updates) > 1 or any(role.shuffle or role.use_dynamic_bsz for role in self._roles):
            return batch
        ranks = max(self.actor_rollout_wg._dispatch_info["actor"]) + 1
        batch.reorder(dealt([tag["seq_len"] for tag in batch.tags], ranks, updates.pop()))
        return batch

    def _training_info(self, batch: KVBatchMeta, role: Any) -> dict[str, Any]:
        updates = self._updates(role)
        return {
            # what verl's seq-mean losses divide by (policy, entropy, KL, value): real rows, and not those that fill the batch up
            "global_batch_size": sum(_real(batch)) / updates,
            "mini_batch_size": len(batch) // updates,
            "epochs": role.ppo_epochs,
            "seed": role.data_loader_seed,
            "dataloader_kwargs": {"shuffle": role.shuffle},
            "temperature": self.config.actor_rollout_ref.rollout.temperature,
        }

    def _update_critic(self, batch: KVBatchMeta, metrics: dict) -> KVBatchMeta:
        batch.extra_info.update(self._training_info(batch, self.config.critic))
        output = rename_dict(self.critic_wg.train_mini_batch(batch).get()["metrics"], "critic/")
        output["perf/mfu/critic"] = output.pop("critic/mfu")
        metrics.update(reduce_metrics(output))
        return batch

    def _update_actor(self, batch: KVBatchMeta, metrics: dict) -> KVBatchMeta:
        actor = self.config.actor_rollout_ref.actor
        batch.extra_info.update(
            self._training_info(batch, actor)
            | {
                "calculate_entropy": actor.calculate_entropy or actor.entropy_coeff != 0.0,
                "distillation_use_topk": False,
                "distillation_only": False,
            }
        )
        output = rename_dict(self.actor_rollout_wg.update_actor(batch)["metrics"], "actor/")
        output["perf/mfu/actor"] = output.pop("actor/mfu")
        metrics.update(reduce_metrics(output))
        metrics["training/optimizer_steps"] = self._updates(actor) * actor.ppo_epochs
        return batch

    # ------------------------------------------------------------------ advantages

    def _compute_advantage(self, batch: KVBatchMeta, metrics: dict) -> KVBatchMeta:
        real = np.array(_real(batch))
        rows, fields = self._step_rows(batch, real.tolist())
        left = iter(rows)
        sessions = [next(left).session if is_real else None for is_real in real]
        asked = self.config.data.train_batch_size * self.config.actor_rollout_ref.rollout.n
        metrics["elimination/failed_sessions"] = asked - len({row.session for row in rows})
        metrics.update(step_metrics(rows, fields))
        lengths = [tag["seq_len"] for tag, is_real in zip(batch.tags, real, strict=True) if is_real]
        metrics["tokens/step"] = sum(lengths)

        options = self.config.iranker.credit
        weights = credit.session_weights(sessions) if options.balance_sessions else np.ones(len(real))
        if self.config.algorithm.adv_estimator not in credit.ESTIMATORS:
            batch = super()._compute_advantage(batch, metrics)
            if not options.balance_sessions:
                return batch
            data = self._get(batch, "advantages", "response_mask")
            weighted = data["advantages"].to_padded_tensor(padding=0.0) * torch.as_tensor(weights)[:, None]
            return self._put(batch, data["response_mask"], advantages=weighted)
        credited = np.zeros((2, len(real)))  # advantages and returns; padding rows keep 0
        credited[:, real], credit_metrics = self._credit(batch, rows, real)
        metrics.update(credit_metrics)
        data = self._get(batch, "response_mask", "old_log_probs", "rollout_log_probs")
        mask = data["response_mask"]
        corrections, correction_metrics = rollout_correction(data, self.config.algorithm.rollout_correction)
        metrics.update(correction_metrics)
        tokens = mask.to_padded_tensor(padding=0)  # one value a row, on all its response tokens
        advantages, returns = (torch.as_tensor(row)[:, None] * tokens for row in credited)
        advantages = advantages * torch.as_tensor(weights)[:, None]
        if self.config.algorithm.adv_estimator == credit.EXPECTED_ESTIMATOR:
            advantages[:, 0] = torch.as_tensor(weights) * mask.to_padded_tensor(padding=0)[:, 0]
            self._put_what_if(batch, rows, real)
        return self._put(batch, mask, advantages=advantages, returns=returns, **corrections)

    def _put_what_if(self, batch: KVBatchMeta, rows: list[credit.StepRow], real: np.ndarray) -> None:
        """Store what the engine reads to take the mean over all exclusions; a padding row has nothing to gain from any."""
        known = iter(credit.worths(rows))
        worths = [torch.as_tensor(next(known) if is_real else [1.0], dtype=torch.float32) for is_real in real]
        labels = label_tokens(self.tokenizer, max(row.pool_size for row in rows))
        fields = {
            credit.WHAT_IF_WORTHS: worths,
            credit.WHAT_IF_TOKENS: [torch.tensor([*labels[: len(w) - 1], credit.REST]) for w in worths],
        }
        nested = {n: torch.nested.as_nested_tensor(values, layout=torch.jagged) for n, values in fields.items()}
        self._store(batch, nested)

    def _credit(
        self, batch: KVBatchMeta, rows: list[credit.StepRow], real: np.ndarray
    ) -> tuple[np.ndarray, dict[str, float]]:
        """Advantages and returns of the real rows, shape (2, rows), and credit's metrics."""
        options, algorithm = self.config.iranker.credit, self.config.algorithm
        if algorithm.adv_estimator == credit.GAE_ESTIMATOR:
            # verl shifts values by one token: a row's first is the critic's at the last prompt token
            values = self._get(batch, "values")["values"].to_padded_tensor(padding=0.0)[:, 0].double().numpy()
            advantages, returns, metrics = credit.episode_advantages(
                rows, values[real], gamma=algorithm.gamma, lam=algorithm.lam, normalise=options.normalise
            )
            return np.stack([advantages, returns]), metrics
        advantages, metrics = credit.step_advantages(rows, prior=options.prior, normalise=options.normalise)
        return np.stack([advantages, advantages]), metrics

    def _step_rows(self, batch: KVBatchMeta, real: list[bool]) -> tuple[list[credit.StepRow], list[dict[str, Any]]]:
        """The real rows of the batch, in its order, as credit sees them, and all that the agent loop stored with each."""
        keys = [key for key, is_real in zip(batch.keys, real, strict=True) if is_real]
        data = tq.kv_batch_get(
            keys=keys, partition_id=batch.partition_id, select_fields=["extra_fields", "rm_scores", "data_source"]
        )
        rewards = data["rm_scores"].to_padded_tensor(padding=0.0).sum(dim=1).tolist()
        fields = [
            stored["step"] | stored["reward_extra_info"] | {"data_source": source}
            for stored, source in zip(_plain(data["extra_fields"]), _plain(data["data_source"]), strict=True)
        ]
        rows = []
        for key, reward, step in zip(keys, rewards, fields, strict=True):
            uid, session, _ = key.rsplit("_", 2)
            seen = step["pool"], step["pool_size"], reward, step["expected"], tuple(step.get("what_if", ()))
            rows.append(credit.StepRow(uid, f"{uid}_{session}", *seen))
        return rows, fields

    @staticmethod
    def _get(batch: KVBatchMeta, *fields: str) -> TensorDict:
        return tq.kv_batch_get(keys=batch.keys, partition_id=batch.partition_id, select_fields=list(fields))

    @staticmethod
    def _put(batch: KVBatchMeta, mask: torch.Tensor, **fields: torch.Tensor) -> KVBatchMeta:
        """Store padded (rows, response tokens) tensors; returns verl's new metadata, which lists them."""
        nested = {name: response_to_nested(values.to(torch.float32), mask) for name, values in fields.items()}
        return EliminationTrainer._store(batch, nested)

    @staticmethod
    def _store(batch: KVBatchMeta, nested: dict[str, torch.Tensor]) -> KVBatchMeta:
        """Store jagged tensors of one entry a row; returns verl's new metadata, which lists them."""
        return tq.kv_batch_put(
            keys=batch.keys, partition_id=batch.partition_id, fields=TensorDict(nested, batch_size=len(batch))
        )

    # ------------------------------------------------------------------ rollouts

    def _log_rollout_data(self, batch: KVBatchMeta, timing_raw: dict, rollout_data_dir: str) -> None:
        self._asked = self._asked_of(batch)
        super()._log_rollout_data(batch, timing_raw, rollout_data_dir)

    def _asked_of(self, batch: KVBatchMeta) -> dict[str, dict[str, Any]]:
        """What each answer was asked, by key: the task, the texts shown in order, and the template."""
        keys = [key for key, is_real in zip(batch.keys, _real(batch), strict=True) if is_real]
        names = ["extra_fields", "extra_info", "reward_model", "data_source"]
        data = tq.kv_batch_get(keys=keys, partition_id=batch.partition_id, select_fields=names)
        asked = {}
        for key, stored, info, truth, source in zip(keys, *(_plain(data[name]) for name in names), strict=True):
            texts = dict(zip(info["candidate_ids"], truth["ground_truth"]["candidates"], strict=True))
            asked[key] = {
                "dataset": source,
                **{name: info[name] for name in ("task_id", "scenario", "group", "context")},
                "candidates": [texts[id] for id in stored["shown"]],
                **{name: info[name] for name in ("template_id", "template_hash")},
            }
        return asked

    def _dump_generations(
        self, inputs: list, outputs: list, gts: list, scores: list, reward_extra_infos_dict: dict, dump_path: str
    ) -> None:
        """verl's; of rollouts without the rows that verl fills a batch up with, and with ``ranking``."""
        if dump_path == self.config.trainer.get("rollout_data_dir", None):
            keys = reward_extra_infos_dict["uid"]
            real = [i for i, key in enumerate(keys) if key in self._asked]
            inputs, outputs, gts, scores, keys = ([c[i] for i in real] for c in (inputs, outputs, gts, scores, keys))
            reward_extra_infos_dict = {"uid": keys, "ranking": [self._asked[key] for key in keys]}
        super()._dump_generations(inputs, outputs, gts, scores, reward_extra_infos_dict, dump_path)

    # ------------------------------------------------------------------ metrics

    def _compute_metrics(
        self, batch: KVBatchMeta, metrics: dict, timing_raw: dict, global_steps: int, epoch: int
    ) -> None:
        super()._compute_metrics(batch, metrics, timing_raw, global_steps, epoch)
        self.metrics_log.append(global_steps, self.total_training_steps, metrics, timing_raw)
        if self.curriculum is not None:
            self.curriculum.observe(metrics)
        self._end_by_tokens()
        if self._save_due:
            self._save_due = False
            start = time.monotonic()
            super()._save_checkpoint()
            self.metrics_log.add_save(time.monotonic() - start)

    def _end_by_tokens(self) -> None:
        """Make the next step the last one where another like the last passes ``iranker.token_budget``.

        verl saves at its last step only if it knows, before the step, that it is the last.
        """
        if (budget := self.config.iranker.token_budget) is None:
            return
        lines = self.metrics_log.lines
        if lines and sum(line["tokens/step"] for line in lines[-1:] + lines) >= budget:
            self.total_training_steps = min(self.total_training_steps, lines[-1]["step"] + 1)

    def _save_checkpoint(self) -> None:
        """Put off until the step's metrics are written: who resumes from a checkpoint then has every line up to it."""
        self._save_due = True
