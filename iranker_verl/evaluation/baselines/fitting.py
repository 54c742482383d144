"""Training loops of the baselines that learn by gradient descent: early stopping, and fine-tuning with a warm-up."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor

from iranker_verl.evaluation.baselines.base import Unavailable


def fit_early_stopping(
    weights: Iterable[Tensor],
    train: Callable[[], None],
    validate: Callable[[], float],
    *,
    rounds: int,
    patience: int,
    every: int = 1,
) -> None:
    """Call ``train`` for up to ``rounds`` rounds, and leave ``weights`` as they were at the lowest validation loss.

    ``validate`` returns the loss; it is called every ``every`` rounds and after the last. Training stops after ``patience``
    of these without an improvement.
    """
    weights = list(weights)
    best, least, worse = [w.detach().clone() for w in weights], float("inf"), 0
    for done in range(1, rounds + 1):
        train()
        if done % every and done < rounds:
            continue
        with torch.no_grad():
            loss = validate()
        if loss < least:
            best, least, worse = [w.detach().clone() for w in weights], loss, 0
        elif (worse := worse + 1) >= patience:
            break
    with torch.no_grad():
        for weight, kept in zip(weights, best, strict=True):
            weight.copy_(kept)


def fine_tune(
    name: str,
    weights: Sequence[Tensor],
    losses: Callable[[list[int]], Iterable[Tensor]],
    count: int,
    *,
    epochs: int,
    rate: float,
    batch: int,
    progress: Callable[[int], None],
) -> None:
    """Fine-tune ``weights`` on ``count`` samples by AdamW; the rate rises over a tenth of the steps, then falls to 0.

    ``losses(indices)`` yields the losses of a batch, whose sum is minimised; each is back-propagated before the next is
    computed, which bounds memory. The order of samples is drawn from torch's present seed. Raise Unavailable where a loss
    is not finite.
    """
    steps = epochs * -(-count // batch)
    warm = max(1, steps // 10)
    optimizer = torch.optim.AdamW(weights, lr=rate)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / warm, (steps - step) / max(1, steps - warm))
    )
    done = 0
    for epoch in range(epochs):
        for indices in torch.randperm(count).split(batch):
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
