"""verl's correction of rollouts (importance weights, rejection) under our own estimators."""

import math

import pytest
import torch
from omegaconf import OmegaConf
from tensordict import TensorDict

trainer = pytest.importorskip("iranker_verl.training.trainer")

OLD = [[math.log(0.5), math.log(0.2)], [math.log(0.9)]]
ROLLOUT = [[math.log(0.4), math.log(0.02)], [math.log(0.9)]]  # ratios 1.25 and 10; 1


def jagged(rows):
    return torch.nested.as_nested_tensor([torch.tensor(row) for row in rows], layout=torch.jagged)


def data(**left_out):
    fields = {"old_log_probs": OLD, "rollout_log_probs": ROLLOUT, "response_mask": [[1.0, 1.0], [1.0]]}
    return TensorDict({k: jagged(v) for k, v in fields.items() if k not in left_out}, batch_size=2)


def config(**given):
    return OmegaConf.create({"bypass_mode": False, "rollout_is": None, "rollout_rs": None, **given})


def test_importance_weights_are_truncated_ratios():
    found, metrics = trainer.rollout_correction(data(), config(rollout_is="token", rollout_is_threshold=2.0))
    assert found["rollout_is_weights"][0].tolist() == pytest.approx([1.25, 2.0])
    assert found["rollout_is_weights"][1, 0].item() == pytest.approx(1.0)
    assert found["response_mask"].tolist() == [[1, 1], [1, 0]]
    assert metrics["rollout_corr/rollout_is_max"] == pytest.approx(2.0)  # of the truncated ones


def test_a_rejected_answer_leaves_the_loss():
    # the sum of log-ratios of the first row is log(12.5), of the second 0
    found, metrics = trainer.rollout_correction(data(), config(rollout_rs="seq_sum_k1", rollout_rs_threshold="0.5_5.0"))
    assert found.keys() == {"response_mask"}
    assert found["response_mask"].tolist() == [[0, 0], [1, 0]]
    assert metrics


def test_without_settings_the_gap_is_measured_and_nothing_changed():
    found, metrics = trainer.rollout_correction(data(), config())
    assert found["response_mask"].tolist() == [[1, 1], [1, 0]]
    assert "rollout_is_weights" not in found
    # k1 of each token: log of rollout over old
    assert metrics["rollout_corr/kl"] == pytest.approx((-math.log(1.25) - math.log(10)) / 3)


@pytest.mark.parametrize(
    "of", [{"config": None}, {"config": config(bypass_mode=True, rollout_is="token")}, {"without": "rollout_log_probs"}]
)
def test_where_there_is_nothing_to_correct(of):
    left_out = {of["without"]: True} if "without" in of else {}
    assert trainer.rollout_correction(data(**left_out), of.get("config", config(rollout_is="token"))) == ({}, {})
