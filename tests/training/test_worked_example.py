"""docs/worked_example.md: every number on the page is computed, and verl's own loss has the gradient that it shows."""

import doctest
import re
from pathlib import Path
from types import SimpleNamespace

import pytest

torch = pytest.importorskip("torch")

PAGE = Path(__file__).parents[2] / "docs" / "worked_example.md"


def test_every_number_of_the_page_is_computed():
    result = doctest.testfile(str(PAGE), module_relative=False, encoding="utf-8")
    assert result.failed == 0 and result.attempted > 20


def test_the_numbers_of_its_sentences_are_those_of_its_examples():
    text = PAGE.read_text(encoding="utf-8")
    prose = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    # b of the baseline, the weights, log J and J
    assert round((8 * 0.75 + 1) / 9, 3) == 0.778 and ".778" in prose
    assert round(4 / (2 * 3), 3) == 0.667 and "4 rows / (2 sessions · 3)" in prose
    assert round(-torch.log(torch.tensor(0.75)).item(), 3) == 0.288 and ".667 · .288" in prose


def test_verls_loss_over_substituted_log_probs_has_the_gradient_of_the_page():
    """One row, its label alone: the ratio is 1 and the advantage the row's weight, 2 / 3."""
    core_algos = pytest.importorskip("verl.trainer.ppo.core_algos")
    from verl.workers.config import ActorConfig

    from iranker_verl.training import policy_loss

    nested = lambda values: torch.nested.as_nested_tensor([torch.tensor(values)], layout=torch.jagged)  # noqa: E731
    batch = {
        "responses": nested([2]),
        "old_log_probs": nested([-1.6094]),
        policy_loss.LABEL_TOKENS: nested([0, 1, 2, 3, policy_loss.ANY_OTHER]),
        policy_loss.LABEL_VALUES: nested([1.0, 1.0, 0.0, 1.0, 0.0]),
    }
    logits = torch.tensor([0.40, 0.25, 0.20, 0.10, 0.05]).log().requires_grad_()
    log_probs = logits.log_softmax(0)[None]
    label = policy_loss.substitute_log_probs(log_probs[:, 2], log_probs, batch)[None]  # (rows, response tokens)
    mask = torch.ones(1, 1)
    weight = policy_loss.label_advantages([None], torch.tensor([2 / 3]), mask)
    config = SimpleNamespace(
        clip_ratio=0.2,
        clip_ratio_low=None,
        clip_ratio_high=None,
        global_batch_info={},
        get=lambda name, default: default,
    )
    assert not isinstance(config, ActorConfig)  # only the fields that the loss reads
    old = batch["old_log_probs"].to_padded_tensor(0.0)
    loss, metrics = core_algos.compute_policy_loss_vanilla(old, label, weight, mask, "seq-mean-token-sum", config)
    loss.backward()
    assert logits.grad.tolist() == pytest.approx([-0.089, -0.056, 0.133, -0.022, 0.033], abs=5e-4)
    assert metrics["actor/ppo_kl"] == pytest.approx(0) and metrics["actor/pg_clipfrac"] == 0
