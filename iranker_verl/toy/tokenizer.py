"""A byte-level BPE tokenizer trained on the training text; it decodes any encoded text unchanged."""

from __future__ import annotations

import string
from collections import defaultdict
from collections.abc import Iterable, Sequence

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from iranker_verl.ranking import RankingTask

END, PAD, START = "<|im_end|>", "<|endoftext|>", "<|im_start|>"
SPECIAL = (PAD, START, END)
TAGS = ("<think>", "</think>", "<answer>", "</answer>")
LABELS = tuple(f"[{letter}]" for letter in string.ascii_uppercase)

CHAT_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def title_pieces(tasks: Iterable[RankingTask], most: int) -> list[str]:
    """Return the titles, and lines of LLMs, that get a piece of their own: the most often best ones, ``most`` at most.

    Titles with brackets, which could be taken for labels and markers, and those without a space, which a byte-level decoder
    may read as bytes, stay words.
    """
    users: dict[str, set[tuple[str, str]]] = defaultdict(set)
    for task in tasks:
        if task.scenario != "passage":
            users[task.candidates[task.target].text].add((task.dataset, task.group))
    chosen = {text: len(found) for text, found in users.items() if " " in text and not set("[]<>") & set(text)}
    return sorted(chosen, key=lambda text: (-chosen[text], text))[:most]


def train_tokenizer(texts: Iterable[str], vocab_size: int, titles: Sequence[str] = ()) -> PreTrainedTokenizerFast:
    """Return a tokenizer of at most ``vocab_size`` pieces, and one for each of ``titles``.

    Labels, tags and titles are single pieces but not *special* ones, because decoding with ``skip_special_tokens`` must keep
    them. Where a title stands as words of its own, it and the space before it are its piece, the longest title first; all other
    text is made of bytes.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # type: ignore[assignment]
    tokenizer.decoder = decoders.ByteLevel()  # type: ignore[assignment]
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - len(TAGS) - len(LABELS),
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_tokens([AddedToken(t, special=False, normalized=False) for t in (*TAGS, *LABELS)])
    tokenizer.add_tokens([AddedToken(f" {t}", special=False, normalized=False, single_word=True) for t in titles])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token=END, pad_token=PAD, clean_up_tokenization_spaces=False
    )
    fast.chat_template = CHAT_TEMPLATE
    return fast
