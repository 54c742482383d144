"""Dense retrieval (``sentence-transformers``): the similarity of separate encodings of context and candidates.

``contriever`` is the paper's: facebook/contriever (Izacard et al., arXiv 2112.09118), mean pooling and dot product.
``dense`` is any other encoder that ``context.models`` names, with the similarity of its card (else cosine) and its own
prompts for queries and documents. Neither is trained. A text longer than the model's ``max_seq_length`` loses its end, and
``rank`` logs the number of these.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any, Literal

from iranker_verl.evaluation.baselines.base import ScoringBaseline
from iranker_verl.evaluation.baselines.loading import encode_in_batches, load_sentence_encoder
from iranker_verl.ranking import RankingTask


class Dense(ScoringBaseline):
    """An encoder that the user names. All scenarios."""

    name = "dense"
    default: str | None = None
    similarity: Literal["cosine", "dot"] | None = None  # None: as the model's card says
    _model: Any = None

    def fit(self, train: Sequence[RankingTask]) -> None:
        """Load the encoder."""
        self._model = load_sentence_encoder(self.context, self.name, self.default, self.similarity)

    def scores(self, tasks: Sequence[RankingTask]) -> list[list[float]]:
        """Return the similarities of contexts and candidates."""
        import torch

        queries = self._encode({t.context for t in tasks}, "contexts", ("query",))
        documents = self._encode(
            {c.text for t in tasks for c in t.candidates}, "candidates", ("document", "passage", "corpus")
        )
        pools = (torch.stack([documents[c.text] for c in task.candidates]) for task in tasks)
        return [
            self._model.similarity(queries[task.context][None], pool)[0].tolist()
            for task, pool in zip(tasks, pools, strict=True)
        ]

    def _encode(self, texts: set[str], what: str, prompts: Sequence[str]) -> dict[str, Any]:
        """Vectors by text, encoded in batches of similar length. ``prompts`` are names of prompts that a model may have."""
        model = self._model
        ordered = sorted(texts, key=lambda text: (len(text), text))
        if cut := self._cut(ordered, next((p for p in prompts if p in model.prompts), model.default_prompt_name)):
            self.context.log(f"{self.name}: {cut} of {len(ordered)} {what} were cut at {model.max_seq_length} tokens")
        encode = model.encode_query if "query" in prompts else model.encode_document
        batches = encode_in_batches(
            self.context, f"{self.name}: encoding {what}", ordered, partial(encode, convert_to_tensor=True)
        )
        vectors = (vector for batch in batches for vector in batch.float().cpu())
        return dict(zip(ordered, vectors, strict=True))

    def _cut(self, texts: Sequence[str], prompt: str | None) -> int:
        """Return the number of texts that are longer than the model's limit, with the prompt before them."""
        model = self._model
        if not model.max_seq_length or model.max_seq_length == math.inf:
            return 0
        before = (model.prompts.get(prompt) or "") if prompt else ""
        ids = model.tokenizer([before + text for text in texts], truncation=False, verbose=False)["input_ids"]
        return sum(len(i) > model.max_seq_length for i in ids)


class Contriever(Dense):
    """facebook/contriever. All scenarios."""

    name = "contriever"
    default = "facebook/contriever"
    similarity = "dot"
