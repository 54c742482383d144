"""Evaluation's speed: 1,000 tasks of 20 candidates on one vLLM, in four ways, in one run (``make bench``).

``ours``        :func:`iranker_verl.inference.episode.run_episodes`: a task continues as soon as its own answer is back
``lock-step``   the published test loop: the tasks in batches as large as vLLM's own; in a batch every round of eliminations waits
                for its slowest answer
``wide lock-step``  the same with all tasks in one batch: vLLM refills its batch within a round, and only the end of a round waits.
                Stronger than what was published
``all at once`` the prompts that ours asked, known beforehand and handed to vLLM together: what cannot be beaten

**Workloads.** How long an answer is decides what lock step costs, so its length is set: vLLM generates exactly that many tokens
(``ignore_eos``), drawn for each prompt from its hash, so that all ways do the same work. ``thinking``: log-normal lengths, as
thoughts have them: most are short, a few run on until the cap. ``no thinking``: a bare label, the same four tokens for
all; lock step has nothing to wait for there but the uneven end of a batch. The tiny model is random (its text does not matter, its
size is that of ``make train-tiny``), so every answer is malformed and the last one shown leaves.

The prefix cache is emptied before each way. Ours and all at once are measured in turns, ``--rounds`` times; the lock-step loops
once. Seconds are those of the loop, vLLM loaded.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import math
import random
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

from iranker_verl.inference.engine import Engine, Generation, Messages
from iranker_verl.inference.episode import AHEAD, EpisodeOptions, run_episodes
from iranker_verl.ranking import Candidate, RankingTask
from iranker_verl.ranking.templates import Template, load

Lengths = Callable[[Sequence[int]], int]


def make_tasks(count: int, candidates: int, seed: int) -> list[RankingTask]:
    """Recommendation tasks of titles of two or three words and a history of five."""
    dice = random.Random(seed)
    words = [
        f"{a}{b}" for a in ("sol", "mar", "vin", "ter", "lun", "cor") for b in ("a", "en", "ix", "ora", "um", "is")
    ]

    def title() -> str:
        return " ".join(dice.sample(words, dice.choice((2, 3))))

    made = []
    for number in range(count):
        pool = tuple(Candidate(str(i), title()) for i in range(candidates))
        history = "; ".join(title() for _ in range(5))
        made.append(
            RankingTask.with_positive(
                f"t{number}", "recommendation", "rec-movie", history, pool, str(dice.randrange(candidates))
            )
        )
    return made


def make_model(folder: Path, texts: Sequence[str]) -> Path:
    """A random model of the tiny base's size, with a tokenizer that knows the texts' words."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    from iranker_verl.toy.tokenizer import train_tokenizer

    tokenizer = train_tokenizer(texts, 2048)
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=len(tokenizer),
            hidden_size=128,
            intermediate_size=256,
            num_hidden_layers=4,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=4096,
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    ).save_pretrained(folder)
    return folder


def log_normal(median: float, sigma: float, cap: int) -> Lengths:
    """Answer lengths, each drawn from the hash of its prompt."""
    quantile = statistics.NormalDist(math.log(median), sigma).inv_cdf

    def length(prompt: Sequence[int]) -> int:
        digest = hashlib.blake2b(json.dumps(list(prompt)).encode(), digest_size=8).digest()
        share = (int.from_bytes(digest) + 0.5) / 2**64
        return min(cap, max(1, round(math.exp(quantile(share)))))

    return length


class Measured:
    """An engine whose answers have the workload's lengths, and which remembers what it was asked."""

    def __init__(self, engine: Engine, lengths: Lengths) -> None:
        self.engine, self.lengths = engine, lengths
        self.asked: list[tuple[list[int], int]] = []

    async def ask(
        self, messages: Messages, max_new_tokens: int, temperature: float = 0.0, *, seed: int | None = None
    ) -> Generation:
        prompt = self.engine.encode(messages)
        length = self.lengths(prompt)
        self.asked.append((prompt, length))
        return await self.engine.generate(prompt, length, ignore_eos=True)


async def in_lock_step(tasks: Sequence[RankingTask], template: Template, engine: Measured, batch: int) -> None:
    """Batch by batch; within a batch, round by round."""
    for start in range(0, len(tasks), batch):
        states = [template.start(task) for task in tasks[start : start + batch]]
        while alive := [state for state in states if not state.done]:
            answers = await asyncio.gather(*(engine.ask(template.messages(state), 0) for state in alive))
            for state, answer in zip(alive, answers, strict=True):
                state.step(answer.text)


async def at_once(engine: Measured, prompts: Sequence[tuple[list[int], int]]) -> None:
    await asyncio.gather(*(engine.engine.generate(prompt, length, ignore_eos=True) for prompt, length in prompts))


def counted(engine: Measured) -> Counter[tuple[tuple[int, ...], int]]:
    """What was asked, prompts and lengths, in any order."""
    return Counter((tuple(prompt), length) for prompt, length in engine.asked)


async def timed(engine: Engine, work: Callable[[], Awaitable[Any]]) -> float:
    await engine._llm.reset_prefix_cache()  # nothing that a way before it has computed
    start = time.perf_counter()
    await work()
    return time.perf_counter() - start


async def compare(
    name: str,
    engine: Engine,
    lengths: Lengths,
    tasks: Sequence[RankingTask],
    template: Template,
    batch: int,
    rounds: int,
    lock_step_tasks: int,
    wide: bool,
) -> None:
    """Measure the ways on one workload and print them."""
    ours, all_at_once, asked = [], [], Measured(engine, lengths)
    for _ in range(rounds):
        asked = Measured(engine, lengths)
        run = asked
        ours.append(
            await timed(
                engine, lambda run=run: run_episodes(tasks, template, run, EpisodeOptions(1), concurrency=AHEAD * batch)
            )
        )
        all_at_once.append(await timed(engine, lambda run=run: at_once(run, run.asked)))
    sizes = [length for _, length in asked.asked]
    some, share = tasks[:lock_step_tasks], min(lock_step_tasks, len(tasks)) / len(tasks)
    slow, whole = Measured(engine, lengths), Measured(engine, lengths)
    lock_step = await timed(engine, lambda: in_lock_step(some, template, slow, batch)) / share
    wide_step = await timed(engine, lambda: in_lock_step(tasks, template, whole, len(tasks))) if wide else None
    done, part = counted(asked), counted(slow)
    if not part <= done or (share == 1 and part != done) or (wide and counted(whole) != done):
        raise RuntimeError("the ways did not do the same work")
    best, bound = statistics.median(ours), statistics.median(all_at_once)
    tokens = sum(len(prompt) for prompt, _ in asked.asked) / len(sizes)
    print(
        f"{name}: {len(tasks):,} tasks, {len(sizes):,} calls; prompts of {tokens:.0f} tokens, answers of "
        f"{statistics.fmean(sizes):.1f} (median {statistics.median(sizes):.0f}, largest {max(sizes)}); batch {batch}"
    )
    measured = "" if share == 1 else f"  (measured on {len(some)} tasks)"
    for way, seconds, note in (
        ("ours", best, f"  of {', '.join(f'{s:.1f}' for s in ours)}"),
        ("lock-step", lock_step, f"  ours is {lock_step / best:.2f} times as fast{measured}"),
        *([("wide lock-step", wide_step, f"  ours is {wide_step / best:.2f} times as fast")] if wide_step else []),
        ("all at once", bound, f"  ours has {bound / best:.3f} of its throughput; of "
         f"{', '.join(f'{s:.1f}' for s in all_at_once)}"),
    ):  # fmt: skip
        rates = f"{len(sizes) / seconds:7.0f} calls/s {sum(sizes) / seconds:8.0f} new tokens/s"
        print(f"  {way:15} {seconds:8.1f} s {rates}{note}", flush=True)


async def measure(arguments: argparse.Namespace, folder: Path) -> None:
    tasks = make_tasks(arguments.tasks, arguments.candidates, arguments.seed)
    template = load("label")
    texts = [template.messages(template.start(task))[-1]["content"] for task in tasks[:200]]
    model = arguments.model or make_model(folder, texts)
    cap = max(arguments.cap, 4)
    async with Engine(model, max_model_len=1024 + cap, max_num_seqs=arguments.batch) as engine:
        warm = Measured(engine, lambda prompt: 8)
        await run_episodes(tasks[: arguments.batch], template, warm, EpisodeOptions(1))
        if "thinking" in arguments.workloads:
            lengths = log_normal(arguments.median, arguments.sigma, arguments.cap)
            await compare("thinking", engine, lengths, tasks, template, arguments.batch, arguments.rounds,
                          arguments.lock_step_tasks, arguments.wide)  # fmt: skip
        if "bare" in arguments.workloads:
            await compare("no thinking", engine, lambda prompt: 4, tasks, template, arguments.batch, arguments.rounds,
                          arguments.lock_step_tasks, arguments.wide)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=1000)
    parser.add_argument("--candidates", type=int, default=20)
    parser.add_argument("--batch", type=int, default=64, help="vLLM's max_num_seqs, and the lock-step loop's tasks")
    parser.add_argument("--median", type=float, default=32, help="of the thoughts, in tokens")
    parser.add_argument("--sigma", type=float, default=1.0, help="of the logarithm of their lengths")
    parser.add_argument("--cap", type=int, default=1024, help="the longest (the paper's limit of an answer)")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument(
        "--lock-step-tasks", type=int, default=10**9, help="measure lock step on the first so many only"
    )
    parser.add_argument(
        "--wide", action=argparse.BooleanOptionalAction, default=True, help="the wide lock-step loop too"
    )
    parser.add_argument("--workloads", nargs="+", choices=("thinking", "bare"), default=["thinking", "bare"])
    parser.add_argument("--model", type=Path, help="a model folder [default: a random one]")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(measure(arguments, Path(folder)))


if __name__ == "__main__":
    main()
