"""What the recipe with reasoning sets of verl's loss has the effect that it is set for."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

pytest.importorskip("verl")

from verl.trainer.ppo import core_algos
from verl.utils.config import omega_conf_to_dataclass

from iranker_verl.training.credit import row_weights
from iranker_verl.training.main import compose_recipe
from iranker_verl.training.step_record import StepRecord

RECIPE = Path(__file__).parents[2] / "recipes" / "iranker_3b_episodes"


def gradient(ratio: float, lengths: list[int], width: int, *overrides: str) -> torch.Tensor:
    """The gradient of verl's loss by the log-prob of each token, (rows, width), where all advantages are 1."""
    actor = omega_conf_to_dataclass(compose_recipe(RECIPE, list(overrides)).actor_rollout_ref.actor)
    actor.global_batch_info.update(global_batch_size=len(lengths), loss_scale_factor=actor.loss_scale_factor)
    mask = (torch.arange(width) < torch.tensor(lengths)[:, None]).float()
    now = torch.full(mask.shape, ratio).log().requires_grad_()
    loss, _ = core_algos.compute_policy_loss_vanilla(
        torch.zeros(mask.shape), now, mask.clone(), mask, actor.loss_agg_mode, actor
    )
    loss.backward()
    return now.grad


def test_a_rare_token_may_become_likelier_by_more_than_a_fifth():
    """DAPO's clip-higher (arXiv 2503.14476, eq. 10)."""
    assert gradient(1.25, [1], 1).item() < 0
    assert gradient(1.25, [1], 1, "actor_rollout_ref.actor.clip_ratio_high=0.2").item() == 0
    assert gradient(1.3, [1], 1).item() == 0


def test_a_token_of_a_long_response_counts_as_much_as_one_of_a_short_one():
    """Dr. GRPO (arXiv 2503.20783): with a mean over tokens long wrong responses are punished less than short ones."""
    by_token = gradient(1.0, [2, 8], 8)
    assert by_token[0, 0] == by_token[1, 7] == pytest.approx(-1 / 2 / 1024)
    assert gradient(1.0, [2], 2)[0, 0] == gradient(1.0, [2], 8)[0, 0]  # however wide its micro-batch is
    mean = gradient(1.0, [2, 8], 8, "actor_rollout_ref.actor.loss_agg_mode=seq-mean-token-mean")
    assert mean[0, 0] == pytest.approx(4 * mean[1, 7].item())


@pytest.mark.parametrize("weights", ["session", "rr"])
def test_a_state_weighs_the_same_however_often_it_is_answered(weights: str):
    """The mean over rows of weight times advantage, of which the two sessions' rows all have their own."""
    once = [
        StepRecord("t", f"t_{session}", tuple("abcd"[:size]), 1.0, 0.5, most_calls=3)
        for session, sizes in ((0, (4, 3)), (1, (4, 3, 2)))
        for size in sizes
    ]
    thrice = [step for step in once for _ in range(3)]
    thrice = [StepRecord(**{**vars(step), "most_calls": 9}) for step in thrice]
    expected, found = (
        row_weights(once, weights) / len(once),
        row_weights(thrice, weights).reshape(-1, 3).sum(1) / len(thrice),
    )
    assert found == pytest.approx(
        expected, rel=1e-9 if weights == "session" else 0.2
    )  # rr: of survival in more answers
