"""What baselines with weights share: where a model is, how it is loaded, and a seed that stays where it is set.

A model is a folder, or a name on the Hugging Face Hub, which is fetched once into its cache. No code that comes with a
model is run. Weights are read as safetensors where the model has them, else by ``torch.load(weights_only=True)``, which
is transformers' default. Whatever keeps a model from being loaded is :class:`Unavailable`, with its reason; nothing is
tried again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from iranker_verl.errors import UserError, first_line
from iranker_verl.evaluation.baselines.base import Context, Unavailable
from iranker_verl.inference.models import hub_folder

LIMIT = 512  # tokens that a pair of query and passage may take, where the model admits as many


def find(context: Context, baseline: str, default: str | None = None) -> Path:
    """The folder of ``baseline``'s model: what ``context.models`` names, else ``default``. Unavailable if there is none."""
    named = context.models.get(baseline, default)
    if not named:
        raise Unavailable(f"{baseline}: no model is named for it; {_way_out(baseline)}")
    return resolve(named, baseline, context.say)


def resolve(named: str, baseline: str, say: Callable[[str], None]) -> Path:
    """The folder ``named``, or the cached one of that name on the Hub. HF_HUB_OFFLINE=1 keeps to the cache."""
    folder = Path(named).expanduser()
    if folder.is_dir():
        return folder
    if folder.is_absolute() or named.startswith((".", "~")) or named.count("/") > 1:
        raise Unavailable(f"{baseline}: {named} is no folder; {_way_out(baseline)}")
    with trying(baseline, named, "is no folder here and cannot be had from the Hugging Face Hub"):
        say(f"{baseline}: looking for {named} in the Hugging Face cache and on the Hub")
        return hub_folder(named, pickles=True)


@contextmanager
def trying(baseline: str, source: object, failed: str = "cannot be loaded") -> Iterator[None]:
    """Whatever goes wrong within is Unavailable, in one line: broken files lead to errors of every kind."""
    try:
        yield
    except (Unavailable, UserError):
        raise
    except ImportError as error:
        raise Unavailable(
            f"{baseline}: needs a library that is not installed ({type(error).__name__}: {first_line(error)})"
        ) from error
    except Exception as error:
        raise Unavailable(
            f"{baseline}: {source} {failed} ({type(error).__name__}: {first_line(error)}); {_way_out(baseline)}"
        ) from error


def load(kind: Any, folder: Path, fresh: Iterable[str] = (), **options: Any) -> Any:
    """``kind.from_pretrained(folder)``, with every weight from the folder. Raises ValueError where some are missing.

    Weights whose names hold one of ``fresh`` may be missing: they begin at random, from torch's present seed.
    A missing pooler is no matter: no baseline that leaves it untrained uses it.
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


def tokenizer_of(folder: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)


def longest(model: Any, tokenizer: Any, at_most: int = LIMIT) -> int:
    """Tokens that the model reads at once: the least of what it, its tokenizer and ``at_most`` admit."""
    admitted = getattr(model.config, "max_position_embeddings", None) or at_most
    return min(at_most, int(admitted), int(tokenizer.model_max_length))


def sentence_encoder(
    context: Context, baseline: str, default: str | None = None, similarity: Literal["cosine", "dot"] | None = None
) -> Any:
    """A SentenceTransformer in evaluation mode. A plain encoder gets mean pooling; ``similarity`` overrides its card."""
    folder = find(context, baseline, default)
    with trying(baseline, folder):
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
                load(type(inner), folder)  # once more: sentence-transformers does not say which weights were missing
            positions = getattr(inner.config, "max_position_embeddings", None)
            if positions and model.max_seq_length and model.max_seq_length > positions:
                model.max_seq_length = positions
        return model.eval()


@contextmanager
def seeded(seed: int, device: str) -> Iterator[None]:
    """torch's random numbers from ``seed`` within, and as they were before afterwards."""
    import torch

    with torch.random.fork_rng(devices=[torch.device(device)] if device.startswith("cuda") else []):
        torch.manual_seed(seed)
        yield


def release(device: str) -> None:
    """Give back to the GPU what torch keeps of baselines that are gone: an engine that starts next looks at what is free."""
    if device.startswith("cuda"):
        import gc

        import torch

        gc.collect()  # models are full of cycles
        torch.cuda.empty_cache()


class Progress:
    """Says how far long work is, at most every ``every_s`` seconds."""

    def __init__(self, say: Callable[[str], None], what: str, total: int, every_s: float = 5.0) -> None:
        self._say, self._what, self._total, self._every_s = say, what, total, every_s
        self._started = self._last = time.monotonic()

    def __call__(self, done: int) -> None:
        now = time.monotonic()
        if now - self._last >= self._every_s:
            self._last = now
            self._say(f"{self._what}: {done}/{self._total}, {now - self._started:.0f} s")


def _way_out(baseline: str) -> str:
    return f"name a model folder with --models {baseline}=FOLDER"
