"""SASRec: self-attention over the sequence of chosen items predicts the next.

Kang & McAuley 2018, "Self-Attentive Sequential Recommendation", ICDM, arXiv 1808.09781.

As in the paper: learned embeddings of items and of positions counted from the end, blocks of causal self-attention and a
position-wise network (layer norm before each, dropout, residuals), the item embedding shared by input and output, and every
position of a sequence predicting the next item. As in the authors' code (github.com/kang205/SASRec, ``model.py``), the
embedding is multiplied by the root of its width. Two things differ:

* the loss is the cross-entropy of a softmax over all items, where the paper has a binary cross-entropy with one drawn
  negative. A drawn negative is mostly an easy one, and the model grows overconfident; with the softmax the same network
  ranks clearly better (Klenitskiy & Vasilev 2023, arXiv 2309.07602; Petrov & Macdonald 2023, arXiv 2308.07192). The
  softmax needs batch x length x items numbers of memory, which the catalogues here allow.
* a start token precedes the first item, so that a history without known items has a prediction too.

Training stops when the loss of users held out from it no longer falls; the best state is kept. Sequences keep their last
``longest`` items. ``fit`` leaves out tasks without history ids, and ``rank`` returns None for them, as for a dataset
without training. Items never seen in training get the lowest score, all the same one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from iranker_verl.evaluation.baselines.base import Context
from iranker_verl.evaluation.baselines.fitting import EarlyStopping, fit_early_stopping
from iranker_verl.evaluation.baselines.histories import Histories, Indices, Recommender
from iranker_verl.evaluation.baselines.loading import Progress, seeded

_NO_TARGET = -100  # ignored by cross_entropy


@dataclass(frozen=True)
class Settings(EarlyStopping):
    """The paper's form: two blocks, one head; a round is an epoch."""

    width: int = 64
    blocks: int = 2
    heads: int = 1
    dropout: float = 0.2
    longest: int = 50
    lr: float = 1e-3
    weight_decay: float = 0.0
    batch: int = 64


class SasRec(Recommender["Network"]):
    """SASRec with a softmax loss. Recommendation."""

    name = "sasrec"
    settings: Settings = Settings()

    def learn(self, dataset: str, data: Histories) -> Network:
        """Return the network of the dataset."""
        progress = Progress(self.context.log, f"{self.name}: epochs on {dataset}", self.settings.rounds)
        return learn_network(data, self.settings, self.context, progress)

    def of_items(self, model: Network, history: list[int]) -> list[float]:
        """Return the items' scores as the next one."""
        with torch.no_grad():
            inputs, lengths, _ = model.batch([history], predicting=True)
            found: list[float] = model(inputs, lengths)[0, lengths[0] - 1].tolist()
        return found


class Network(nn.Module):
    """``(inputs, lengths) -> scores``: shapes (rows, length) and (rows,) to (rows, length, items).

    Rows are padded at their end, which causal attention never reads; positions are counted from each row's end, so that
    the last item has the same one for a history of any length.
    """

    def __init__(self, items: int, length: int, settings: Settings) -> None:
        super().__init__()
        width = settings.width
        self.start, self.length = items, length
        self.embedding = nn.Embedding(items + 1, width)  # and the start token
        self.position = nn.Embedding(length, width)
        self.dropout = nn.Dropout(settings.dropout)
        self.blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(
                width, settings.heads, width, settings.dropout, activation="relu", batch_first=True, norm_first=True
            )
            for _ in range(settings.blocks)
        )
        self.norm = nn.LayerNorm(width)
        for table in (self.embedding, self.position):
            nn.init.normal_(table.weight, std=0.02)

    def forward(self, inputs: Tensor, lengths: Tensor) -> Tensor:
        """Return the scores of all items as the next one, for every position."""
        length = inputs.shape[1]
        from_end = (lengths[:, None] - 1 - torch.arange(length, device=inputs.device)).clamp(min=0)
        # small for the scores at the output, the embedding would be outweighed by the blocks at the input
        items = self.embedding(inputs) * self.embedding.embedding_dim**0.5
        x = self.dropout(items + self.position(from_end))
        mask = nn.Transformer.generate_square_subsequent_mask(length, device=x.device)
        for block in self.blocks:
            x = block(x, src_mask=mask, is_causal=True)
        scores: Tensor = self.norm(x) @ self.embedding.weight[:-1].T
        return scores

    def batch(self, users: Sequence[Sequence[int]], predicting: bool = False) -> tuple[Tensor, Tensor, Tensor]:
        """Return ``(inputs, lengths, targets)`` of sequences, the last ``length`` items of each.

        Inputs are the start token and all items but the last, targets all items. With ``predicting`` the last item is an
        input too, and there are no targets.
        """
        device = self.embedding.weight.device
        shown = [[self.start, *user][-self.length - (not predicting) :] for user in users]
        rows = [row if predicting else row[:-1] for row in shown]
        lengths = torch.tensor([len(row) for row in rows], device=device)
        inputs = torch.full((len(rows), int(lengths.max())), self.start)
        targets = torch.full_like(inputs, _NO_TARGET)
        for at, row in enumerate(rows):
            inputs[at, : len(row)] = torch.tensor(row)
            if not predicting:
                targets[at, : len(row)] = torch.tensor(shown[at][1:])
        return inputs.to(device), lengths, targets.to(device)

    def loss(self, users: Sequence[Indices]) -> Tensor:
        """Return the mean cross-entropy of every item of the sequences, given those before it."""
        inputs, lengths, targets = self.batch(users)
        return cross_entropy(self(inputs, lengths).flatten(0, 1), targets.flatten(), ignore_index=_NO_TARGET)


def learn_network(data: Histories, settings: Settings, context: Context, progress: Progress) -> Network:
    """Return the network at the lowest loss of the held-out users; torch's global random state stays as it was."""
    learned, held = data.split(settings.held_out, context.seed)
    generator = torch.Generator().manual_seed(context.seed)
    with seeded(context.seed, context.device):  # of the initial weights and of dropout
        length = min(settings.longest, max(map(len, data.users)))
        network = Network(len(data.items), length, settings).to(context.device)
        optimizer = torch.optim.AdamW(
            network.parameters(), lr=settings.lr, betas=(0.9, 0.98), weight_decay=settings.weight_decay
        )

        def train(epoch: int) -> None:
            network.train()
            for batch in torch.randperm(len(learned), generator=generator).split(settings.batch):
                optimizer.zero_grad()
                network.loss([learned[i] for i in batch.tolist()]).backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                progress(epoch)

        def validate() -> float:
            return _validation_loss(network, held or learned, settings.batch)

        fit_early_stopping(network.parameters(), train, validate, settings)
    return network.eval()


def _validation_loss(network: Network, users: Sequence[Indices], batch: int) -> float:
    """Return the mean loss of an item, over all items of the users."""
    network.eval()
    total = count = 0.0
    for start in range(0, len(users), batch):
        part = users[start : start + batch]
        items = sum(min(len(user), network.length) for user in part)
        total, count = total + network.loss(part).item() * items, count + items
    return total / count
