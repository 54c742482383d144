"""The training loops that baselines share."""

import pytest

torch = pytest.importorskip("torch")

from iranker_verl.evaluation.baselines import Unavailable  # noqa: E402
from iranker_verl.evaluation.baselines.fitting import (  # noqa: E402
    EarlyStopping,
    FineTuning,
    fine_tune,
    fit_early_stopping,
)


@pytest.mark.parametrize(
    ("losses", "every", "patience", "kept", "trained"),
    [
        ([3, 2, 1], 1, 5, 3, 3),  # improves to the end
        ([3, 1, 2, 2, 0], 1, 2, 2, 4),  # two rounds without an improvement end it
        ([3, 1, 2, 0.5, 2, 2], 1, 2, 4, 6),
        ([2, 1], 2, 9, 3, 3),  # validated after rounds 2 and 3, the last
        ([float("nan")] * 3, 1, 9, 0, 3),  # never better than at the start
    ],
)
def test_weights_are_left_as_they_were_at_the_lowest_validation_loss(losses, every, patience, kept, trained):
    weight, left, rounds = torch.zeros(1), iter(losses), []

    def train(number):
        weight.add_(1)
        rounds.append(number)

    most = 3 if every == 2 else len(losses)
    fit_early_stopping([weight], train, lambda: next(left), EarlyStopping(most, every, patience))
    assert (weight.item(), rounds) == (kept, list(range(1, trained + 1)))


def test_fine_tuning_sees_every_sample_once_an_epoch_and_accumulates_the_losses_of_a_batch():
    weight, seen, progress = torch.nn.Parameter(torch.ones(1)), [], []

    def losses(indices):
        seen.append(sorted(indices))
        for _ in indices:
            yield weight.sum() / len(indices)

    fine_tune("x", [weight], losses, 5, FineTuning(epochs=2, rate=0.1, batch=2), progress.append)
    assert [len(batch) for batch in seen] == [2, 2, 1] * 2
    assert sorted(i for batch in seen[:3] for i in batch) == list(range(5)) == sorted(i for b in seen[3:] for i in b)
    assert progress == [2, 4, 5, 7, 9, 10] and weight.item() < 1


def test_a_loss_that_is_not_finite_makes_a_baseline_unavailable():
    weight = torch.nn.Parameter(torch.ones(1))
    with pytest.raises(Unavailable, match="x: its training diverged in epoch 0"):
        infinite = weight.sum() * float("inf")
        fine_tune("x", [weight], lambda _: [infinite], 1, FineTuning(epochs=1, rate=1, batch=1), lambda _: None)
