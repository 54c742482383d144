"""The update of a tiny policy on a CPU: verl's own engine against ours, side by side in one run (``make bench``).

Both compute the same log-probs and gradients (``tests/training/test_answer_engine.py``) of the same micro-batch, in turns. verl's
takes it as a stock single-turn update, rows padded; ours as steps of episodes, rows packed, and the driver's order of rows and
step-level advantages are counted with it. The median of several rounds is printed, in seconds of the processor and as a ratio.
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

from benchmarks.driver_step import records
from iranker_verl.training import credit, optimizer_steps
from iranker_verl.training.answer_engine import AnswerOnlyEngine
from iranker_verl.training.step_record import StepRecord


def micro_batch(rows: int, prompt: int, answer: int, vocabulary: int, packed: bool = False) -> TensorDict:
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
    for key, value in {"use_remove_padding": packed, "calculate_entropy": False, "temperature": 1.0}.items():
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
    start = time.process_time()
    inputs, arguments = engine.prepare_model_inputs(batch)
    output = engine.prepare_model_outputs(engine.module(**inputs, use_cache=False), arguments, batch, None)
    output["log_probs"].values().sum().backward()
    return time.process_time() - start


def credit_seconds(rows: int, batch: TensorDict) -> float:
    """Return the seconds of the driver for the order of the rows and their step-level advantages."""
    stored, lengths = records(rows), batch["input_ids"].offsets().diff().tolist()
    start = time.process_time()
    optimizer_steps.order_rows(lengths, parts=1, ranks=1)
    credit.step_advantages([StepRecord.from_dict(record) for record in stored], prior=8.0, normalise="batch")
    return time.process_time() - start


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
    sizes = (arguments.rows, arguments.prompt, arguments.answer, config.vocab_size)
    engines, batches = [], []
    for engine_class, attention in ((FSDPEngineWithLMHead, "sdpa"), (AnswerOnlyEngine, "packed")):
        torch.manual_seed(0)
        model: Any = Qwen2ForCausalLM._from_config(config, attn_implementation=attention)
        engines.append(engine_of(engine_class, model))
        batches.append(micro_batch(*sizes, packed=attention == "packed"))
    engines[1].hook_head()
    times: list[list[float]] = [[], [], []]
    for round in range(arguments.rounds + 1):
        seconds = [update_seconds(*one) for one in zip(engines, batches, strict=True)]
        seconds.append(credit_seconds(arguments.rows, batches[1]))
        for kept, one in zip(times, seconds, strict=True):
            kept += [one] if round else []  # the first is to warm up
    theirs, ours, credited = map(statistics.median, times)
    print(
        f"update of {arguments.rows} rows: verl's single-turn {theirs:.3f} s, ours {ours:.3f} s and {credited:.4f} s of credit; "
        f"a trained token costs {(ours + credited) / theirs:.2f} of verl's"
    )


if __name__ == "__main__":
    main()
