"""The base class of the passage baselines: a model scores each pair of query and passage alone, and may be fine-tuned.

A pair's score depends neither on the order of the candidates nor on the others. Pairs of similar length form a batch, and
attention masks hide the padding. A pair that is too long loses the end of its passage, never of its query, and the number
of these is logged.
"""

from __future__ import annotations

import math
import random
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch

from iranker_verl.errors import UserError
from iranker_verl.evaluation.baselines.base import ScoringBaseline, Unavailable
from iranker_verl.evaluation.baselines.fitting import fine_tune
from iranker_verl.evaluation.baselines.loading import Progress, seeded
from iranker_verl.ranking import RankingTask

Pair = tuple[str, str]  # query, passage
Features = dict[str, list[int]]  # what the tokenizer gives for a pair: input_ids and maybe token_type_ids

POOL = 16  # candidates of a task in one training step: more do not fit beside an LLM (Ma et al. use 16 too)


class Pointwise(ScoringBaseline):
    """A baseline for the passage scenario. A subclass loads a model in :meth:`load`, and encodes and scores pairs."""

    scenario = "passage"

    model: Any = None
    tokenizer: Any = None
    limit = 0  # tokens of a pair
    pad = 0  # the padding token, which attention masks

    @abstractmethod
    def load(self, train: Sequence[RankingTask]) -> None:
        """Set ``model``, ``tokenizer``, ``limit`` and ``pad``; fine-tune on the passage tasks ``train`` if the method does."""

    @abstractmethod
    def encode(self, query: str, passage: str) -> tuple[Features, bool]:
        """Return the pair's tokens, at most ``limit``, and whether the passage was cut.

        Raise UserError where the query leaves no room for a passage.
        """

    @abstractmethod
    def scores_of(self, batch: dict[str, Any]) -> Any:
        """Return the scores of a padded batch of tensors, of shape (pairs,); higher is better."""

    def fit(self, train: Sequence[RankingTask]) -> None:
        """Load the model, and fine-tune it on the passage tasks if the method does."""
        self.load([task for task in train if self.applies(task)])
        self.model.eval()

    def scores(self, tasks: Sequence[RankingTask]) -> list[list[float]]:
        """Return the scores of context and candidate."""
        known = self.score({(task.context, c.text) for task in tasks for c in task.candidates})
        return [[known[task.context, c.text] for c in task.candidates] for task in tasks]

    def score(self, pairs: Iterable[Pair]) -> dict[Pair, float]:
        """Return every pair's score. Batches depend on the set of pairs, not on their order."""
        encoded = self._encoded(pairs)
        progress = Progress(self.context.log, f"{self.name}: pairs scored", len(encoded))
        known: dict[Pair, float] = {}
        with torch.inference_mode():
            for batch in self._batches(encoded):
                scores = self.scores_of(self._padded([encoded[pair] for pair in batch])).float().tolist()
                if not all(map(math.isfinite, scores)):
                    raise UserError(f"{self.name}: its scores are not finite numbers; leave this baseline out")
                known.update(zip(batch, scores, strict=True))
                progress(len(known))
        return known

    def fine_tune(self, tasks: Sequence[RankingTask]) -> None:
        """Fine-tune all weights that require a gradient, by ``settings``; a sample is a task.

        The loss of a task is −log of the probability that the softmax over its candidates' scores gives to the best of
        them, over at most POOL candidates, sampled anew in every epoch. Deterministic for a seed (on a GPU up to
        rounding). Raise Unavailable where there is no task, or where a loss is not finite.
        """
        if not tasks:
            raise Unavailable(f"{self.name}: it is fine-tuned, and no training task is of the passage scenario")
        encoded = self._encoded((task.context, c.text) for task in tasks for c in task.candidates)
        ordered = sorted(tasks, key=lambda task: (task.dataset, task.id))
        rng = random.Random(self.context.seed)

        def losses(indices: list[int]) -> Iterator[torch.Tensor]:
            for task in (ordered[i] for i in indices):
                texts, best = _pool(task, rng)
                scores = self.scores_of(self._padded([encoded[task.context, text] for text in texts])).float()
                yield (scores.logsumexp(0) - scores[:best].logsumexp(0)) / len(indices)

        self.model.train()
        weights = [p for p in self.model.parameters() if p.requires_grad]
        total = self.settings.epochs * len(ordered)
        progress = Progress(self.context.log, f"{self.name}: training tasks", total)
        with seeded(self.context.seed, self.context.device):
            fine_tune(self.name, weights, losses, len(ordered), self.settings, progress)
        self.model.eval()

    def room(self, query: str, used: int) -> int:
        """Return the tokens left for a passage beside ``used`` others. Raise UserError where the query leaves none."""
        if used >= self.limit:
            raise UserError(
                f"{self.name} reads {self.limit} tokens, and the query {query[:60]!r}… leaves no room for a passage; "
                "leave this task or this baseline out"
            )
        return self.limit - used

    def _encoded(self, pairs: Iterable[Pair]) -> dict[Pair, Features]:
        encoded, cut = {}, 0
        for query, passage in sorted(set(pairs)):
            encoded[query, passage], was_cut = self.encode(query, passage)
            cut += was_cut
        if cut:
            self.context.log(
                f"{self.name}: {cut} of {len(encoded)} passages were cut: {self.limit} tokens hold a query and a passage"
            )
        return encoded

    def _batches(self, encoded: dict[Pair, Features]) -> Iterator[list[Pair]]:
        most = 2048 if self.context.device == "cpu" else 32768  # tokens, pads included: seconds on a CPU
        batch: list[Pair] = []
        for pair in sorted(encoded, key=lambda pair: (len(encoded[pair]["input_ids"]), pair)):
            if batch and (len(batch) + 1) * len(encoded[pair]["input_ids"]) > most:
                yield batch
                batch = []
            batch.append(pair)
        if batch:
            yield batch

    def _padded(self, rows: list[Features]) -> dict[str, Any]:
        """Tensors of shape (pairs, longest), padded on the right, with an attention_mask."""
        lengths = [len(row["input_ids"]) for row in rows]
        rows = [{**row, "attention_mask": [1] * length} for row, length in zip(rows, lengths, strict=True)]
        fill = {"input_ids": self.pad}
        return {
            name: torch.tensor(
                [row[name] + [fill.get(name, 0)] * (max(lengths) - len(row[name])) for row in rows],
                device=self.context.device,
            )
            for name in rows[0]
        }


def _pool(task: RankingTask, rng: random.Random) -> tuple[list[str], int]:
    """Texts of at most POOL candidates, the best ones first, and the number of these; the others are sampled."""
    by_id = sorted(zip(task.candidates, task.relevance, strict=True), key=lambda each: each[0].id)
    top = max(task.relevance)
    best = [c.text for c, relevance in by_id if relevance == top][: POOL - 1]
    others = [c.text for c, relevance in by_id if relevance < top]
    return best + rng.sample(others, min(len(others), POOL - len(best))), len(best)
