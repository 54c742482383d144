"""Dense retrieval (``sentence-transformers``): context and candidates are encoded alone and compared. All scenarios.

``contriever`` is the paper's: facebook/contriever (Izacard et al., arXiv 2112.09118), mean pooling and dot product.
``dense`` is any other encoder that ``context.models`` names, compared as its card says (else by cosine), with its own
prompts for queries and documents. Neither is trained.

A text longer than the model's ``max_seq_length`` loses its end, and ``rank`` says how many did.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

from iranker_verl.evaluation.baselines.base import Context, Ranking, by_score
from iranker_verl.evaluation.baselines.loading import Progress, sentence_encoder
from iranker_verl.ranking import RankingTask


class Dense:
    name = "dense"
    default: str | None = None
    similarity: Literal["cosine", "dot"] | None = None  # None: as the model's card says

    def __init__(self, context: Context) -> None:
        self._context = context
        self._model: Any = None

    def fit(self, train: Sequence[RankingTask]) -> None:
        self._model = sentence_encoder(self._context, self.name, self.default, self.similarity)

    def rank(self, tasks: Sequence[RankingTask]) -> list[Ranking | None]:
        queries = self._encode({t.context for t in tasks}, "contexts", ("query",))
        documents = self._encode(
            {c.text for t in tasks for c in t.candidates}, "candidates", ("document", "passage", "corpus")
        )
        return [self._rank(task, queries, documents) for task in tasks]

    def _rank(self, task: RankingTask, queries: dict[str, Any], documents: dict[str, Any]) -> Ranking:
        import torch

        pool = torch.stack([documents[c.text] for c in task.candidates])
        scores = self._model.similarity(queries[task.context][None], pool)[0]
        return by_score(task, scores.tolist(), self._context.seed)

    def _encode(self, texts: set[str], what: str, prompts: Sequence[str]) -> dict[str, Any]:
        """Each text once, texts of like length together. ``prompts`` are the names that a model's own may have."""
        model, say = self._model, self._context.say
        ordered = sorted(texts, key=lambda text: (len(text), text))
        if cut := self._cut(ordered, next((p for p in prompts if p in model.prompts), model.default_prompt_name)):
            say(f"{self.name}: {cut} of {len(ordered)} {what} were cut at {model.max_seq_length} tokens")
        encode = model.encode_query if "query" in prompts else model.encode_document
        size = 16 if self._context.device == "cpu" else 128
        progress = Progress(say, f"{self.name}: encoding {what}", len(ordered))
        encoded: dict[str, Any] = {}
        for i in range(0, len(ordered), size):
            batch = ordered[i : i + size]
            vectors = encode(batch, batch_size=size, show_progress_bar=False, convert_to_tensor=True)
            encoded.update(zip(batch, vectors.float().cpu(), strict=True))
            progress(len(encoded))
        return encoded

    def _cut(self, texts: Sequence[str], prompt: str | None) -> int:
        """How many texts are longer than the model reads, with the prompt that it puts before them."""
        model = self._model
        if not model.max_seq_length or model.max_seq_length == math.inf:
            return 0
        before = (model.prompts.get(prompt) or "") if prompt else ""
        ids = model.tokenizer([before + text for text in texts], truncation=False, verbose=False)["input_ids"]
        return sum(len(i) > model.max_seq_length for i in ids)


class Contriever(Dense):
    name = "contriever"
    default = "facebook/contriever"
    similarity = "dot"
