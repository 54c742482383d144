"""One call's orders, against enumeration of all of them."""

from __future__ import annotations

from itertools import permutations

import pytest

torch = pytest.importorskip("torch")

from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from iranker_verl.training.plackett_luce import draw_order, expected_gain, expected_rank, rank_law  # noqa: E402

SCORES = st.lists(st.floats(-6, 6), min_size=2, max_size=5)


def enumerated(scores: torch.Tensor, candidate: int) -> torch.Tensor:
    """P(rank) by going through every order of exclusion; differentiable."""
    odds = scores.exp()
    law = [scores.new_zeros(()) for _ in scores]
    for order in permutations(range(len(scores))):
        left, probability = odds.sum(), scores.new_ones(())
        for index in order:
            probability = probability * odds[index] / left
            left = left - odds[index]
        law[len(scores) - 1 - order.index(candidate)] = law[len(scores) - 1 - order.index(candidate)] + probability
    return torch.stack(law)


@settings(deadline=None, max_examples=40)
@given(values=SCORES, data=st.data())
def test_the_law_and_its_gradient_are_those_of_all_orders(values: list[float], data: st.DataObject) -> None:
    candidate = data.draw(st.integers(0, len(values) - 1))
    gains = 1 / torch.arange(1, len(values) + 1, dtype=torch.float64)
    ours, theirs = (torch.tensor(values, dtype=torch.float64, requires_grad=True) for _ in range(2))
    law = rank_law(ours[None], torch.tensor([candidate]))
    exact = enumerated(theirs, candidate)
    assert torch.allclose(law[0], exact, atol=2e-6)
    expected_gain(law, gains).sum().backward()
    (exact * gains).sum().backward()
    assert torch.allclose(ours.grad, theirs.grad, atol=1e-5)


@settings(deadline=None, max_examples=40)
@given(values=SCORES, data=st.data())
def test_the_mean_rank_has_a_closed_form(values: list[float], data: st.DataObject) -> None:
    candidate = data.draw(st.integers(0, len(values) - 1))
    scores = torch.tensor([values], dtype=torch.float64)
    ranks = torch.arange(1, len(values) + 1, dtype=torch.float64)
    by_law = (enumerated(scores[0], candidate) * ranks).sum()
    assert torch.allclose(expected_rank(scores, torch.tensor([candidate])), by_law[None], atol=1e-9)


def test_what_is_not_there_changes_nothing() -> None:
    scores = torch.tensor([[0.3, -1.0, 0.7, 9.0, -9.0]], dtype=torch.float64)
    valid = torch.tensor([[True, True, True, False, False]])
    candidate = torch.tensor([1])
    padded, plain = rank_law(scores, candidate, valid), rank_law(scores[:, :3], candidate)
    assert torch.allclose(padded[:, :3], plain) and padded[:, 3:].abs().max() == 0
    assert torch.allclose(expected_rank(scores, candidate, valid), expected_rank(scores[:, :3], candidate))
    assert set(draw_order(scores, valid)[0, :3].tolist()) == {0, 1, 2}


def test_a_constant_added_to_a_row_changes_nothing() -> None:
    scores, candidate = torch.randn(4, 6, dtype=torch.float64), torch.tensor([0, 5, 2, 3])
    assert torch.allclose(rank_law(scores, candidate), rank_law(scores - 40.0, candidate), atol=1e-12)


def test_drawn_orders_have_the_probabilities_of_the_law() -> None:
    scores = torch.log(torch.tensor([[0.5, 0.3, 0.15, 0.05]]))
    draws = draw_order(scores.expand(40_000, 4), generator=torch.Generator().manual_seed(1))
    ranks = 4 - (draws == 2).int().argmax(1)
    shares = torch.bincount(ranks, minlength=5)[1:] / len(draws)
    assert torch.allclose(shares, rank_law(scores, torch.tensor([2]))[0], atol=0.01)


@pytest.mark.parametrize("worst", [-90.0, -1e4])
def test_gradients_are_finite_where_the_policy_is_all_but_certain(worst: float) -> None:
    scores = torch.tensor([[0.0, worst, -1.0]], requires_grad=True)
    law = rank_law(scores, torch.tensor([1]))
    expected_gain(law, 1 / torch.arange(1.0, 4)).sum().backward()
    assert law.detach()[0].tolist() == pytest.approx([1.0, 0.0, 0.0], abs=1e-6)
    assert scores.grad is not None and scores.grad.isfinite().all()


@pytest.mark.parametrize("dead", [0, 1])
def test_a_label_that_the_policy_rules_out_leaves_last(dead: int) -> None:
    z = torch.tensor([[0.0, 0.5, -0.2]], dtype=torch.float64)
    z[0, dead] = -torch.inf
    z.requires_grad_(True)
    law = rank_law(z, torch.tensor([0]))
    leaves_last = torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64)
    if dead == 0:
        torch.testing.assert_close(law[0], leaves_last, atol=1e-6, rtol=0)
    assert torch.isfinite(law).all() and law.sum().item() == pytest.approx(1.0)
    (law[0, 0] + 2 * law[0, 1]).backward()
    assert torch.isfinite(z.grad).all()
