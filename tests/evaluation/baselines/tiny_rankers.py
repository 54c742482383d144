"""Random encoders and rankers of a few thousand parameters, with tokenizers of a few words, and tasks in those words."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

from iranker_verl.ranking import Candidate, RankingTask

WORDS = ["ash", "bay", "cod", "dew", "elm", "fig", "gnu", "hen", "ivy", "jam", "kit", "log"]
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]


def passages(n: int, seed: int = 0, size: int = 4) -> list[RankingTask]:
    """A query is one word of six. Each passage says one word two or three times, and the positive says the query's."""
    rng = random.Random(seed)
    tasks = []
    for i in range(n):
        words = rng.sample(WORDS[:6], size)
        texts = [" ".join([word] * rng.randint(2, 3)) for word in words]
        candidates = [Candidate(f"p{j}", text) for j, text in enumerate(texts)]
        rng.shuffle(candidates)
        tasks.append(
            RankingTask.with_positive(f"{seed}-{i}", "passage", "passage-5", words[0], tuple(candidates), "p0")
        )
    return tasks


def turned(task: RankingTask) -> RankingTask:
    """The same task, its candidates shown in the opposite order."""
    return RankingTask(
        task.id, task.scenario, task.dataset, task.context, task.candidates[::-1], task.relevance[::-1], task.history
    )


def first_is_best(baseline: Any, tasks: list[RankingTask]) -> float:
    """The share of tasks whose positive is ranked first."""
    rankings = baseline.rank(tasks)
    return sum(ranking[0] == t.candidates[t.target].id for t, ranking in zip(tasks, rankings, strict=True)) / len(tasks)


def _save_tokenizer(folder: Path, words: list[str], single: str, pair: str, limit: int, **special: str) -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    vocabulary = {word: i for i, word in enumerate(words)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=special["unk_token"]))
    tokenizer.pre_tokenizer = (
        pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()])
        if any(word.startswith("▁") for word in words)
        else pre_tokenizers.WhitespaceSplit()
    )
    if single:
        ends = [(word, vocabulary[word]) for word in special.values()]
        tokenizer.post_processor = processors.TemplateProcessing(single=single, pair=pair, special_tokens=ends)
    saved = PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=limit, **special)
    saved.save_pretrained(folder)
    return saved


def bert(folder: Path, *, limit: int = 32, seed: int = 0, words: list[str] = WORDS, **config: Any) -> Path:
    """A plain BERT encoder that knows ``words`` and reads ``limit`` tokens."""
    import torch
    from transformers import BertConfig, BertModel

    words = [*SPECIAL, *words]
    _save_tokenizer(
        folder,
        words,
        "[CLS] $A [SEP]",
        "[CLS] $A [SEP] $B:1 [SEP]:1",
        limit,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
    )
    torch.manual_seed(seed)
    sizes = {
        "vocab_size": len(words),
        "hidden_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 64,
        "max_position_embeddings": limit,
        "initializer_range": 0.2,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
    }
    BertModel(BertConfig(**(sizes | config))).save_pretrained(folder)
    return folder


def t5(folder: Path, *, limit: int = 64, words: list[str] | None = None) -> Path:
    """A T5 whose vocabulary has MonoT5's words (or ``words``)."""
    import torch
    from transformers import T5Config, T5ForConditionalGeneration

    said = ["▁true", "▁false"] if words is None else words
    words = ["<pad>", "</s>", "<unk>", "▁Query:", "▁Document:", "▁Relevant:", *said, *(f"▁{w}" for w in WORDS)]
    _save_tokenizer(
        folder, words, "$A </s>", "$A </s> $B </s>", limit, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    )
    torch.manual_seed(0)
    config = T5Config(
        vocab_size=len(words),
        d_model=32,
        d_kv=16,
        d_ff=64,
        num_layers=2,
        num_heads=2,
        decoder_start_token_id=0,
        pad_token_id=0,
        eos_token_id=1,
        initializer_factor=0.5,
    )
    T5ForConditionalGeneration(config).save_pretrained(folder)
    return folder


def llama(folder: Path, *, kind: str = "LlamaForCausalLM", limit: int = 64, **config: Any) -> Path:
    """A Llama whose end token is its pad too, as in many LLMs."""
    import torch
    import transformers

    words = ["<s>", "</s>", "<unk>", "query:", "document:", *WORDS]
    _save_tokenizer(
        folder,
        words,
        "<s> $A",
        "<s> $A $B",
        limit,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="</s>",
        unk_token="<unk>",
    )
    torch.manual_seed(0)
    sizes = {
        "vocab_size": len(words),
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "max_position_embeddings": limit,
        "initializer_range": 0.2,
        "bos_token_id": 0,
        "eos_token_id": 1,
        "pad_token_id": 1,
    }
    getattr(transformers, kind)(transformers.LlamaConfig(**(sizes | config))).save_pretrained(folder)
    return folder


def without_weight(folder: Path, part: str) -> Path:
    """The folder, with the weights whose names hold ``part`` left out of its safetensors."""
    from safetensors.torch import load_file, save_file

    path = folder / "model.safetensors"
    save_file({k: v for k, v in load_file(path).items() if part not in k}, path, metadata={"format": "pt"})
    return folder


def change_config(folder: Path, **changes: Any) -> Path:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return folder
