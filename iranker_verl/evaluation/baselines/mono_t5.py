"""MonoT5 (Nogueira et al., Findings of EMNLP 2020): a T5 judges whether a passage is relevant to a query.

The input is ``Query: q Document: d Relevant:``, and the score is the log ratio of the probabilities of ``true`` and
``false`` as the first word of the output. The model is not trained here (default: castorini/monot5-base-msmarco, fine-tuned
on MS MARCO by its authors). A T5 that was not fine-tuned for this gives meaningless scores, which cannot be detected. A pair
has at most 512 tokens; a longer passage loses its end, and ``Relevant:`` always stays.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from iranker_verl.evaluation.baselines import loading
from iranker_verl.evaluation.baselines.pointwise import Features, Pointwise
from iranker_verl.ranking import RankingTask

WORDS = ("▁true", "▁false")  # as T5's vocabulary writes words


class MonoT5(Pointwise):
    """A T5 fine-tuned for relevance by its authors. Passages."""

    name = "monot5"
    default = "castorini/monot5-base-msmarco"
    _words: Sequence[int] = ()

    def load(self, train: Sequence[RankingTask]) -> None:
        """Load the model."""
        folder = loading.find_model(self.context, self.name, self.default)
        with loading.unavailable_on_error(self.name, folder):
            from transformers import AutoModelForSeq2SeqLM

            self.tokenizer = loading.load_tokenizer(folder)
            vocabulary = self.tokenizer.get_vocab()
            if missing := [word for word in WORDS if word not in vocabulary]:
                raise ValueError(f"its vocabulary has no {missing[0]!r}; this is no T5")
            self._words = [vocabulary[word] for word in WORDS]
            # T5 overflows in half precision.
            self.model = loading.load_weights(AutoModelForSeq2SeqLM, folder, dtype=torch.float32).to(
                self.context.device
            )
            self.pad = self.tokenizer.pad_token_id or 0
            self.limit = loading.max_tokens(self.model, self.tokenizer)

    def encode(self, query: str, passage: str) -> tuple[Features, bool]:
        """Return the tokens of the input, and whether the passage was cut."""
        # T5 splits at spaces first, so the parts have the tokens that they have in the whole.
        head, body, tail = (
            self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
            for text in (f"Query: {query} Document:", passage, "Relevant:")
        )
        tail = [*tail, self.tokenizer.eos_token_id]
        room = self.room(query, len(head) + len(tail))
        return {"input_ids": [*head, *body[:room], *tail]}, len(body) > room

    def scores_of(self, batch: dict[str, Any]) -> Any:
        """Return the log ratios of true and false."""
        start = torch.full((len(batch["input_ids"]), 1), self.model.config.decoder_start_token_id)
        logits = self.model(**batch, decoder_input_ids=start.to(self.context.device)).logits
        true, false = logits[:, 0, self._words].unbind(dim=1)
        return true - false
