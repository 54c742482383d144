"""The skills of a base on held-out tasks: how often it finds the best candidate, and the form of its exclusions."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from transformers import PreTrainedTokenizerBase, Qwen2ForCausalLM

from iranker_verl.ranking import Elimination, RankingTask
from iranker_verl.ranking.chat import ChatEncoder
from iranker_verl.ranking.label_tokens import label_tokens
from iranker_verl.ranking.templates import Message, Template
from iranker_verl.toy.questions import BEST, language

# Tokens of a batch of prompts.
TOKENS = 8192


@torch.no_grad()
def next_token(
    model: Qwen2ForCausalLM, tokenizer: PreTrainedTokenizerBase, prompts: Sequence[Sequence[Message]]
) -> torch.Tensor:
    """Return the logits of the first token of each answer, shape (prompts, vocabulary)."""
    chat = ChatEncoder(tokenizer)
    rows = [chat.encode(prompt) for prompt in prompts]
    logits = torch.empty(len(rows), model.config.vocab_size)
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
    while order:
        batch = order[: max(1, TOKENS // len(rows[order[-1]]))]
        order = order[len(batch) :]
        width = len(rows[batch[-1]])
        ids = torch.tensor([rows[i] + [tokenizer.pad_token_id] * (width - len(rows[i])) for i in batch])
        hidden = model.model(input_ids=ids, use_cache=False).last_hidden_state
        last = torch.tensor([len(rows[i]) - 1 for i in batch])
        logits[batch] = model.lm_head(hidden[torch.arange(len(batch)), last])
    return logits


def best_of_n(
    model: Qwen2ForCausalLM, tokenizer: PreTrainedTokenizerBase, tasks: Sequence[RankingTask]
) -> dict[str, float]:
    """Return, by dataset, how often the model names a best candidate when asked which fits best."""
    if not tasks:
        return {}
    labels = list(label_tokens(tokenizer, max(len(t.candidates) for t in tasks)).ids)
    right: dict[str, list[bool]] = {}
    logits = next_token(model, tokenizer, [BEST.messages(Elimination(t)) for t in tasks])
    for task, row in zip(tasks, logits, strict=True):
        chosen = int(row[labels[: len(task.candidates)]].argmax())
        right.setdefault(task.dataset, []).append(task.relevance[chosen] == max(task.relevance))
    return {dataset: round(sum(values) / len(values), 4) for dataset, values in right.items()}


@torch.no_grad()
def likelihood(
    model: Qwen2ForCausalLM, tokenizer: PreTrainedTokenizerBase, tasks: Sequence[RankingTask]
) -> dict[str, float]:
    """Return, by dataset, the MRR of candidates in the order of their texts' likelihood after the history, as plain text.

    It is what the base knows before it can say it with labels. Of recommendation tasks; the others are left out.
    """
    chat = ChatEncoder(tokenizer)
    found: dict[str, list[float]] = {}
    for task in (task for task in tasks if task.scenario == "recommendation"):
        rows = chat.encode_texts([language(task, place).answer for place in range(len(task.candidates))])
        start = len(chat.encode_texts([f"{task.context};"])[0])
        width = max(map(len, rows))
        ids = torch.tensor([row + [tokenizer.pad_token_id] * (width - len(row)) for row in rows])
        log_probs = model(input_ids=ids, use_cache=False).logits[:, start - 1 : -1].log_softmax(-1)
        each = log_probs.gather(2, ids[:, start:, None])[..., 0]
        scores = torch.stack([own[: len(row) - start].sum() for own, row in zip(each, rows, strict=True)])
        rank = 1 + int((scores > scores[task.target]).sum())
        found.setdefault(task.dataset, []).append(1 / rank)
    return {dataset: round(sum(values) / len(values), 4) for dataset, values in found.items()}


def exclusion_format(
    model: Qwen2ForCausalLM, tokenizer: PreTrainedTokenizerBase, tasks: Sequence[RankingTask], template: Template
) -> dict[str, float]:
    """Return mean probabilities of the first token of an answer to the template's prompt, if its answer is a label.

    ``valid``: that it is the label of a candidate; ``positive``: that it is the positive's, which an exclusion should
    avoid and a direct ranking name first; ``random``: what ``positive`` is uniformly at random.
    """
    if not tasks or template.answer != "label":
        return {}
    labels = list(label_tokens(tokenizer, max(len(t.candidates) for t in tasks)).ids)
    probabilities = next_token(model, tokenizer, [template.messages(template.start(t)) for t in tasks]).softmax(-1)
    valid = [float(row[labels[: len(t.candidates)]].sum()) for t, row in zip(tasks, probabilities, strict=True)]
    positive = [float(row[labels[t.target]]) for t, row in zip(tasks, probabilities, strict=True)]
    sums = {"valid": valid, "positive": positive, "random": [1 / len(t.candidates) for t in tasks]}
    return {name: round(sum(values) / len(tasks), 4) for name, values in sums.items()}


def macro(scores: dict[str, float]) -> float:
    """Return the mean over datasets, NaN without any."""
    return sum(scores.values()) / len(scores) if scores else float("nan")
