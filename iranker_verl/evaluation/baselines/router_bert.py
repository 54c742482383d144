"""RouterBert: an encoder of the query, fine-tuned with one output an LLM (GraphRouter's and IRanker's "BERT router").

``context.models["router-bert"]`` names the encoder (a Hugging Face folder or name, read by ``transformers``; none of its
code is run). Its last layer's mean over the query's tokens goes through a linear head with one output an LLM of the dataset.
One positive is learned by cross entropy, graded relevance by squared error (:func:`.fitting.fine_tune`). An LLM without
training queries gets the mean score of the others. A query longer than the encoder's limit is truncated.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from iranker_verl.evaluation.baselines import loading
from iranker_verl.evaluation.baselines.fitting import FineTuning, fine_tune
from iranker_verl.evaluation.baselines.router_outcomes import Outcomes, Router, Scorer, loss, with_newcomers
from iranker_verl.ranking import RankingTask

_INFERENCE_BATCH = 64


class RouterBert(Router):
    """A fine-tuned text encoder with one output an LLM. Routing."""

    name = "router-bert"
    # for small data; Devlin et al. (2019) give 2e-5 to 5e-5, batches of 16 or 32, and 2 to 4 epochs
    settings: FineTuning = FineTuning(epochs=5, rate=3e-5)
    _folder = Path()

    def fit(self, train: Sequence[RankingTask]) -> None:
        """Fine-tune an encoder for each dataset."""
        self._folder = loading.find_model(self.context, self.name)
        super().fit(train)

    def learn(self, dataset: str, known: Outcomes) -> Scorer:
        """Fine-tune a fresh encoder for the dataset, from the same folder and seed."""
        context, count = self.context, len(known.queries)
        progress = loading.Progress(context.log, f"{self.name}: queries of {dataset}", self.settings.epochs * count)
        with loading.seeded(context.seed, context.device):
            forward, parts = self._network(len(known.llms))
            relevance = torch.tensor(known.relevance, dtype=torch.float32, device=context.device)

            def losses(queries: list[int]) -> Iterator[torch.Tensor]:
                yield loss(forward([known.queries[i] for i in queries]), relevance[queries], known.graded)

            weights = [weight for part in parts for weight in part.parameters()]
            fine_tune(self.name, weights, losses, count, self.settings, progress)
        for part in parts:
            part.eval()

        def scores(queries: Sequence[str], newcomers: Mapping[str, str]) -> np.ndarray:
            progress = loading.Progress(context.log, f"{self.name}: {dataset}, query", len(queries))
            batches = []
            with torch.inference_mode():
                for start in range(0, len(queries), _INFERENCE_BATCH):
                    batches.append(forward(queries[start : start + _INFERENCE_BATCH]).double().cpu().numpy())
                    progress(start)
            return with_newcomers(np.concatenate(batches), newcomers)

        return scores

    def _network(self, llms: int) -> tuple[Callable[[Sequence[str]], torch.Tensor], list[torch.nn.Module]]:
        """Return a function from queries to scores of shape (queries, LLMs), and its modules in training mode."""
        device = self.context.device
        with loading.unavailable_on_error(self.name, self._folder):
            from transformers import AutoModel

            tokenizer = loading.load_tokenizer(self._folder)
            body = loading.load_weights(AutoModel, self._folder, dtype=torch.float32).to(device).train()
            head = torch.nn.Linear(body.config.hidden_size, llms).to(device)
        length = loading.max_tokens(body, tokenizer)

        def forward(queries: Sequence[str]) -> torch.Tensor:
            tokens = tokenizer(list(queries), padding=True, truncation=True, max_length=length, return_tensors="pt")
            tokens = tokens.to(device)
            hidden = body(**tokens).last_hidden_state
            mask = tokens["attention_mask"][..., None].to(hidden.dtype)
            scores: torch.Tensor = head((hidden * mask).sum(dim=1) / mask.sum(dim=1))
            return scores

        return forward, [body, head]
