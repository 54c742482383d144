"""verl's correction for a vLLM whose log-probs differ from the actor's (``algorithm.rollout_correction``)."""

from __future__ import annotations

from typing import Any

import torch
from tensordict import TensorDict
from verl import DataProto
from verl.trainer.ppo.rollout_corr_helper import compute_rollout_correction_and_add_to_batch


def rollout_correction(data: TensorDict, config: Any) -> tuple[dict[str, torch.Tensor], dict[str, float]]:
    """Return verl's correction for a vLLM whose log-probs differ from the actor's, as verl's own estimators apply it.

    ``data`` has the jagged ``response_mask``, ``old_log_probs`` and ``rollout_log_probs``. Return what verl's actor reads,
    (rows, tokens): the ``response_mask`` without what ``rollout_rs`` rejects, and with ``rollout_is`` its
    ``rollout_is_weights``; and the metrics ``rollout_corr/…``. Both are empty in bypass mode, where vLLM's log-probs are the
    old ones.
    """
    if config is None or config.get("bypass_mode") or data.get("rollout_log_probs", None) is None:
        return {}, {}
    batch = DataProto(batch=data.to_padded_tensor())
    batch, metrics = compute_rollout_correction_and_add_to_batch(batch, config)
    names = {"response_mask", "rollout_is_weights"}.intersection(batch.batch.keys())
    return {name: batch.batch[name] for name in names}, metrics
