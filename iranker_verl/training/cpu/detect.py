"""Whether to train on the CPU. Every process of verl and vLLM calls this, so it stays cheap."""

from __future__ import annotations

import os


def chosen() -> tuple[bool, str]:
    """Return whether verl shall run on the CPU, and why.

    ``VERL_PLATFORM`` decides where it is set. Without it only a torch *built* without any accelerator means CPU: a GPU
    cluster's head node has no GPU either, and must keep verl's own choice.
    """
    wanted = os.environ.get("VERL_PLATFORM", "").strip().lower()
    if wanted:
        return wanted == "cpu", f"VERL_PLATFORM={wanted}"
    import torch

    if torch.version.cuda or torch.version.hip:
        return False, f"torch {torch.__version__} is an accelerator build"
    if hasattr(torch, "npu"):
        return False, "torch_npu is loaded"
    return True, f"torch {torch.__version__} is a CPU build"
