"""Make the tiny base: a tokenizer and a small Qwen2, trained in stages, cached by everything that it depends on."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from random import Random
from typing import Any

import torch
from transformers import GenerationConfig, PreTrainedTokenizerBase, Qwen2Config, Qwen2ForCausalLM

from iranker_verl import provenance
from iranker_verl.errors import UserError
from iranker_verl.files import locked, read_json, replacing_folder, write_json
from iranker_verl.ranking import RankingTask, by_dataset
from iranker_verl.ranking.task import tasks_hash
from iranker_verl.ranking.templates import Template
from iranker_verl.toy import questions, skills
from iranker_verl.toy.batches import Sampler, accumulate_gradient
from iranker_verl.toy.circuits import CHANNELS, HEAD, READING_LAYERS
from iranker_verl.toy.muon import Muon
from iranker_verl.toy.questions import BEST, WORSE
from iranker_verl.toy.ranker import make_ranker
from iranker_verl.toy.tokenizer import title_pieces, train_tokenizer
from iranker_verl.toy.topics import DIMENSIONS, embeddings, initialise

REPORT = "base_report.json"
# Steps over which a stage's loss is averaged to decide whether it is completed.
RUNNING = 50
PROGRESS_SECONDS = 10.0
WATCH_SECONDS = 60.0  # between evaluations of best-of-N accuracy, which take about a second each


@dataclass(frozen=True)
class Stage:
    """One stage of training.

    ``steps`` optimizer steps on a ``mix`` of :mod:`.questions`' kinds, by weight, over pools of at most ``largest``; fewer
    once the running loss falls below ``until``. ``rate`` is a share of the learning rates.
    """

    name: str
    steps: int
    mix: tuple[tuple[str, float], ...]
    largest: int | None = None
    until: float | None = None
    rate: float = 1.0


# Pairs first: yes and no are balanced there, so matching is learned soonest; longer lists build on it.
STAGES = (
    Stage("language", 30, (("language", 1.0),)),
    # Matching appears suddenly, at a step that depends on the seed (300 to 600 in four of them).
    Stage("pairs", 1500, (("language", 0.1), ("best", 0.9)), largest=2, until=1.0),
    Stage("lists", 600, (("language", 0.05), ("best", 0.95))),
    # Until exclusions are nearly uniformly random. With half of these steps, a base still excluded the positive twice as
    # often as a random policy, and RL from it ended in one of three runs at a policy that always names the same index.
    Stage("format", 500, (("language", 0.05), ("best", 0.45), ("exclusion", 0.5))),
)


@dataclass(frozen=True)
class BaseConfig:
    """Sizes of the model and its training.

    The tokenizer has ``vocab`` pieces at most, and ``titles`` more at most, one for each frequent title of the training tasks.
    A step has ``rows`` samples, fewer where they exceed ``tokens``, which bounds its time; samples longer than
    ``max_length`` are left out and counted.
    """

    hidden: int = 128
    layers: int = 4
    heads: int = 4
    kv_heads: int = 2
    feed_forward: int = 256
    vocab: int = 2048
    titles: int = 0
    # The first stage trains a smaller language model, and :mod:`.circuits` makes a ranker of it.
    circuits: bool = False
    positions: int = 4096
    rope_theta: float = 10000.0
    stages: tuple[Stage, ...] = STAGES
    rows: int = 32
    tokens: int = 6000
    max_length: int = 1536
    # AdamW's rate, for embeddings, norms and biases; Muon's, for the matrices between them (None: AdamW's too).
    lr: float = 2e-3
    matrix_lr: float | None = 0.01
    warmup: int = 50
    # The share of all steps, at the end, in which the rate falls, linearly, to a twentieth.
    decay: float = 0.3
    # A dataset of n tasks is drawn in proportion to n to the power of this: 0 draws all datasets equally often.
    size_power: float = 0.0
    # Tasks of each dataset kept from training, for validation.
    validation: int = 40
    threads: int | None = None


Progress = Callable[[str], None]


def make_base(
    tasks: Sequence[RankingTask],
    template: Template,
    out: Path,
    seed: int = 1,
    config: BaseConfig | None = None,
    progress: Progress = print,
) -> dict[str, Any]:
    """Make the tiny base of these *training* tasks in a folder of ``out``; return its report.

    ``report["path"]`` is the folder, in Hugging Face's format, named by the hash of everything that the base depends on.
    It is written under another name and renamed; an existing one is reused (``report["cached"]``). Raise UserError without
    tasks.
    """
    config = config or BaseConfig()
    if not tasks:
        raise UserError("no training tasks to make a base model from; prepare data first")
    made_of = _made_of(tasks, template, seed, config)
    key = provenance.digest(made_of)
    folder = out / f"tiny-base-{key}"
    with nullcontext() if (folder / REPORT).is_file() else locked(folder, wait=True):
        if (folder / REPORT).is_file():  # of before, or of another job that this one waited for
            report = read_json(folder / REPORT)
            progress(f"base: {folder.name} is there already")
            return {**report, "path": str(folder), "cached": True}
        threads = torch.get_num_threads()
        try:
            if config.threads:
                torch.set_num_threads(config.threads)
            with replacing_folder(folder) as part:
                report = {"hash": key, "made_of": made_of, **_make(tasks, template, part, seed, config, progress)}
                write_json(part / REPORT, report)
        finally:
            torch.set_num_threads(threads)
        return {**report, "path": str(folder), "cached": False}


def _made_of(tasks: Sequence[RankingTask], template: Template, seed: int, config: BaseConfig) -> dict[str, Any]:
    return {
        "tasks_hash": tasks_hash(tasks),
        "template_id": template.id,
        "template_hash": template.hash,
        "questions": [BEST.hash, WORSE.hash],
        "seed": seed,
        "config": asdict(config),
        "torch": version("torch"),
        "transformers": version("transformers"),
        "tokenizers": version("tokenizers"),
    }


def _make(
    tasks: Sequence[RankingTask], template: Template, out: Path, seed: int, config: BaseConfig, progress: Progress
) -> dict[str, Any]:
    started = time.monotonic()
    training, validation = hold_out(tasks, config.validation, seed)
    titles = title_pieces(training, config.titles) if config.titles else []
    tokenizer = train_tokenizer(corpus(training, template), config.vocab, titles)
    progress(f"base: {len(training)} training tasks, {len(tokenizer)} tokens")
    sampler = Sampler(training, template, tokenizer, config.max_length, f"{seed}:samples", config.size_power)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = new_model(tokenizer, narrowed(config) if config.circuits else config)
        vectors = embeddings(tokenizer, plain_texts(training), DIMENSIONS, titles)
        initialise(model, vectors, mean=config.circuits)
        stages = []
        if config.circuits:
            stages = _train(model, sampler, validation, config, config.stages[:1], progress)
            model = make_ranker(model, new_model(tokenizer, config), tokenizer, training, titles)
        stages += _train(model, sampler, validation, config, config.stages[len(stages) :], progress)
    parameters = sum(p.numel() for p in model.parameters())
    model.eval()
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)
    return {
        "parameters": parameters,
        "vocabulary": len(tokenizer),
        "titles": len(titles),
        "circuits": config.circuits,
        "training_tasks": len(training),
        "validation_tasks": len(validation),
        "stages": stages,
        "samples": sampler.drawn - sampler.overlong,
        "overlong": sampler.overlong,
        "likelihood": skills.likelihood(model, tokenizer, validation),
        "best_of_n": skills.best_of_n(model, tokenizer, validation),
        "exclusion": skills.exclusion_format(model, tokenizer, validation, template),
        "seconds": round(time.monotonic() - started, 1),
    }


def hold_out(tasks: Sequence[RankingTask], count: int, seed: int) -> tuple[list[RankingTask], list[RankingTask]]:
    """Return ``(training, validation)``; for validation ``count`` tasks of each dataset, at most a fifth of it.

    Where a user gave several tasks, validation has the first of each of ``count`` users, and training has none of these users'.
    """
    training, validation = [], []
    for dataset, own in by_dataset(tasks).items():
        groups: dict[str, list[RankingTask]] = {}
        for task in own:
            groups.setdefault(task.group or task.id, []).append(task)
        order = list(groups)
        Random(f"{seed}:{dataset}:validation").shuffle(order)
        held = min(count, len(order) // 5)
        validation += [groups[name][0] for name in order[:held]]
        training += [task for name in order[held:] for task in groups[name]]
    return training, validation


def corpus(tasks: Sequence[RankingTask], template: Template) -> list[str]:
    """Return the tokenizer's training text: the prompts of a bounded number of training tasks."""
    step = max(1, len(tasks) // 4000)
    texts = []
    for task in tasks[::step]:
        for form in (template, BEST):
            texts += [m["content"] for m in form.messages(form.start(task))]
    return [*texts, *["user\n", "assistant\n", "system\n", "yes\n", "no\n"] * len(texts)]


def plain_texts(tasks: Sequence[RankingTask]) -> list[str]:
    """Return the texts of the language stage, of a bounded number of tasks."""
    return [questions.language(task).answer for task in tasks[:: max(1, len(tasks) // 8000)]]


def architecture(config: BaseConfig, vocabulary: int) -> dict[str, Any]:
    """Return what sets the number of a tiny base's parameters, in the words of ``Qwen2Config``."""
    return {
        "vocab_size": vocabulary,
        "hidden_size": config.hidden,
        "intermediate_size": config.feed_forward,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "num_key_value_heads": config.kv_heads,
        "tie_word_embeddings": True,
    }


def narrowed(config: BaseConfig) -> BaseConfig:
    """Return the sizes of the language model that becomes the ranker of ``config``."""
    heads = config.heads - CHANNELS // HEAD
    return replace(
        config,
        hidden=config.hidden - CHANNELS,
        heads=heads,
        kv_heads=heads,
        layers=config.layers - READING_LAYERS,
        feed_forward=config.feed_forward - HEAD,
    )


def new_model(tokenizer: PreTrainedTokenizerBase, config: BaseConfig) -> Qwen2ForCausalLM:
    """Return a model with random weights from torch's present seed.

    Their standard deviation is larger than Qwen2's 0.02, which suits thousands of dimensions.
    """
    model = Qwen2ForCausalLM(
        Qwen2Config(
            **architecture(config, len(tokenizer)),
            max_position_embeddings=config.positions,
            rope_parameters={"rope_type": "default", "rope_theta": config.rope_theta},
            initializer_range=0.04,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    model.generation_config = GenerationConfig(
        do_sample=True, temperature=1.0, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id
    )
    return model


def _train(
    model: Qwen2ForCausalLM,
    sampler: Sampler,
    validation: Sequence[RankingTask],
    config: BaseConfig,
    stages: Sequence[Stage],
    progress: Progress,
) -> list[dict[str, Any]]:
    total = sum(stage.steps for stage in stages)
    optimizers = make_optimizers(model, config)
    watched = sample_of_each(validation)
    done, accuracy, reports = 0, float("nan"), []
    logged, measured = time.monotonic(), float("-inf")
    for stage in stages:
        started, drawn, losses = time.monotonic(), sampler.drawn, deque([float("inf")] * RUNNING, maxlen=RUNNING)
        before = done
        for step in range(stage.steps):
            if stage.until is not None and sum(losses) / RUNNING < stage.until:
                total -= stage.steps - step
                break
            fall = (total - done) / max(1.0, config.decay * total)
            for optimizer, rate in optimizers:
                for group in optimizer.param_groups:
                    group["lr"] = rate * stage.rate * min(1.0, (done + 1) / config.warmup, max(0.05, fall))
            losses.append(
                accumulate_gradient(
                    model, sampler.step(dict(stage.mix), config.rows, config.tokens, stage.largest), sampler.pad
                )
            )
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            for optimizer, _ in optimizers:
                optimizer.step()
                optimizer.zero_grad()
            done += 1
            if time.monotonic() - logged >= PROGRESS_SECONDS:
                logged = time.monotonic()
                if logged - measured >= WATCH_SECONDS:
                    accuracy, measured = skills.macro(skills.best_of_n(model, sampler.tokenizer, watched)), logged
                most = f"at most {total}" if stage.until is not None else f"{total}"
                progress(f"base: {stage.name} step {done} of {most}, loss {losses[-1]:.3f}, best of N {accuracy:.3f}")
        seconds = round(time.monotonic() - started, 1)
        reports.append(
            {
                **asdict(stage),
                "steps": done - before,
                "samples": sampler.drawn - drawn,
                "loss": losses[-1],
                "seconds": seconds,
            }
        )
    return reports


def make_optimizers(model: Qwen2ForCausalLM, config: BaseConfig) -> list[tuple[torch.optim.Optimizer, float]]:
    """Return Muon for the matrices and AdamW for the rest, each with its rate.

    With AdamW alone, matching took three times the steps or, with some seeds, was not learned at all.
    """
    embeddings = {id(p) for p in model.model.embed_tokens.parameters()}
    matrices = [p for p in model.parameters() if config.matrix_lr and p.ndim == 2 and id(p) not in embeddings]
    chosen = {id(p) for p in matrices}
    rest = [p for p in model.parameters() if id(p) not in chosen]
    adam = torch.optim.AdamW(rest, lr=config.lr, betas=(0.9, 0.98), weight_decay=0.01, fused=True)
    if config.matrix_lr is None:
        return [(adam, config.lr)]
    return [(adam, config.lr), (Muon(matrices, lr=config.matrix_lr), config.matrix_lr)]


def sample_of_each(tasks: Sequence[RankingTask]) -> list[RankingTask]:
    """Return the first validation tasks of each dataset, for progress lines."""
    return [task for own in by_dataset(tasks).values() for task in own[:12]]
