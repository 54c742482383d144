"""The update of a tiny policy on a CPU: verl's own engine against ours, side by side in one run (``make bench``).

Both compute the same log-probs and gradients (``tests/training/test_answer_engine.py``) of the same micro-batch, in turns;
the median of several rounds is printed, in seconds and as a ratio.
"""

from __future__ import annotations

import argparse
import statistics
import time
from types import SimpleNamespace
from typing import Any

import torch
import verl  # noqa: F401 (registers the platform before the engines are imported)
from tensordict import TensorDict
from transformers import Qwen2Config, Qwen2ForCausalLM
from verl.utils import tensordict_utils as tu
from verl.workers.engine.fsdp.transformer_impl import FSDPEngineWithLMHead

from iranker_verl.training.answer_engine import AnswerOnlyEngine


def micro_batch(rows: int, prompt: int, answer: int, vocabulary: int) -> TensorDict:
    """Return rows of ``prompt`` - 5 to ``prompt`` + 5 tokens and ``answer`` tokens of response."""
    generator = torch.Generator().manual_seed(0)
    lengths = [prompt - 5 + i % 11 for i in range(rows)]
    ids = [torch.randint(0, vocabulary, (n + answer,), generator=generator) for n in lengths]
    nested = lambda parts: torch.nested.as_nested_tensor(parts, layout=torch.jagged)  # noqa: E731
    batch = TensorDict(
        {
            "input_ids": nested(ids),
            "responses": nested([row[-answer:] for row in ids]),
            "position_ids": nested([torch.arange(len(row)) for row in ids]),
        },
        batch_size=rows,
    )
    for key, value in {"use_remove_padding": False, "calculate_entropy": False, "temperature": 1.0}.items():
        tu.assign_non_tensor_data(batch, key, value)
    return batch


def engine_of(engine_class: type, model: Qwen2ForCausalLM) -> Any:
    """Return an engine around a model, without FSDP."""
    engine: Any = object.__new__(engine_class)
    settings = SimpleNamespace(entropy_checkpointing=False)
    engine.__dict__.update(pad_to_length=False, engine_config=settings, module=model)
    return engine


def update_seconds(engine: Any, batch: TensorDict) -> float:
    """Return the seconds of forward, log-probs and backward of one micro-batch."""
    start = time.perf_counter()
    inputs, arguments = engine.prepare_model_inputs(batch)
    output = engine.prepare_model_outputs(engine.module(**inputs, use_cache=False), arguments, batch, None)
    output["log_probs"].values().sum().backward()
    return time.perf_counter() - start


def main() -> None:
    """Print the times of both engines."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=32)
    parser.add_argument("--prompt", type=int, default=80)
    parser.add_argument("--answer", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=9)
    arguments = parser.parse_args()
    config = Qwen2Config(
        vocab_size=1100,
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        tie_word_embeddings=True,
    )
    model = Qwen2ForCausalLM(config)
    batch = micro_batch(arguments.rows, arguments.prompt, arguments.answer, config.vocab_size)
    engines = [engine_of(engine_class, model) for engine_class in (FSDPEngineWithLMHead, AnswerOnlyEngine)]
    engines[1].hook_head()
    times: list[list[float]] = [[], []]
    for engine in engines:
        update_seconds(engine, batch)  # warm-up
    for _ in range(arguments.rounds):
        for engine, seconds in zip(engines, times, strict=True):
            seconds.append(update_seconds(engine, batch))
    theirs, ours = map(statistics.median, times)
    print(
        f"update of {arguments.rows} rows: verl's engine {theirs:.3f} s, ours {ours:.3f} s, ratio {theirs / ours:.1f}"
    )


if __name__ == "__main__":
    main()
