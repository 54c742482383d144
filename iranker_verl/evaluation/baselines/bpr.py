"""BPR-MF: matrix factorisation learned from pairs, with item biases as in its reference implementation.

Rendle et al. 2009, "BPR: Bayesian Personalized Ranking from Implicit Feedback", UAI.

A user u's score of item i is ``x_ui = <w_u, h_i> + b_i``. The objective is the mean of ``-ln sigmoid(x_ui - x_uj)`` over a
user's chosen items i and the items j that the user did not choose, plus an L2 penalty. In training the j of a pair is drawn
uniformly, anew each time (section 4.3); the optimizer is Adam.

**Users never seen in training** (all test users) are folded in: with item factors and biases fixed, ``w_u`` minimises the
same objective for the items of ``task.history``. That problem is convex with one minimum, found by a trust-region Newton
method. A history without known items gives ``w_u = 0``: the item biases rank then, much like popularity.

Training stops when the loss of held-out users, folded in with the first part of their sequence, on the rest no longer
improves. ``fit`` leaves out tasks without history ids, and ``rank`` returns None for them, as for a dataset without
training. Items never seen in training get the lowest score, all the same one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from iranker_verl.evaluation.baselines.base import Context
from iranker_verl.evaluation.baselines.fitting import EarlyStopping, fit_early_stopping
from iranker_verl.evaluation.baselines.histories import Histories, Indices, Recommender
from iranker_verl.evaluation.baselines.loading import Progress


@dataclass(frozen=True)
class Settings(EarlyStopping):
    """Settings of BPR; a round is an epoch through the training pairs.

    ``penalty`` is the L2 weight of a pair's user and item factors, ``bias_penalty`` that of the item biases. A held-out user's
    sequence is folded in up to ``known`` of its length, and compared with at most ``others`` items not chosen, drawn once.
    """

    every: int = 5
    patience: int = 4
    width: int = 64
    batch: int = 256
    lr: float = 0.01
    penalty: float = 0.02
    bias_penalty: float = 0.0
    known: float = 0.75
    others: int = 1000


@dataclass
class Factors:
    """Item factors (items, width) and biases (items,)."""

    items: Tensor
    biases: Tensor


class Bpr(Recommender["FoldIn"]):
    """BPR-MF with fold-in of new users. Recommendation."""

    name = "bpr"
    settings: Settings = Settings()

    def learn(self, dataset: str, data: Histories) -> FoldIn:
        """Return what folds users into the dataset's factors."""
        progress = Progress(self.context.log, f"{self.name}: epochs on {dataset}", self.settings.rounds)
        factors = learn_factors(data, self.settings, self.context, progress)
        return FoldIn(factors, self.settings, self.context.seed)

    def of_items(self, model: FoldIn, history: list[int]) -> list[float]:
        """Return the items' scores for a user who is folded in."""
        found: list[float] = (model.factors.items @ model(history) + model.factors.biases).tolist()
        return found


def learn_factors(data: Histories, settings: Settings, context: Context, progress: Progress) -> Factors:
    """Return item factors learned from drawn pairs, as they were at the lowest loss of the held-out users."""
    generator = torch.Generator().manual_seed(context.seed)
    learned, held = data.split(settings.held_out, context.seed)
    count = len(data.items)

    def initial(rows: int) -> Tensor:
        factors = 0.1 / settings.width**0.5 * torch.randn(rows, settings.width, generator=generator)
        return factors.to(context.device).requires_grad_()

    users, items = initial(len(learned)), initial(count)
    biases = torch.zeros(count, device=context.device, requires_grad=True)
    optimizer = torch.optim.Adam([users, items, biases], lr=settings.lr)
    pairs = torch.tensor(sorted({(u, i) for u, user in enumerate(learned) for i in user}))
    chosen = pairs[:, 0] * count + pairs[:, 1]  # sorted, as the pairs are
    factors = Factors(items.detach(), biases.detach())

    def train(epoch: int) -> None:
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

    def validate() -> float:
        return _loss_of_rest(factors, held or learned, settings, context.seed)

    fit_early_stopping((items, biases), train, validate, settings)
    return factors


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


def _loss_of_rest(factors: Factors, held: Sequence[Indices], settings: Settings, seed: int) -> float:
    """Return the pairs' mean loss over the last part of the held-out users' sequences, each user folded in with the first."""
    fold_in = FoldIn(factors, settings, seed)
    losses = []
    for user in held:
        cut = max(1, min(len(user) - 1, round(settings.known * len(user))))
        if rest := sorted(set(user[cut:])):
            x = (factors.items @ fold_in(user[:cut]) + factors.biases).double()
            left = torch.ones(len(x), dtype=torch.bool, device=x.device)
            left[list(user)] = False
            losses.append(-logsigmoid(x[rest, None] - x[None, left]).mean().item() if left.any() else 0.0)
    return sum(losses) / len(losses) if losses else 0.0


class FoldIn:
    """``fold_in(history)`` returns the factors (width,) of a user who chose the items at these indices."""

    def __init__(self, factors: Factors, settings: Settings, seed: int) -> None:
        self.factors = factors
        self._penalty = settings.penalty
        sample = torch.randperm(len(factors.biases), generator=torch.Generator().manual_seed(seed))
        self._others = sample[: settings.others].sort().values.numpy()
        self._items = factors.items.double().cpu().numpy()
        self._biases = factors.biases.double().cpu().numpy()

    def __call__(self, history: Sequence[int]) -> Tensor:
        """Return the scores of all items for a user with this history: the user's factors are fitted to it first."""
        from scipy.optimize import minimize
        from scipy.special import expit

        own = np.unique(np.asarray(history, dtype=int))
        others = np.setdiff1d(self._others, own)
        w = np.zeros(self._items.shape[1])
        if len(own) and len(others):
            h, g = self._items[own], self._items[others]
            shift = self._biases[own, None] - self._biases[None, others]

            def differences(w: np.ndarray) -> np.ndarray:  # x_ui - x_uj, (chosen, others)
                return (h @ w)[:, None] - (g @ w)[None, :] + shift

            def objective(w: np.ndarray) -> tuple[float, np.ndarray]:
                x = differences(w)
                miss = expit(-x) / x.size
                value = np.logaddexp(0, -x).mean() + self._penalty / 2 * w @ w
                return value, self._penalty * w - h.T @ miss.sum(1) + g.T @ miss.sum(0)

            def hessian(w: np.ndarray) -> np.ndarray:
                chance = expit(differences(w))
                curve = chance * (1 - chance) / chance.size
                cross = h.T @ curve @ g
                own_part, other_part = (h.T * curve.sum(1)) @ h, (g.T * curve.sum(0)) @ g
                return own_part + other_part - cross - cross.T + self._penalty * np.eye(len(w))

            w = minimize(objective, w, jac=True, hess=hessian, method="trust-exact", options={"gtol": 1e-8}).x
        return torch.from_numpy(w).to(self.factors.items)
