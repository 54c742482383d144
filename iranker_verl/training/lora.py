"""Merge an adapter (LoRA) into the weights that it adapts.

verl 0.9.1 saves the adapted model's own tensors under peft's names as ``hf_model``, which no Hugging Face loader understands.
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file

_BASE = "base_model.model."


def merge_adapter(folder: Path, alpha: float) -> int:
    """Rewrite ``folder``'s weights in place, ``W + alpha / r · B A`` for each adapted matrix; return the number of these.

    A folder without an adapter is left as it is. ``W`` is (out, in), ``A`` (r, in) and ``B`` (out, r) (arXiv 2106.09685).
    """
    files = sorted(folder.glob("*.safetensors"))
    tensors: dict[str, torch.Tensor] = {}
    for file in files:
        with safe_open(file, "pt") as opened:
            tensors |= {name.removeprefix(_BASE): opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    merged, adapted = {}, 0
    for name, weight in tensors.items():
        if ".lora_" in name:
            continue
        if ".base_layer." in name:
            layer = name.split(".base_layer.")[0]
            down, up = (tensors.get(f"{layer}.lora_{part}.default.weight") for part in "AB")
            if name.endswith(".weight") and down is not None and up is not None:
                change = alpha / down.shape[0] * (up.float() @ down.float())
                weight, adapted = (weight.float() + change).to(weight.dtype), adapted + 1
        merged[name.replace(".base_layer.", ".")] = weight.contiguous()
    if not adapted:
        return 0
    for file in (*files, *folder.glob("*.safetensors.index.json")):
        file.unlink()
    save_file(merged, folder / "model.safetensors", metadata={"format": "pt"})
    return adapted
