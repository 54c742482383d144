"""What the passage baselines share: a model scores every pair of query and passage alone, and may be trained on pools.

A pair is scored by itself, so neither the order of the candidates nor the other candidates change its score; pairs of
like length go through the model together, and attention masks hide the pads. A pair that is too long loses the end of
its passage, never of its query, and it is said how many did.
"""

from __future__ import annotations

import math
import random
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from iranker_verl.errors import UserError
from iranker_verl.evaluation.baselines.base import Context, Ranking, Unavailable, by_score
from iranker_verl.evaluation.baselines.loading import Progress, seeded
from iranker_verl.ranking import RankingTask

Pair = tuple[str, str]  # query, passage
Features = dict[str, list[int]]  # what the tokenizer gives for a pair: input_ids and maybe token_type_ids

POOL = 16  # candidates of a task that one training step sees: more do not fit beside an LLM (Ma et al. take 16 too)


@dataclass(frozen=True)
class Training:
    """AdamW with a linear warm-up over the first tenth of the steps and a linear decay after it."""

    epochs: int
    learning_rate: float
    tasks_per_step: int = 16


class Pointwise(ABC):
    """A baseline for the passage scenario. A subclass loads a model in :meth:`load`, and says how it reads a pair."""

    name: str

    def __init__(self, context: Context) -> None:
        self.context = context
        self.model: Any = None
        self.tokenizer: Any = None
        self.limit = 0  # tokens of a pair
        self.pad = 0  # the token that fills a batch up; attention never sees it

    @abstractmethod
    def load(self, train: Sequence[RankingTask]) -> None:
        """Set ``model``, ``tokenizer``, ``limit`` and ``pad``; train on the passage tasks ``train`` where the method asks for it."""

    @abstractmethod
    def encode(self, query: str, passage: str) -> tuple[Features, bool]:
        """The pair's tokens, at most ``limit``, and whether the passage was cut. UserError: no room for a passage."""

    @abstractmethod
    def scores(self, batch: dict[str, Any]) -> Any:
        """A score for each pair of a padded batch of tensors: shape (pairs,), higher is better."""

    def fit(self, train: Sequence[RankingTask]) -> None:
        self.load([task for task in train if task.scenario == "passage"])
        self.model.eval()

    def rank(self, tasks: Sequence[RankingTask]) -> list[Ranking | None]:
        passages = [task for task in tasks if task.scenario == "passage"]
        known = self.score({(task.context, c.text) for task in passages for c in task.candidates})
        return [
            by_score(task, [known[task.context, c.text] for c in task.candidates], self.context.seed)
            if task.scenario == "passage"
            else None
            for task in tasks
        ]

    def score(self, pairs: Iterable[Pair]) -> dict[Pair, float]:
        """Every pair's score. Batches follow from the pairs alone, not from their order."""
        import torch

        encoded = self._encoded(pairs)
        progress = Progress(self.context.say, f"{self.name}: pairs scored", len(encoded))
        known: dict[Pair, float] = {}
        with torch.inference_mode():
            for batch in self._batches(encoded):
                scores = self.scores(self._padded([encoded[pair] for pair in batch])).float().tolist()
                if not all(map(math.isfinite, scores)):
                    raise UserError(f"{self.name}: it gives scores that are no finite numbers; leave this baseline out")
                known.update(zip(batch, scores, strict=True))
                progress(len(known))
        return known

    def train(self, tasks: Sequence[RankingTask], training: Training) -> None:
        """Fine-tune all weights that ask for a gradient, on pools: the loss of a task is −log of the share that the
        softmax over its candidates' scores gives to the best of them. The same for a seed (on a GPU up to rounding),
        whatever the order shown.

        At most POOL candidates of a task take part, drawn anew in every epoch. Unavailable where there is no task, or
        where the loss is no finite number.
        """
        import torch

        if not tasks:
            raise Unavailable(f"{self.name}: it is fine-tuned, and no training task is of the passage scenario")
        encoded = self._encoded((task.context, c.text) for task in tasks for c in task.candidates)
        weights = [p for p in self.model.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(weights, lr=training.learning_rate)
        steps = training.epochs * -(-len(tasks) // training.tasks_per_step)
        warm = max(1, steps // 10)
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: min((step + 1) / warm, (steps - step) / max(1, steps - warm))
        )
        progress = Progress(self.context.say, f"{self.name}: tasks trained on", training.epochs * len(tasks))
        done = 0
        self.model.train()
        with seeded(self.context.seed, self.context.device):
            for epoch in range(training.epochs):
                rng = random.Random(f"{self.context.seed}/{epoch}")
                ordered = sorted(tasks, key=lambda task: (task.dataset, task.id))
                rng.shuffle(ordered)
                for i in range(0, len(ordered), training.tasks_per_step):
                    group = ordered[i : i + training.tasks_per_step]
                    for task in group:
                        texts, best = _pool(task, rng)
                        scores = self.scores(self._padded([encoded[task.context, text] for text in texts])).float()
                        loss = scores.logsumexp(0) - scores[best].logsumexp(0)
                        if not loss.isfinite():
                            raise Unavailable(f"{self.name}: its training diverged at task {task.id!r}, epoch {epoch}")
                        (loss / len(group)).backward()
                        done += 1
                        progress(done)
                    torch.nn.utils.clip_grad_norm_(weights, 1.0)
                    optimizer.step()
                    schedule.step()
                    optimizer.zero_grad()
        self.model.eval()

    def room(self, query: str, used: int) -> int:
        """Tokens left for a passage beside ``used`` others. UserError where the query leaves none."""
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
            self.context.say(
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
        """Tensors of shape (pairs, longest), filled up on the right, with an attention_mask."""
        import torch

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


def _pool(task: RankingTask, rng: random.Random) -> tuple[list[str], list[int]]:
    """Texts of at most POOL candidates, and the places of the best of them; the others are drawn."""
    by_id = sorted(zip(task.candidates, task.relevance, strict=True), key=lambda each: each[0].id)
    top = max(task.relevance)
    best = [c.text for c, relevance in by_id if relevance == top][: POOL - 1]
    others = [c.text for c, relevance in by_id if relevance < top]
    others = rng.sample(others, min(len(others), POOL - len(best)))
    return best + others, list(range(len(best)))
