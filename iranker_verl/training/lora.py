"""Merge an adapter (LoRA) into the weights that it adapts.

verl 0.9.1 saves the adapted model's own tensors under peft's names, which no Hugging Face loader understands.
"""

from __future__ import annotations

import torch

_BASE = "base_model.model."


def merge_adapter(weights: dict[str, torch.Tensor], alpha: float) -> int:
    """Merge in place, ``W + alpha / r · B A`` for each adapted matrix, under the plain model's names; return the number of these.

    Weights without an adapter are left as they are. ``W`` is (out, in), ``A`` (r, in) and ``B`` (out, r) (arXiv 2106.09685).
    """
    tensors = {name.removeprefix(_BASE): weight for name, weight in weights.items()}
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
        merged[name.replace(".base_layer.", ".")] = weight
    if adapted:
        weights.clear()
        weights.update(merged)
    return adapted
