"""RankBERT: a BERT cross-encoder, fine-tuned on the training passage tasks (Nogueira and Cho, arXiv 1901.04085).

Query and passage are one input, ``[CLS] query [SEP] passage [SEP]``, and a linear head over it gives the score. The head is
initialised at random (unless the folder has one with a single score), and all weights are trained with the softmax over a
task's passages (:meth:`.pointwise.Pointwise.fine_tune`). The default is google-bert/bert-base-uncased. A pair has at most 512
tokens, or the model's limit; a longer passage loses its end.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from iranker_verl.evaluation.baselines import loading
from iranker_verl.evaluation.baselines.fitting import FineTuning
from iranker_verl.evaluation.baselines.pointwise import Features, Pointwise
from iranker_verl.ranking import RankingTask


class RankBert(Pointwise):
    """A fine-tuned BERT cross-encoder. Passages."""

    name = "rankbert"
    default = "google-bert/bert-base-uncased"
    settings: FineTuning = FineTuning(epochs=3, rate=2e-5)

    def load(self, train: Sequence[RankingTask]) -> None:
        """Load the encoder and fine-tune it."""
        folder = loading.find_model(self.context, self.name, self.default)
        with loading.unavailable_on_error(self.name, folder), loading.seeded(self.context.seed, self.context.device):
            from transformers import AutoModelForSequenceClassification

            self.tokenizer = loading.load_tokenizer(folder)
            model = loading.load_weights(
                AutoModelForSequenceClassification,
                folder,
                fresh=("classifier", "score"),
                num_labels=1,
                dtype=torch.float32,
            )
            self.model = model.to(self.context.device)
            self.pad = self.tokenizer.pad_token_id or 0
            self.limit = loading.max_tokens(self.model, self.tokenizer)
        self.fine_tune(train)

    def encode(self, query: str, passage: str) -> tuple[Features, bool]:
        """Return the tokens of query and passage, and whether the passage was cut."""
        features = dict(self.tokenizer(query, passage, truncation=False, verbose=False))
        del features["attention_mask"]
        if len(features["input_ids"]) <= self.limit:
            return features, False
        self.room(query, len(self.tokenizer(query, "", truncation=False, verbose=False)["input_ids"]))
        features = dict(self.tokenizer(query, passage, truncation="only_second", max_length=self.limit))
        del features["attention_mask"]
        return features, True

    def scores_of(self, batch: dict[str, Any]) -> Any:
        """Return the head's scores."""
        return self.model(**batch).logits[:, 0]
