"""Make padded tensors of tasks, with a bound on the tokens of one optimizer step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from random import Random

import torch
from transformers import PreTrainedTokenizerBase, Qwen2ForCausalLM

from iranker_verl.ranking import RankingTask, by_dataset
from iranker_verl.ranking.chat import ChatEncoder
from iranker_verl.ranking.templates import Template
from iranker_verl.toy.questions import Sample, make_sample

IGNORED = -100
# Groups of similar length within a step: little padding, although each step mixes the datasets.
GROUPS = 2


@dataclass(frozen=True)
class Encoded:
    """Token ids, the target at each position (``IGNORED``: none), and the weight of the sample's loss."""

    ids: list[int]
    targets: list[int]
    weight: float = 1.0


def encode(tokenizer: PreTrainedTokenizerBase, samples: Sequence[Sample]) -> list[Encoded]:
    """Return the token ids of samples, each with the end token."""
    # Pieces are encoded separately, as in generation: the prompt, then the answer.
    chat = ChatEncoder(tokenizer)
    prompts = [_pieces(chat, sample) for sample in samples]
    asides = [[verdict for _, verdict in s.asides] for s in samples]
    ids = iter(chat.ids([text for row in (*prompts, *asides) for text in row]))
    encoded = [[next(ids) for _ in row] for row in prompts]
    verdicts = [[next(ids)[0] for _ in row] for row in asides]
    answers = chat.encode_texts([sample.answer for sample in samples])
    for place, sample in enumerate(samples):
        if sample.messages and not chat.is_plain(sample.messages, chain.from_iterable(encoded[place])):
            # A text holds a special token; where its lines end is not known then, so it has no asides.
            encoded[place], verdicts[place] = [chat.encode(sample.messages)], []
    end = tokenizer.eos_token_id
    return [_encoded([*row, a], said, end) for row, a, said in zip(encoded, answers, verdicts, strict=True)]


def _pieces(chat: ChatEncoder, sample: Sample) -> list[str]:
    """Return the prompt, cut after every line that has an aside; nothing where the sample is plain text."""
    if sample.messages is None:
        return []
    prompt = chat.text(sample.messages)
    pieces, at = [], 0
    for line, _ in sample.asides:
        end = prompt.index(line, at) + len(line)
        pieces.append(prompt[at:end])
        at = end
    return [*pieces, prompt[at:]]


def _encoded(pieces: list[list[int]], verdicts: list[int], end: int) -> Encoded:
    *prompt, answer = pieces
    ids: list[int] = []
    targets: list[int] = []
    for number, piece in enumerate(prompt):
        ids += piece
        targets += [IGNORED] * len(piece)
        if number < len(verdicts):
            targets[-1] = verdicts[number]
    if prompt:
        targets[-1] = answer[0]
    # Plain text is all answer, without its first token, which has no context.
    weight = 1.0 if prompt else 1.0 / len(answer)
    return Encoded([*ids, *answer, end], [*targets, *answer[1:], end, IGNORED], weight)


def collate(rows: Sequence[Encoded], pad: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return ``(ids, targets)``, padded on the right, where causal attention needs no mask."""
    width = max(len(r.ids) for r in rows)
    ids = torch.tensor([r.ids + [pad] * (width - len(r.ids)) for r in rows])
    targets = torch.tensor([r.targets + [IGNORED] * (width - len(r.targets)) for r in rows])
    return ids, targets


class Sampler:
    """Sample tasks of all datasets, and make samples of them. ``overlong`` counts the samples left out.

    A dataset of n tasks is drawn in proportion to n to the power of ``size_power``.
    """

    def __init__(
        self,
        tasks: Sequence[RankingTask],
        template: Template,
        tokenizer: PreTrainedTokenizerBase,
        max_length: int,
        seed: str,
        size_power: float = 0.0,
    ) -> None:
        self.datasets = list(by_dataset(tasks).values())
        self.shares = [len(own) ** size_power for own in self.datasets]
        self.template, self.tokenizer, self.max_length = template, tokenizer, max_length
        self.pad = int(tokenizer.pad_token_id)
        self.random = Random(seed)
        self.drawn = self.overlong = 0

    def step(self, mix: dict[str, float], rows: int, tokens: int, largest: int | None = None) -> list[list[Encoded]]:
        """Return one step's samples in groups of similar length: ``rows`` of them, fewer where they exceed ``tokens``."""
        samples = []
        for _ in range(rows):
            task = self.random.choice(self.random.choices(self.datasets, self.shares)[0])
            kind = self.random.choices(list(mix), list(mix.values()))[0]
            samples.append(make_sample(kind, self.random, task, self.template, largest))
        encoded = encode(self.tokenizer, samples)
        kept = [e for e in encoded if len(e.ids) <= self.max_length]
        self.overlong += len(encoded) - len(kept)
        taken: list[Encoded] = []
        for row in kept:
            if taken and sum(len(e.ids) for e in taken) + len(row.ids) > tokens:
                break
            taken.append(row)
        self.drawn += len(taken)
        taken.sort(key=lambda e: len(e.ids))
        size = max(1, -(-len(taken) // GROUPS))
        return [taken[i : i + size] for i in range(0, len(taken), size)]


def accumulate_gradient(model: Qwen2ForCausalLM, groups: Sequence[Sequence[Encoded]], pad: int) -> float:
    """Add the gradient of one step, and return its loss.

    Each target token of an answer or aside has weight one, and so has a plain text as a whole: its many tokens are mostly
    unpredictable, and their noise would outweigh the few verdicts.
    """
    rows = sum(len(group) for group in groups)
    total = 0.0
    for group in groups:
        ids, targets = collate(group, pad)
        wanted = targets != IGNORED
        hidden = model.model(input_ids=ids, use_cache=False).last_hidden_state
        losses = torch.nn.functional.cross_entropy(model.lm_head(hidden[wanted]), targets[wanted], reduction="none")
        weights = torch.tensor([row.weight for row in group])[:, None].expand_as(targets)[wanted]
        loss = (losses * weights).sum() / rows
        loss.backward()
        total += loss.item()
    return total
