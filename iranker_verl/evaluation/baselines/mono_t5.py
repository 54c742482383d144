"""MonoT5 (Nogueira et al., Findings of EMNLP 2020): T5 is asked whether a passage is relevant to a query.

It reads ``Query: q Document: d Relevant:``, and a passage is worth the probability of ``true`` against ``false`` as the
first word of the answer. The score kept is the logarithm of their ratio: the same order, with no ties near 0 and 1.
The model is used as it is (default: castorini/monot5-base-msmarco, fine-tuned on MS MARCO by its authors); it is not
trained on the training tasks. A T5 that was never tuned for this has no meaning here, and nothing tells it from one
that was.

A pair takes at most 512 tokens; what is too long is the passage's end, and ``Relevant:`` always stays.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from iranker_verl.evaluation.baselines.base import Context
from iranker_verl.evaluation.baselines.loading import find, load, longest, tokenizer_of, trying
from iranker_verl.evaluation.baselines.pointwise import Features, Pointwise
from iranker_verl.ranking import RankingTask

WORDS = ("▁true", "▁false")  # as T5's vocabulary writes words


class MonoT5(Pointwise):
    name = "monot5"
    default = "castorini/monot5-base-msmarco"

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._words: list[int] = []

    def load(self, train: Sequence[RankingTask]) -> None:
        folder = find(self.context, self.name, self.default)
        with trying(self.name, folder):
            import torch
            from transformers import AutoModelForSeq2SeqLM

            self.tokenizer = tokenizer_of(folder)
            vocabulary = self.tokenizer.get_vocab()
            if missing := [word for word in WORDS if word not in vocabulary]:
                raise ValueError(f"its vocabulary has no {missing[0]!r}; this is no T5")
            self._words = [vocabulary[word] for word in WORDS]
            # T5 overflows in half precision.
            self.model = load(AutoModelForSeq2SeqLM, folder, dtype=torch.float32).to(self.context.device)
            self.pad = self.tokenizer.pad_token_id or 0
            self.limit = longest(self.model, self.tokenizer)

    def encode(self, query: str, passage: str) -> tuple[Features, bool]:
        # T5 splits at spaces first, so the parts have the tokens that they have in the whole.
        head, body, tail = (
            self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
            for text in (f"Query: {query} Document:", passage, "Relevant:")
        )
        tail = [*tail, self.tokenizer.eos_token_id]
        room = self.room(query, len(head) + len(tail))
        return {"input_ids": [*head, *body[:room], *tail]}, len(body) > room

    def scores(self, batch: dict[str, Any]) -> Any:
        import torch

        start = torch.full((len(batch["input_ids"]), 1), self.model.config.decoder_start_token_id)
        logits = self.model(**batch, decoder_input_ids=start.to(self.context.device)).logits
        true, false = logits[:, 0, self._words].unbind(dim=1)
        return true - false
