"""A GPU's update and generation, without Ray: ``python -m benchmarks.update_gpu --recipe recipes/iranker_3b_episodes``.

The policy has Qwen2.5-3B's shape and random weights; the rows have lengths as the recipe's. One process takes updates of the same
rows through the engine that training uses, packed and padded, and through verl's own engine, packed (its stock single-turn
update); another generates with vLLM. Printed are tokens of rows a second, MFU by verl's count, and peak memory, beside what
``iranker plan`` counts. On a CPU, ``--shape tiny`` shows that it runs.

No GPU was at hand: what it prints on one has never been seen.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
import verl  # noqa: F401 (registers the platform before the engines are imported)
from omegaconf import DictConfig
from tensordict import TensorDict
from verl.utils import tensordict_utils as tu
from verl.utils.config import omega_conf_to_dataclass
from verl.utils.device import get_device_name
from verl.utils.flops_counter import FlopsCounter
from verl.workers.config import HFModelConfig
from verl.workers.engine.fsdp.transformer_impl import FSDPEngineWithLMHead
from verl.workers.utils.losses import ppo_loss

from benchmarks.row_lengths import sample_rows
from iranker_verl.plan.memory import phases
from iranker_verl.plan.placement import engine_of, machine_of, roles_of
from iranker_verl.training.answer_engine import AnswerOnlyEngine
from iranker_verl.training.main import compose_recipe

# Of the model's config.json; "3b" is Qwen2.5-3B's.
SHAPES = {
    "3b": {
        "vocab_size": 151936,
        "hidden_size": 2048,
        "intermediate_size": 11008,
        "num_hidden_layers": 36,
        "num_attention_heads": 16,
        "num_key_value_heads": 2,
        "max_position_embeddings": 32768,
    },
    "tiny": {
        "vocab_size": 1024,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 4096,
    },
}
# name, engine, whether its rows are packed
UPDATES = (
    ("ours, packed", AnswerOnlyEngine, True),
    ("ours, padded", AnswerOnlyEngine, False),
    ("verl's own, packed", FSDPEngineWithLMHead, True),
)


def save_model(folder: Path, shape: str) -> None:
    """Save a model of random weights, bfloat16, with a tokenizer of as many words as it takes."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(0)
    config = Qwen2Config(**SHAPES[shape], tie_word_embeddings=True, eos_token_id=1, bos_token_id=None, dtype="bfloat16")
    torch.set_default_dtype(torch.bfloat16)
    Qwen2ForCausalLM(config).save_pretrained(folder)
    torch.set_default_dtype(torch.float32)
    words = Tokenizer(models.WordLevel({"<pad>": 0, "<eos>": 1}, unk_token="<pad>"))
    PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", eos_token="<eos>").save_pretrained(folder)


@contextmanager
def one_rank() -> Iterator[None]:
    """Be the only rank of a process group."""
    backend = "nccl" if get_device_name() == "cuda" else "gloo"
    dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)
    try:
        yield
    finally:
        dist.destroy_process_group()


def make_engine(config: DictConfig, engine_class: type) -> tuple[Any, Any]:
    """Return an initialised engine of a recipe's actor, as verl's worker makes it, and the actor's loss."""
    model = omega_conf_to_dataclass(config.actor_rollout_ref.model, dataclass_type=HFModelConfig)
    model.model_type = "language_model"
    actor = omega_conf_to_dataclass(config.actor_rollout_ref.actor)
    actor.model_config = model
    engine = engine_class(model, actor.engine, actor.optim, actor.checkpoint)
    engine.initialize()
    return engine, partial(ppo_loss, config=actor)


def make_batch(lengths: list[tuple[int, int]], vocabulary: int, config: DictConfig, packed: bool) -> TensorDict:
    """Return a mini-batch of rows of random tokens, of ``lengths`` of prompt and response, with what verl's loss reads."""
    draw = torch.Generator().manual_seed(1)
    ids = [torch.randint(2, vocabulary, (prompt + answer,), generator=draw) for prompt, answer in lengths]
    answers = [row[prompt:] for row, (prompt, _) in zip(ids, lengths, strict=True)]
    mask = [torch.ones(len(row), dtype=torch.int64) for row in answers]
    weights = torch.randn(len(ids), generator=draw)
    columns = {
        "input_ids": ids,
        "position_ids": [torch.arange(len(row)) for row in ids],
        "prompts": [row[:prompt] for row, (prompt, _) in zip(ids, lengths, strict=True)],
        "responses": answers,
        "response_mask": mask,
        "loss_mask": mask,
        "old_log_probs": [torch.full((len(row),), -7.0) for row in answers],
        "advantages": [weight.expand(len(row)) for weight, row in zip(weights, answers, strict=True)],
    }
    nested = {
        name: torch.nested.as_nested_tensor([row.clone() for row in rows], layout=torch.jagged)
        for name, rows in columns.items()
    }
    batch = TensorDict(nested, batch_size=len(ids))
    actor = config.actor_rollout_ref.actor
    for key, value in {
        "use_remove_padding": packed,
        "use_dynamic_bsz": True,
        "max_token_len_per_gpu": actor.ppo_max_token_len_per_gpu,
        "global_batch_size": len(ids),
        "temperature": config.actor_rollout_ref.rollout.temperature,
        "calculate_entropy": False,
    }.items():
        tu.assign_non_tensor_data(batch, key, value)
    return batch


def update(engine: Any, loss: Any, batch: TensorDict, rounds: int) -> tuple[float, int]:
    """Return the seconds of an update, the least of ``rounds`` after one to warm up, and the bytes of peak memory."""
    cuda = get_device_name() == "cuda"
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    times = []
    for _ in range(rounds + 1):
        start = time.perf_counter()
        with engine.train_mode():
            engine.train_batch(batch.clone(), loss_function=loss)
        if cuda:
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    peak = torch.cuda.max_memory_allocated() if cuda else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
    return min(times[1:]), peak


def generate(folder: Path, config: DictConfig, lengths: list[tuple[int, int]]) -> float:
    """Return the seconds in which vLLM answers prompts of ``lengths``, to the last token of each."""
    from vllm import LLM, SamplingParams

    rollout = config.actor_rollout_ref.rollout
    llm = LLM(
        str(folder),
        max_model_len=max(map(sum, lengths)),
        gpu_memory_utilization=rollout.gpu_memory_utilization,
        enforce_eager=rollout.enforce_eager,
        dtype=rollout.dtype,
    )
    draw = np.random.default_rng(1)
    vocabulary = llm.llm_engine.model_config.get_vocab_size()
    prompts: Any = [{"prompt_token_ids": draw.integers(2, vocabulary, prompt).tolist()} for prompt, _ in lengths]
    parameters = [SamplingParams(max_tokens=answer, ignore_eos=True, detokenize=False) for _, answer in lengths]
    llm.generate(prompts[:1], parameters[:1], use_tqdm=False)
    start = time.perf_counter()
    llm.generate(prompts, parameters, use_tqdm=False)
    return time.perf_counter() - start


def planned(config: DictConfig) -> int:
    """Return the bytes that ``iranker plan`` counts for an update by the actor alone, its micro-batches as full as the recipe allows.

    Without what CUDA takes beside torch's allocator, which the measured peak does not have either.
    """
    actor = [role for role in roles_of(config) if role.name == "actor"]
    found = phases(actor, engine_of(config), machine_of(config))
    return max(one.total - one.parts.get("CUDA", 0) for one in found if one.name in ("actor update", "actor optimiser"))


def print_updates(folder: Path, config: DictConfig, lengths: list[tuple[int, int]], rounds: int) -> None:
    tokens = [sum(row) for row in lengths]
    with one_rank():
        for name, engine_class, packed in UPDATES:
            engine, loss = make_engine(config, engine_class)
            hf_config = engine.model_config.hf_config
            batch = make_batch(lengths, hf_config.vocab_size, config, packed)
            seconds, peak = update(engine, loss, batch, rounds)
            done, possible = FlopsCounter(hf_config).estimate_flops(tokens, seconds)
            print(
                f"update, {name}: {sum(tokens) / seconds:,.0f} tokens/s, MFU {done / possible:.1%}, peak memory {peak / 1e9:.2f} GB"
            )
            del engine, batch
            if get_device_name() == "cuda":
                torch.cuda.empty_cache()


def main(arguments: list[str] | None = None) -> None:
    """Print the updates' and the generation's rates."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="recipes/iranker_3b_episodes")
    parser.add_argument("--shape", choices=SHAPES, default="3b")
    parser.add_argument("--rows", type=int, default=128, help="rows of an update")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--no-generation", action="store_true")
    parser.add_argument("--generate-from", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("overrides", nargs="*", help="options of the recipe")
    given = parser.parse_args(arguments)
    lengths = sample_rows(Path(given.recipe).stem, given.rows, seed=1)
    one = ["trainer.n_gpus_per_node=1", "trainer.nnodes=1", *given.overrides]
    if given.generate_from:
        print(json.dumps(generate(given.generate_from, compose_recipe(given.recipe, one), lengths)))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        save_model(folder, given.shape)
        model = [f"actor_rollout_ref.model.path={folder}", "iranker.base.make=null"]
        config = compose_recipe(given.recipe, [*one, *model])
        print(f"{given.rows} rows, {sum(map(sum, lengths)) / given.rows:.0f} tokens each, shape {given.shape}")
        print(f"planned peak memory of an update: {planned(config) / 1e9:.2f} GB")
        print_updates(folder, config, lengths, given.rounds)
        if not given.no_generation:  # in a process of its own, which gives its memory back
            command = [sys.executable, "-m", "benchmarks.update_gpu", *(arguments or sys.argv[1:])]
            done = subprocess.run([*command, "--generate-from", name], check=True, stdout=subprocess.PIPE, text=True)
            seconds, answers = json.loads(done.stdout.splitlines()[-1]), sum(answer for _, answer in lengths)
            print(
                f"generation, vLLM: {answers / seconds:,.0f} new tokens/s, {sum(map(sum, lengths)) / seconds:,.0f} in all"
            )


if __name__ == "__main__":
    main()
