"""The value of the whole order that one call implies, against enumeration of all orders."""

from __future__ import annotations

from itertools import permutations

import pytest

torch = pytest.importorskip("torch")

from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from tests.training.credit_batches import record  # noqa: E402

policy_loss = pytest.importorskip("iranker_verl.training.policy_loss")

OTHER = policy_loss.ANY_OTHER


def by_enumeration(log_probs: torch.Tensor, gains: list[float]) -> torch.Tensor:
    """log J, by going through every order of exclusion of the candidates 0 to N - 1; the last token is no label."""
    probs, total, values = log_probs.exp()[: len(gains)], torch.zeros((), dtype=torch.float64), []
    for order in permutations(range(len(gains))):  # the first leaves first, so it has the last rank
        left, chance = probs.sum(), torch.ones((), dtype=torch.float64)
        for index in order:
            chance, left = chance * probs[index] / left, left - probs[index]
        value = sum(gains[index] / (len(gains) - out) for out, index in enumerate(order))
        values.append(value)
        total = total + chance * value
    worst, best = min(values), max(values)
    return torch.log((total - worst) / (best - worst)) + probs.sum().log()


@settings(deadline=None, max_examples=30)
@given(st.data())
def test_value_and_gradient_are_those_of_all_orders(data: st.DataObject) -> None:
    count = data.draw(st.integers(2, 5))
    gains = data.draw(st.lists(st.sampled_from([0.0, 0.25, 0.6, 1.0]), min_size=count, max_size=count))
    if len(set(gains)) == 1:
        gains[0] += 0.5
    logits = data.draw(st.lists(st.floats(-4, 4), min_size=count + 1, max_size=count + 1))
    ours, theirs = (torch.tensor(logits, dtype=torch.float64, requires_grad=True) for _ in range(2))
    tokens = torch.tensor([[*range(count), OTHER, OTHER]])
    padded = torch.tensor([[*gains, 0.0, 0.0]], dtype=torch.float64)
    found = policy_loss.log_order_value(ours.log_softmax(-1)[None], tokens, padded)[0]
    exact = by_enumeration(theirs.log_softmax(-1), gains)
    torch.testing.assert_close(found, exact, atol=1e-4, rtol=1e-4)
    found.backward()
    exact.backward()
    torch.testing.assert_close(ours.grad, theirs.grad, atol=1e-3, rtol=1e-3)


def test_of_two_candidates_it_is_the_value_of_the_first_exclusion() -> None:
    step = record("t", "t_0", "ab", 2, 1.0, 0.5, (0.0, 1.0, -0.5))
    log_probs = torch.tensor([[0.3, -1.0, 0.1]], dtype=torch.float64).log_softmax(-1)
    tokens = torch.tensor([[0, 1, OTHER]])
    order = policy_loss.log_order_value(log_probs, tokens, torch.tensor(policy_loss.label_gains(step))[None])
    first = policy_loss.log_mean_value(log_probs, tokens, torch.tensor(policy_loss.action_values(step))[None])
    torch.testing.assert_close(order, first, atol=1e-6, rtol=1e-6)


def test_padding_and_equal_candidates_have_no_order_to_learn() -> None:
    logits = torch.randn(2, 5, dtype=torch.float64, requires_grad=True)
    log_probs = logits.log_softmax(-1)
    tokens = torch.tensor([[OTHER, OTHER, OTHER], [0, 1, OTHER]])
    values = policy_loss.log_order_value(log_probs, tokens, torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 0.0]]).double())
    assert values[0] == 0 and values[1].item() == pytest.approx(log_probs[1, :2].logsumexp(0).item())
    values.sum().backward()
    assert logits.grad[0].abs().max() == 0 and torch.isfinite(logits.grad).all()


@pytest.mark.parametrize("sure", [5.0, 12.0])
def test_who_is_sure_and_wrong_is_still_taught(sure: float) -> None:
    logits = torch.tensor(
        [[sure, 0.0, 0.0, 0.0, -9.0]], dtype=torch.float64, requires_grad=True
    )  # the first is the positive
    gains = torch.tensor([[1.0, 0.0, 0.0, 0.0, 0.0]], dtype=torch.float64)
    policy_loss.log_order_value(logits.log_softmax(-1), torch.tensor([[0, 1, 2, 3, OTHER]]), gains).backward()
    assert logits.grad[0, 0] < -0.5


@pytest.mark.parametrize("dead", [0, 1])
def test_a_label_of_probability_zero_has_a_value_and_a_gradient(dead: int) -> None:
    logits = torch.zeros(1, 4, dtype=torch.float64)
    logits[0, dead] = -torch.inf
    logits.requires_grad_(True)
    gains = torch.tensor([[1.0, 0.0, 0.0, 0.0]], dtype=torch.float64)
    value = policy_loss.log_order_value(logits.log_softmax(-1), torch.tensor([[0, 1, 2, OTHER]]), gains)
    value.backward()
    assert torch.isfinite(value).all() and torch.isfinite(logits.grad).all()
    if dead == 0:  # the positive leaves last: J is the probability of the other labels
        assert value.item() == pytest.approx(-0.4054651)
