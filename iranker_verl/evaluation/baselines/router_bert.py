"""RouterBert: an encoder of the query, fine-tuned with one output an LLM (GraphRouter's and IRanker's "BERT router").

``context.models["router-bert"]`` names the encoder (a Hugging Face folder or name, read by ``transformers``; none of its
code is run). Its last layer's mean over the query's tokens goes through a linear head, one output an LLM of the dataset.
One positive is learned by cross entropy, graded relevance by squared error, with AdamW whose rate rises over a tenth of
the steps and falls to 0. An LLM that training did not show has the mean score of the others. A query longer than the
encoder reads loses its end.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from iranker_verl.evaluation.baselines.base import Context
from iranker_verl.evaluation.baselines.loading import Progress, find, load, longest, seeded, tokenizer_of, trying
from iranker_verl.evaluation.baselines.router_outcomes import Outcomes, Router, Scorer, loss, with_newcomers
from iranker_verl.ranking import RankingTask

if TYPE_CHECKING:
    import torch

_INFERENCE_BATCH = 64
_WARM_UP = 0.1


@dataclass(frozen=True)
class Training:
    """Devlin et al. (2019) give 2e-5 to 5e-5, batches of 16 or 32, and 2 to 4 epochs; routing data is small."""

    epochs: int = 5
    rate: float = 3e-5
    batch: int = 16


class RouterBert(Router):
    name = "router-bert"

    def __init__(self, context: Context, training: Training | None = None) -> None:
        super().__init__(context)
        self._training = training or Training()
        self._folder = Path()

    def fit(self, train: Sequence[RankingTask]) -> None:
        self._folder = find(self._context, self.name)
        super().fit(train)

    def _learn(self, dataset: str, known: Outcomes) -> Scorer:
        """A fresh encoder for each dataset, from the same folder and the same seed."""
        import torch

        context, training = self._context, self._training
        with seeded(context.seed, context.device):
            forward, parts = self._network(len(known.llms))
            relevance = torch.tensor(known.relevance, dtype=torch.float32, device=context.device)
            optimizer = torch.optim.AdamW([p for part in parts for p in part.parameters()], training.rate)
            steps = training.epochs * -(-len(known.queries) // training.batch)
            rising = max(1, round(_WARM_UP * steps))
            schedule = torch.optim.lr_scheduler.LambdaLR(
                optimizer, lambda step: min((step + 1) / rising, (steps - step) / steps)
            )
            progress, step = Progress(context.say, f"{self.name}: training on {dataset}, step", steps), 0
            for _ in range(training.epochs):
                for places in torch.randperm(len(known.queries)).split(training.batch):
                    optimizer.zero_grad()
                    found = forward([known.queries[i] for i in places])
                    loss(found, relevance[places.to(context.device)], known.graded).backward()
                    optimizer.step()
                    schedule.step()
                    step += 1
                    progress(step)
        for part in parts:
            part.eval()

        def scores(queries: Sequence[str], newcomers: Mapping[str, str]) -> np.ndarray:
            progress = Progress(context.say, f"{self.name}: {dataset}, query", len(queries))
            batches = []
            with torch.inference_mode():
                for start in range(0, len(queries), _INFERENCE_BATCH):
                    batches.append(forward(queries[start : start + _INFERENCE_BATCH]).double().cpu().numpy())
                    progress(start)
            return with_newcomers(np.concatenate(batches), newcomers)

        return scores

    def _network(self, llms: int) -> tuple[Callable[[Sequence[str]], torch.Tensor], list[torch.nn.Module]]:
        """Queries to scores of shape (queries, LLMs), and the modules that learn, ready for training."""
        import torch

        device = self._context.device
        with trying(self.name, self._folder):
            from transformers import AutoModel

            tokenizer = tokenizer_of(self._folder)
            body = load(AutoModel, self._folder, dtype=torch.float32).to(device).train()
            head = torch.nn.Linear(body.config.hidden_size, llms).to(device)
        length = longest(body, tokenizer)

        def forward(queries: Sequence[str]) -> torch.Tensor:
            tokens = tokenizer(list(queries), padding=True, truncation=True, max_length=length, return_tensors="pt")
            tokens = tokens.to(device)
            hidden = body(**tokens).last_hidden_state
            mask = tokens["attention_mask"][..., None].to(hidden.dtype)
            scores: torch.Tensor = head((hidden * mask).sum(dim=1) / mask.sum(dim=1))
            return scores

        return forward, [body, head]
