"""From tasks to padded tensors, with a bound on what one optimizer step costs."""

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
from iranker_verl.toy.questions import Sample, make

IGNORED = -100
# Groups of like length within a step: little padding, and still every step holds every dataset.
GROUPS = 2


@dataclass(frozen=True)
class Encoded:
    """Token ids, for every place the token to be predicted there (``IGNORED``: none), and its weight."""

    ids: list[int]
    targets: list[int]
    weight: float = 1.0


def encode(tokenizer: PreTrainedTokenizerBase, samples: Sequence[Sample]) -> list[Encoded]:
    """Token ids of samples, each closed by the end token: what the policy writes, and where it stops."""
    # Pieces are encoded apart, as generation does: a prompt's ids, then the answer's.
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
    """Return the prompt, cut behind every line that has an aside; nothing where the sample is plain text."""
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
    # Plain text is all answer; its first token has nothing before it to be predicted from.
    weight = 1.0 if prompt else 1.0 / len(answer)
    return Encoded([*ids, *answer, end], [*targets, *answer[1:], end, IGNORED], weight)


def collate(rows: Sequence[Encoded], pad: int) -> tuple[torch.Tensor, torch.Tensor]:
    """``(ids, targets)``, padded on the right: causal attention then needs no mask."""
    width = max(len(r.ids) for r in rows)
    ids = torch.tensor([r.ids + [pad] * (width - len(r.ids)) for r in rows])
    targets = torch.tensor([r.targets + [IGNORED] * (width - len(r.targets)) for r in rows])
    return ids, targets


class Sampler:
    """Draws tasks evenly over datasets and makes them into samples. ``overlong`` counts the samples left out."""

    def __init__(
        self,
        tasks: Sequence[RankingTask],
        template: Template,
        tokenizer: PreTrainedTokenizerBase,
        max_length: int,
        seed: str,
    ) -> None:
        self.by_dataset = by_dataset(tasks)
        self.template, self.tokenizer, self.max_length = template, tokenizer, max_length
        self.pad = int(tokenizer.pad_token_id)
        self.random = Random(seed)
        self.drawn = self.overlong = 0

    def step(self, mix: dict[str, float], rows: int, tokens: int, largest: int | None = None) -> list[list[Encoded]]:
        """One step's samples in groups of like length: ``rows`` of them, fewer where together they pass ``tokens``."""
        samples = []
        for _ in range(rows):
            task = self.random.choice(self.by_dataset[self.random.choice(list(self.by_dataset))])
            kind = self.random.choices(list(mix), list(mix.values()))[0]
            samples.append(make(kind, self.random, task, self.template, largest))
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


def learn(model: Qwen2ForCausalLM, groups: Sequence[Sequence[Encoded]], pad: int) -> float:
    """The gradient of one step, and its loss. An answer or aside weighs one, a plain text as much in all: its many tokens
    are mostly chance, and their noise would drown what the few verdicts have to say."""
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
