"""RouterBert: an encoder of the query, fine-tuned with one output an LLM (GraphRouter's and IRanker's "BERT router").

``context.models["router-bert"]`` names the encoder (a Hugging Face folder or name, read by ``transformers``; none of its
code is run). Its last layer's mean over the query's tokens goes through a linear head with one output an LLM of the dataset.
One positive is learned by cross entropy, graded relevance by squared error (:func:`.fitting.fine_tune`). An LLM without
training queries gets the mean score of the others. A query longer than the encoder's limit is truncated.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from iranker_verl.evaluation.baselines.base import Context
from iranker_verl.evaluation.baselines.loading import (
    Progress,
    find_model,
    load_tokenizer,
    load_weights,
    max_tokens,
    seeded,
    unavailable_on_error,
)
from iranker_verl.evaluation.baselines.router_outcomes import Outcomes, Router, Scorer, loss, with_newcomers
from iranker_verl.ranking import RankingTask

if TYPE_CHECKING:
    import torch

_INFERENCE_BATCH = 64


@dataclass(frozen=True)
class Training:
    """Defaults for small data; Devlin et al. (2019) give 2e-5 to 5e-5, batches of 16 or 32, and 2 to 4 epochs."""

    epochs: int = 5
    rate: float = 3e-5
    batch: int = 16


class RouterBert(Router):
    """A fine-tuned text encoder with one output an LLM. Routing."""

    name = "router-bert"

    def __init__(self, context: Context, training: Training | None = None) -> None:
        super().__init__(context)
        self._training = training or Training()
        self._folder = Path()

    def fit(self, train: Sequence[RankingTask]) -> None:
        """Fine-tune an encoder for each dataset."""
        self._folder = find_model(self._context, self.name)
        super().fit(train)

    def _learn(self, dataset: str, known: Outcomes) -> Scorer:
        """Fine-tune a fresh encoder for the dataset, from the same folder and seed."""
        import torch

        from iranker_verl.evaluation.baselines.fitting import fine_tune

        context, training, count = self._context, self._training, len(known.queries)
        with seeded(context.seed, context.device):
            forward, parts = self._network(len(known.llms))
            relevance = torch.tensor(known.relevance, dtype=torch.float32, device=context.device)

            def losses(queries: list[int]) -> Iterator[torch.Tensor]:
                yield loss(forward([known.queries[i] for i in queries]), relevance[queries], known.graded)

            fine_tune(
                self.name,
                [weight for part in parts for weight in part.parameters()],
                losses,
                count,
                epochs=training.epochs,
                rate=training.rate,
                batch=training.batch,
                progress=Progress(context.log, f"{self.name}: queries of {dataset}", training.epochs * count),
            )
        for part in parts:
            part.eval()

        def scores(queries: Sequence[str], newcomers: Mapping[str, str]) -> np.ndarray:
            progress = Progress(context.log, f"{self.name}: {dataset}, query", len(queries))
            batches = []
            with torch.inference_mode():
                for start in range(0, len(queries), _INFERENCE_BATCH):
                    batches.append(forward(queries[start : start + _INFERENCE_BATCH]).double().cpu().numpy())
                    progress(start)
            return with_newcomers(np.concatenate(batches), newcomers)

        return scores

    def _network(self, llms: int) -> tuple[Callable[[Sequence[str]], torch.Tensor], list[torch.nn.Module]]:
        """Return a function from queries to scores of shape (queries, LLMs), and its modules in training mode."""
        import torch

        device = self._context.device
        with unavailable_on_error(self.name, self._folder):
            from transformers import AutoModel

            tokenizer = load_tokenizer(self._folder)
            body = load_weights(AutoModel, self._folder, dtype=torch.float32).to(device).train()
            head = torch.nn.Linear(body.config.hidden_size, llms).to(device)
        length = max_tokens(body, tokenizer)

        def forward(queries: Sequence[str]) -> torch.Tensor:
            tokens = tokenizer(list(queries), padding=True, truncation=True, max_length=length, return_tensors="pt")
            tokens = tokens.to(device)
            hidden = body(**tokens).last_hidden_state
            mask = tokens["attention_mask"][..., None].to(hidden.dtype)
            scores: torch.Tensor = head((hidden * mask).sum(dim=1) / mask.sum(dim=1))
            return scores

        return forward, [body, head]
