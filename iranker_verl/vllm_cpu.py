"""vLLM on a CPU that it shares: environment variables for rollouts and for evaluation. A user's own values win."""

from __future__ import annotations

import os

ENVIRONMENT = {
    "VLLM_CPU_KVCACHE_SPACE": "1",  # GiB; the default takes a share of all memory
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # binding assumes that vLLM has the cores to itself
}
# One core stays for the scheduler and for the processes that feed it: OpenMP threads wait for each other at every layer,
# so on two busy cores two threads were eight times slower than one, and on two idle cores no faster.
THREADS = {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 2) - 1))}
