"""Loading of the baselines' weights, with a seed that is restored, and progress lines.

A model is a folder, or a name on the Hugging Face Hub, which is fetched once into its cache. No code that comes with a
model is run. Weights are read as safetensors where the model has them, else by ``torch.load(weights_only=True)``,
transformers' default. Any failure to load a model is :class:`Unavailable`, with its reason; there is no second try.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from iranker_verl.errors import UserError, first_line
from iranker_verl.evaluation.baselines.base import Context, Unavailable
from iranker_verl.inference.models import hub_folder
from iranker_verl.ranking.text import shorten

LIMIT = 512  # most tokens of a pair of query and passage


def find_model(context: Context, baseline: str, default: str | None = None) -> Path:
    """Return the folder of the model that ``context.models`` names for ``baseline``, else of ``default``.

    Raise Unavailable where there is none.
    """
    named = context.models.get(baseline, default)
    if not named:
        raise Unavailable(f"{baseline}: no model is named for it; {_way_out(baseline)}")
    return resolve_model(named, baseline, context.log)


def resolve_model(named: str, baseline: str, log: Callable[[str], None]) -> Path:
    """Return the folder ``named``, or that of the model of this name in the Hub's cache or on the Hub."""
    folder = Path(named).expanduser()
    if folder.is_dir():
        return folder
    if folder.is_absolute() or named.startswith((".", "~")) or named.count("/") > 1:
        raise Unavailable(f"{baseline}: {named} is no folder; {_way_out(baseline)}")
    with unavailable_on_error(baseline, named, "is no folder here and cannot be fetched from the Hugging Face Hub"):
        log(f"{baseline}: looking for {named} in the Hugging Face cache and on the Hub")
        return hub_folder(named, pickles=True)


@contextmanager
def unavailable_on_error(baseline: str, source: object, failed: str = "cannot be loaded") -> Iterator[None]:
    """Raise Unavailable, with a reason in one line, for any error: broken files lead to errors of every type."""
    try:
        yield
    except (Unavailable, UserError):
        raise
    except Exception as error:
        reason = f"{type(error).__name__}: {shorten(first_line(error, most=1000), 200)}"
        if isinstance(error, ImportError):
            raise Unavailable(f"{baseline}: needs a library that is not installed ({reason})") from error
        raise Unavailable(f"{baseline}: {source} {failed} ({reason}); {_way_out(baseline)}") from error


def load_weights(kind: Any, folder: Path, fresh: Iterable[str] = (), **options: Any) -> Any:
    """Return ``kind.from_pretrained(folder)``. Raise ValueError where the folder lacks some of its weights.

    Weights whose names contain one of ``fresh`` may be missing: they are initialised from torch's present seed. So may a
    pooler, which no baseline uses without training it.
    """
    from transformers.utils import logging

    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()  # its report of missing weights is read below
    try:
        model, info = kind.from_pretrained(
            str(folder), local_files_only=True, trust_remote_code=False, output_loading_info=True, **options
        )
    finally:
        logging.set_verbosity(verbosity)
    allowed = ("pooler", *fresh)
    if missing := sorted(key for key in info["missing_keys"] if not any(part in key for part in allowed)):
        raise ValueError(f"{len(missing)} weights are missing, {missing[0]} among them")
    return model


def load_tokenizer(folder: Path) -> Any:
    """Return the tokenizer of a model folder."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)


def max_tokens(model: Any, tokenizer: Any, at_most: int = LIMIT) -> int:
    """Return the most tokens of an input: the least of the model's limit, its tokenizer's and ``at_most``."""
    positions = getattr(model.config, "max_position_embeddings", None) or at_most
    return min(at_most, int(positions), int(tokenizer.model_max_length))


def load_sentence_encoder(
    context: Context, baseline: str, default: str | None = None, similarity: Literal["cosine", "dot"] | None = None
) -> Any:
    """Return a SentenceTransformer in evaluation mode; ``similarity`` overrides its card.

    A plain encoder gets mean pooling.
    """
    folder = find_model(context, baseline, default)
    with unavailable_on_error(baseline, folder):
        import torch
        from sentence_transformers import SentenceTransformer

        model = SentenceTransformer(
            str(folder),
            device=context.device,
            local_files_only=True,
            trust_remote_code=False,
            similarity_fn_name=similarity,
            model_kwargs={"dtype": torch.float32},
        )
        if (inner := model.transformers_model) is not None:
            if (folder / "config.json").is_file():
                load_weights(type(inner), folder)  # once more: sentence-transformers does not report missing weights
            positions = getattr(inner.config, "max_position_embeddings", None)
            if positions and model.max_seq_length and model.max_seq_length > positions:
                model.max_seq_length = positions
        return model.eval()


def encode_in_batches(context: Context, what: str, texts: Sequence[str], encode: Callable[..., Any]) -> Iterator[Any]:
    """Yield the vectors that a sentence encoder's ``encode`` returns for each batch of ``texts``."""
    size = 16 if context.device == "cpu" else 128
    progress = Progress(context.log, what, len(texts))
    for start in range(0, len(texts), size):
        batch = list(texts[start : start + size])
        yield encode(batch, batch_size=size, show_progress_bar=False)
        progress(start + len(batch))


@contextmanager
def seeded(seed: int, device: str) -> Iterator[None]:
    """Seed torch's random numbers within, and restore their state afterwards."""
    import torch

    with torch.random.fork_rng(devices=[torch.device(device)] if device.startswith("cuda") else []):
        torch.manual_seed(seed)
        yield


def release_gpu_memory(device: str) -> None:
    """Free the GPU memory that torch caches for deleted baselines: an engine that starts next checks what is free."""
    if device.startswith("cuda"):
        import gc

        import torch

        gc.collect()  # models contain cycles
        torch.cuda.empty_cache()


class Progress:
    """``progress(done)`` logs how far long work is, at most every ``every_s`` seconds."""

    def __init__(self, log: Callable[[str], None], what: str, total: int, every_s: float = 5.0) -> None:
        self._log, self._what, self._total, self._every_s = log, what, total, every_s
        self._started = self._last = time.monotonic()

    def __call__(self, done: int) -> None:
        """Log that ``done`` are done, if the last line is old enough."""
        now = time.monotonic()
        if now - self._last >= self._every_s:
            self._last = now
            self._log(f"{self._what}: {done}/{self._total}, {now - self._started:.0f} s")


def _way_out(baseline: str) -> str:
    return f"name a model folder with --models {baseline}=FOLDER"
