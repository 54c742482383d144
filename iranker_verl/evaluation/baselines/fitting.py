"""Training loops of the baselines that learn by gradient descent: early stopping, and fine-tuning with a warm-up."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from iranker_verl.evaluation.baselines.base import Unavailable


@dataclass(frozen=True)
class EarlyStopping:
    """When training from scratch ends: after ``rounds``, or ``patience`` validations, one ``every`` rounds, without a gain.

    The share ``held_out`` of what is learned from is for validation.
    """

    rounds: int = 200
    every: int = 1
    patience: int = 10
    held_out: float = 0.1


@dataclass(frozen=True)
class FineTuning:
    """How pre-trained weights are trained: epochs, the highest rate, and the samples of a step."""

    epochs: int
    rate: float
    batch: int = 16


def fit_early_stopping(
    weights: Iterable[Tensor], train: Callable[[int], None], validate: Callable[[], float], settings: EarlyStopping
) -> None:
    """Call ``train`` with the number of each round, and leave ``weights`` as they were at the lowest validation loss.

    ``validate`` returns the loss; it is called after the last round, too.
    """
    weights = list(weights)
    best, least, worse = [w.detach().clone() for w in weights], float("inf"), 0
    for done in range(1, settings.rounds + 1):
        train(done)
        if done % settings.every and done < settings.rounds:
            continue
        with torch.no_grad():
            loss = validate()
        if loss < least:
            best, least, worse = [w.detach().clone() for w in weights], loss, 0
        elif (worse := worse + 1) >= settings.patience:
            break
    with torch.no_grad():
        for weight, kept in zip(weights, best, strict=True):
            weight.copy_(kept)


def fine_tune(
    name: str,
    weights: Sequence[Tensor],
    losses: Callable[[list[int]], Iterable[Tensor]],
    count: int,
    settings: FineTuning,
    progress: Callable[[int], None],
) -> None:
    """Fine-tune ``weights`` on ``count`` samples by AdamW; the rate rises over a tenth of the steps, then falls to 0.

    ``losses(indices)`` yields the losses of a batch, whose sum is minimised; each is back-propagated before the next is
    computed, which bounds memory. The order of samples is drawn from torch's present seed. Raise Unavailable where a loss
    is not finite.
    """
    steps = settings.epochs * -(-count // settings.batch)
    warm = max(1, steps // 10)
    optimizer = torch.optim.AdamW(weights, lr=settings.rate)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / warm, (steps - step) / max(1, steps - warm))
    )
    done = 0
    for epoch in range(settings.epochs):
        for indices in torch.randperm(count).split(settings.batch):
            for loss in losses(indices.tolist()):
                if not loss.isfinite():
                    raise Unavailable(f"{name}: its training diverged in epoch {epoch}")
                loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(weights, 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            done += len(indices)
            progress(done)
