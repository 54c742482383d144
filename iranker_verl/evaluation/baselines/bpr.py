"""BPR-MF: matrix factorisation learned from pairs (Rendle et al. 2009, "BPR: Bayesian Personalized Ranking from Implicit
Feedback", UAI, with item biases as in its reference implementation).

A user u's score of item i is ``x_ui = <w_u, h_i> + b_i``. What is minimised is, for a user's chosen items i and the items j
that the user did not choose, the mean of ``-ln sigmoid(x_ui - x_uj)`` plus an L2 penalty. In training a pair's j is drawn
uniformly, anew each time (section 4.3); Adam does the steps.

**Users never seen in training** (all test users) are folded in: with item factors and biases fixed, ``w_u`` is where the
same objective is least for the items of ``task.history``. That problem is convex with one minimum, which Newton's method
finds; it is deterministic, and a training user's factors are the minimum of just the same problem. A history of which
training has seen nothing gives ``w_u = 0``: the item biases rank then, much like popularity.

Training stops when users held out from it, folded in with the first part of their sequence, say nothing better of the
rest. Tasks without history ids are left out by ``fit`` and get None from ``rank``, as does a dataset without training.
Items never seen in training get the lowest score, all the same one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from iranker_verl.evaluation.baselines.base import Context
from iranker_verl.evaluation.baselines.histories import Histories, Places, Recommender
from iranker_verl.evaluation.baselines.loading import Progress


@dataclass(frozen=True)
class Settings:
    """``penalty`` is the L2 weight of a pair's user and item factors, ``bias_penalty`` that of the item biases. A held-out
    user's sequence is folded in up to ``known`` of its length; epochs are through the training pairs."""

    width: int = 64
    lr: float = 0.01
    penalty: float = 0.02
    bias_penalty: float = 0.0
    batch: int = 256
    epochs: int = 200
    every: int = 5  # epochs between two looks at the held-out users
    patience: int = 4  # looks without an improvement
    held_out: float = 0.1
    known: float = 0.75
    others: int = 1000  # fold-in: items not chosen to compare with, of a larger catalogue a seeded sample


@dataclass
class Factors:
    """Item factors (items, width) and biases (items,)."""

    items: Tensor
    biases: Tensor


class Bpr(Recommender["FoldIn"]):
    name = "bpr"

    def __init__(self, context: Context, settings: Settings | None = None) -> None:
        self._settings = settings or Settings()
        super().__init__(context, self._settings.epochs)

    def _learn(self, data: Histories, progress: Progress) -> FoldIn:
        factors = learn(data, self._settings, self._context, progress)
        return FoldIn(factors, self._settings, self._context.seed)

    def _scores(self, model: FoldIn, history: list[int]) -> list[float]:
        of_items: list[float] = (model.factors.items @ model(history) + model.factors.biases).tolist()
        return of_items


def learn(data: Histories, settings: Settings, context: Context, progress: Progress) -> Factors:
    """Item factors by stochastic gradient descent on drawn pairs, from the state that was best for the held-out users."""
    generator = torch.Generator().manual_seed(context.seed)
    learned, held = data.split(settings.held_out, context.seed)
    count = len(data.items)

    def start(rows: int) -> Tensor:
        factors = 0.1 / settings.width**0.5 * torch.randn(rows, settings.width, generator=generator)
        return factors.to(context.device).requires_grad_()

    users, items = start(len(learned)), start(count)
    biases = torch.zeros(count, device=context.device, requires_grad=True)
    optimizer = torch.optim.Adam([users, items, biases], lr=settings.lr)
    pairs = torch.tensor(sorted({(u, i) for u, user in enumerate(learned) for i in user}))
    chosen = pairs[:, 0] * count + pairs[:, 1]  # sorted, as the pairs are
    best, best_loss, looks = Factors(items.detach().clone(), biases.detach().clone()), float("inf"), 0
    for epoch in range(1, settings.epochs + 1):
        for batch in torch.randperm(len(pairs), generator=generator).split(settings.batch):
            triples = _with_others(pairs[batch], chosen, count, generator).to(context.device)
            if len(triples):
                u, i, j = users[triples[:, 0]], items[triples[:, 1]], items[triples[:, 2]]
                b_i, b_j = biases[triples[:, 1]], biases[triples[:, 2]]
                loss = -logsigmoid((u * (i - j)).sum(1) + b_i - b_j)
                loss = loss + settings.penalty / 2 * (u.square().sum(1) + i.square().sum(1) + j.square().sum(1))
                loss = loss + settings.bias_penalty / 2 * (b_i.square() + b_j.square())
                optimizer.zero_grad()
                loss.mean().backward()  # type: ignore[no-untyped-call]
                optimizer.step()
            progress(epoch)
        if epoch % settings.every and epoch < settings.epochs:
            continue
        now = Factors(items.detach().clone(), biases.detach().clone())
        held_out_loss = _loss_of_rest(now, held or learned, settings, context.seed)
        if held_out_loss < best_loss:
            best, best_loss, looks = now, held_out_loss, 0
        elif (looks := looks + 1) >= settings.patience:
            break
    return best


def _with_others(pairs: Tensor, chosen: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Triples (user, chosen, not chosen) from pairs; a pair for which a few draws find no third item is left out."""
    others = torch.full((len(pairs),), -1)
    open = torch.arange(len(pairs))
    for _ in range(20):
        drawn = torch.randint(count, (len(open),), generator=generator)
        keys = pairs[open, 0] * count + drawn
        at = torch.searchsorted(chosen, keys).clamp(max=len(chosen) - 1)
        free = chosen[at] != keys
        others[open[free]] = drawn[free]
        open = open[~free]
        if not len(open):
            break
    found = others >= 0
    return torch.cat([pairs[found], others[found, None]], dim=1)


def _loss_of_rest(factors: Factors, held: Sequence[Places], settings: Settings, seed: int) -> float:
    """The pairs' mean loss over the last part of the held-out users' sequences, each user folded in with the first."""
    fold_in = FoldIn(factors, settings, seed)
    losses = []
    for user in held:
        cut = max(1, min(len(user) - 1, round(settings.known * len(user))))
        if rest := sorted(set(user[cut:])):
            w = fold_in(user[:cut])
            x = (factors.items @ w + factors.biases).double()
            left = torch.ones(len(x), dtype=torch.bool, device=x.device)
            left[list(user)] = False
            losses.append(-logsigmoid(x[rest, None] - x[None, left]).mean().item() if left.any() else 0.0)
    return sum(losses) / len(losses) if losses else 0.0


class FoldIn:
    """``fold_in(history)``: the factors (width,) of a user who chose the items at these places, given item factors."""

    STEPS = 30

    def __init__(self, factors: Factors, settings: Settings, seed: int) -> None:
        self.factors = factors
        self._penalty = settings.penalty
        count, generator = len(factors.biases), torch.Generator().manual_seed(seed)
        sample = torch.randperm(count, generator=generator)[: settings.others].sort().values
        self._others = sample.to(factors.items.device)
        self._items, self._biases = factors.items.double(), factors.biases.double()

    def __call__(self, history: Sequence[int]) -> Tensor:
        own = torch.tensor(sorted(set(history)), dtype=torch.long, device=self._others.device)
        others = self._others[~torch.isin(self._others, own)]
        width = self._items.shape[1]
        w = torch.zeros(width, dtype=torch.float64, device=own.device)
        if not len(own) or not len(others):
            return w.to(self.factors.items.dtype)
        h, g = self._items[own], self._items[others]
        shift = self._biases[own, None] - self._biases[None, others]
        pairs, ridge = shift.numel(), self._penalty * torch.eye(width, dtype=torch.float64, device=own.device)

        def differences(w: Tensor) -> Tensor:  # x_ui - x_uj, (chosen, others)
            return (h @ w)[:, None] - (g @ w)[None, :] + shift

        def objective(w: Tensor) -> Tensor:
            return -logsigmoid(differences(w)).mean() + self._penalty / 2 * w.square().sum()

        least = objective(w)
        for _ in range(self.STEPS):
            miss = torch.sigmoid(-differences(w)) / pairs
            gradient = self._penalty * w - h.T @ miss.sum(1) + g.T @ miss.sum(0)
            curve = miss * (1 - miss * pairs)
            cross = h.T @ curve @ g
            hessian = (h.T * curve.sum(1)) @ h + (g.T * curve.sum(0)) @ g - cross - cross.T + ridge
            step = torch.linalg.solve(hessian, gradient)
            if step.abs().max() < 1e-9:
                break
            # Newton's step is too long only far from the minimum; halved often enough, it always goes down
            for halvings in range(30):
                shorter = w - step / 2**halvings
                if (value := objective(shorter)) <= least:
                    w, least = shorter, value
                    break
            else:
                break
        return w.to(self.factors.items.dtype)
