"""RankBERT: a BERT cross-encoder, fine-tuned on the training passage tasks (Nogueira and Cho, arXiv 1901.04085).

Query and passage are one input, ``[CLS] query [SEP] passage [SEP]``, and a linear head over it gives the score. The head
begins at random (unless the folder has one of a single score) and everything is trained with the softmax over a task's
passages, in which the positive has to win. The default is google-bert/bert-base-uncased.

A pair takes at most 512 tokens, or what the model admits; what is too long is the passage's end.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from iranker_verl.evaluation.baselines.loading import find, load, longest, seeded, tokenizer_of, trying
from iranker_verl.evaluation.baselines.pointwise import Features, Pointwise, Training
from iranker_verl.ranking import RankingTask


class RankBert(Pointwise):
    name = "rankbert"
    default = "google-bert/bert-base-uncased"
    training = Training(epochs=3, learning_rate=2e-5)

    def load(self, train: Sequence[RankingTask]) -> None:
        folder = find(self.context, self.name, self.default)
        with trying(self.name, folder), seeded(self.context.seed, self.context.device):
            import torch
            from transformers import AutoModelForSequenceClassification

            self.tokenizer = tokenizer_of(folder)
            model = load(
                AutoModelForSequenceClassification,
                folder,
                fresh=("classifier", "score"),
                num_labels=1,
                dtype=torch.float32,
            )
            self.model = model.to(self.context.device)
            self.pad = self.tokenizer.pad_token_id or 0
            self.limit = longest(self.model, self.tokenizer)
        self.train(train, self.training)

    def encode(self, query: str, passage: str) -> tuple[Features, bool]:
        features = dict(self.tokenizer(query, passage, truncation=False, verbose=False))
        del features["attention_mask"]
        if len(features["input_ids"]) <= self.limit:
            return features, False
        self.room(query, len(self.tokenizer(query, "", truncation=False, verbose=False)["input_ids"]))
        features = dict(self.tokenizer(query, passage, truncation="only_second", max_length=self.limit))
        del features["attention_mask"]
        return features, True

    def scores(self, batch: dict[str, Any]) -> Any:
        return self.model(**batch).logits[:, 0]
