"""Where a model's files are (a Hugging Face folder or name, or a checkpoint that verl wrote), and what it was trained with."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from iranker_verl.errors import NOT_JSON, UserError, first_line
from iranker_verl.files import locked, replacing_folder
from iranker_verl.provenance import file_digest

HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")
HUB_FILES = ("*.json", "*.safetensors", "*.model", "*.txt", "*.jinja", "*.tiktoken")  # no pickled weights
HUB_PICKLES = ("pytorch_model*.bin", "adapter_model.bin")
HUB_TIMEOUT_S = 5.0  # to reach the hub
SAMPLE = 1 << 20
STAMP = "iranker.json"  # in a trained model's folder
INSIDE_A_RUN = ("model", "huggingface", "actor", "checkpoints")


def model_folder(model: str) -> Path:
    """Return the Hugging Face folder that ``model`` means. Raise UserError where there is none, with what to do.

    ``model`` is such a folder; a folder of verl's checkpoints, or one of them (``global_step_N``, or its ``actor``), whose
    Hugging Face files are taken; or a name on the Hugging Face hub, from the local cache or, where it can be reached, the hub.
    """
    path = Path(model)
    if path.is_dir():
        return path if (path / "config.json").is_file() else _of_checkpoint(path)
    if not HUB_NAME.fullmatch(model) or model.startswith("."):
        raise UserError(f"{model}: no such model folder")
    try:
        return hub_folder(model)
    except Exception as error:  # whatever the hub's client raises
        raise UserError(
            f"{model}: neither a folder here, nor in the Hugging Face cache, nor available from the hub "
            f"({first_line(error)}); give the folder of a model that is on this machine"
        ) from error


def trainable_folder(model: str, cache: Path) -> Path:
    """Return the Hugging Face folder that training starts from: :func:`model_folder`'s, or a GGUF file's weights as one.

    The latter is made once, in ``cache``, in float32. Raise UserError where there is none, or it cannot be read.
    """
    file = Path(model)
    if file.suffix.lower() != ".gguf":
        return model_folder(model)
    if not file.is_file():
        raise UserError(f"{model}: no such GGUF file")
    if find_spec("gguf") is None:
        raise UserError(
            f"{model}: the package that reads GGUF files is not installed; pip install 'iranker-verl[gguf]'"
        )
    folder = cache / f"{file.stem}-{str(file_digest(file)['sha256'])[:16]}"
    with locked(folder, wait=True):
        if not folder.is_dir():
            _unpack(file, folder)
    return folder


def _unpack(file: Path, folder: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    source: dict[str, Any] = {"gguf_file": file.name, "local_files_only": True}
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(file.parent), **source)
        model = AutoModelForCausalLM.from_pretrained(str(file.parent), **source, dtype=torch.float32)
    except (
        Exception
    ) as error:  # whatever gguf or transformers raise of a file that is none, or of an unknown architecture
        raise UserError(f"{file}: not a GGUF file that transformers reads ({first_line(error)})") from error
    with replacing_folder(folder) as part:
        model.save_pretrained(part)
        tokenizer.save_pretrained(part)


def _of_checkpoint(path: Path) -> Path:
    last = path / "latest_checkpointed_iteration.txt"  # verl writes it when a checkpoint is whole
    if last.is_file():
        path = path / f"global_step_{last.read_text(encoding='utf-8').strip()}"
    actor = path / "actor" if (path / "actor").is_dir() else path
    exported = actor / "huggingface"
    if any(exported.glob("*.safetensors")):
        return exported
    if any(actor.glob("model_world_size_*_rank_*.pt")):
        raise UserError(
            f"{actor}: only the shards of training, no Hugging Face weights; `iranker export RUN --step N --out FOLDER` makes a "
            "model of them; give that FOLDER"
        )
    raise UserError(f"{path}: no config.json; this is neither a Hugging Face model folder nor a checkpoint of verl")


def model_name(given: str, folder: Path) -> str:
    """Return what a model is called: its name on the hub, or the folder of its run or its own."""
    if not Path(given).is_dir():
        return given
    parts = folder.resolve().parts
    while parts and (parts[-1] in INSIDE_A_RUN or parts[-1].startswith("global_step_")):
        parts = parts[:-1]
    return parts[-1] if len(parts) > 1 else folder.resolve().name


def hub_folder(name: str, pickles: bool = False) -> Path:
    """Return the folder of a model of this name in the Hugging Face cache, or fetch it from the hub into the cache.

    With ``pickles``, a model without safetensors is fetched with its pickled weights. HF_HUB_OFFLINE=1 keeps to the cache.
    Raise whatever the hub's client does.
    """
    folder = _cached_or_fetched(name, HUB_FILES)
    if pickles and not any(folder.glob("*.safetensors")):
        _cached_or_fetched(name, HUB_PICKLES)
    return folder


def _cached_or_fetched(name: str, patterns: tuple[str, ...]) -> Path:
    from huggingface_hub import snapshot_download

    try:
        cached = Path(snapshot_download(name, local_files_only=True, allow_patterns=list(patterns)))
        if any(file for pattern in patterns for file in cached.glob(pattern)):
            return cached
    except Exception:  # not in the cache: the types of these errors differ by version
        pass
    return Path(snapshot_download(name, allow_patterns=list(patterns), etag_timeout=HUB_TIMEOUT_S))


@dataclass(frozen=True)
class Stamp:
    """What a trained model's folder records of its training: the template, and the longest answer (None: unknown).

    A ``constrained`` model has learned what comes after the common beginning of all labels, so it is asked for that.
    """

    template_id: str
    template_hash: str
    max_new_tokens: int | None = None
    constrained: bool = False


def trained_with(model: Path) -> Stamp | None:
    """Return the stamp of a model folder; None where it has none. Raise UserError for one that cannot be read."""
    stamp = model / STAMP
    if not stamp.is_file():
        return None
    try:
        content = json.loads(stamp.read_text(encoding="utf-8"))
        length = content.get("max_new_tokens")
        return Stamp(
            content["template_id"],
            content["template_hash"],
            None if length is None else int(length),
            bool(content.get("constrained")),
        )
    except (*NOT_JSON, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{stamp}: it has to hold template_id and template_hash ({type(error).__name__}: {error})"
        ) from error


def model_hash(folder: Path) -> str:
    """Return 16 hex digits that tell two models apart.

    Hashed are configuration and tokenizer whole, and of each file of weights its size and three samples (first, middle and
    last MiB), as any training changes weights everywhere.
    """
    digest = hashlib.sha256()
    for file in sorted(p for p in folder.iterdir() if p.is_file()):
        if file.suffix not in (".json", ".safetensors", ".bin", ".model", ".jinja"):
            continue
        size = file.stat().st_size
        digest.update(f"{file.name} {size}\n".encode())
        with file.open("rb") as content:
            if size <= 3 * SAMPLE:
                digest.update(content.read())
                continue
            for start in (0, (size - SAMPLE) // 2, size - SAMPLE):
                content.seek(start)
                digest.update(content.read(SAMPLE))
    return digest.hexdigest()[:16]
