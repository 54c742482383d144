"""Random Qwen2-architecture models of a few ten thousand parameters, and a byte-level tokenizer, for tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

CHAT_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def qwen2(vocabulary: int, **config: Any) -> Any:
    """A model with random weights from torch's present seed."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    sizes = {
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "max_position_embeddings": 512,
        "bos_token_id": None,
        "tie_word_embeddings": True,
    }
    return Qwen2ForCausalLM(Qwen2Config(vocab_size=vocabulary, **(sizes | config)))


def tokenizer() -> Any:
    """A byte-level BPE tokenizer with a chat template."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=512,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    bpe.train_from_iterator(["History: Candidates: Exclude the worst:"], trainer)
    made = PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token="<|im_end|>", pad_token="<|endoftext|>")
    made.chat_template = CHAT_TEMPLATE
    return made


def save(folder: Path) -> Path:
    """Save a random model with its tokenizer, in Hugging Face's format; returns ``folder``."""
    import torch

    torch.manual_seed(0)
    _save(folder, lambda **config: qwen2(512, **config))
    return folder


def save_saying(folder: Path, token: str) -> Path:
    """Save a model that answers every prompt with one token, ``token`` (say, a digit), and ends; returns ``folder``.

    Its layers add nothing, so the next token depends on the last one alone: after ``token`` the end, after all others ``token``.
    """
    import torch

    def make(**config: Any) -> Any:
        model = qwen2(512, max_position_embeddings=2048, **(config | {"tie_word_embeddings": False}))
        said, end = tokenizer().convert_tokens_to_ids(token), config["eos_token_id"]
        with torch.no_grad():
            for layer in model.model.layers:
                layer.self_attn.o_proj.weight.zero_()
                layer.mlp.down_proj.weight.zero_()
            seen, head = model.model.embed_tokens.weight, model.lm_head.weight
            seen.zero_(), head.zero_()
            seen[:, 0], seen[said, 0], seen[said, 1] = 1, 0, 1
            head[said, 0] = head[end, 1] = 1
        return model

    _save(folder, make)
    return folder


def _save(folder: Path, make: Callable[..., Any]) -> None:
    words = tokenizer()
    words.save_pretrained(folder)
    make(eos_token_id=words.eos_token_id, pad_token_id=words.pad_token_id).save_pretrained(folder)
