"""Honest clients beside hostile ones, on a server whose engine only waits.

    python -m benchmarks.serving_load [--soak MINUTES]

Eight honest clients rank lists of 20 for ``--seconds``, first alone, then beside clients that send bodies of 4 MB, valid and of
330,000 fields, that hang up, that send heads without end and bodies without their last byte, that never read what they asked
for, and that have a wrong key. Printed are the honest clients' failures and 95th percentile, the longest ``/health``, and the server's memory. The engine answers in 20 ms
without a model; the tokenizer is a real one.

With ``--soak``, the hostile clients are killed and started again every 15 seconds, and the server is stopped (SIGSTOP) for one
second each time. Printed are the server's memory, threads, open files and children every minute, and what is left of them when
all clients are gone.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil

from iranker_verl.inference import AsyncRanker
from iranker_verl.inference.engine import Generation
from iranker_verl.serving.app import create_app
from iranker_verl.serving.server import Server, bound_socket
from tests import tiny_models

KEY = "a-key"
HEAD = {"Authorization": f"Bearer {KEY}"}
WORDS = [f"word{n}" for n in range(500)]


class WaitingEngine:
    """Answers every prompt with ``[A]``, after its tokens are counted and 20 ms have passed."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer

    async def ask(
        self, messages: Any, max_new_tokens: int, temperature: float = 0.0, *, seed: int | None = None
    ) -> Generation:
        """Return the answer."""
        tokens = len(self._tokenizer.encode(messages))
        await asyncio.sleep(0.02)
        return Generation("[A]", (1,), tokens)


class WaitingRanker(AsyncRanker):
    """A ranker without vLLM."""

    def _closed_engine(self) -> Any:
        return nullcontext(WaitingEngine(self._tokenizer))

    async def check_alive(self) -> None:
        """Find nothing wrong."""


def serve(folder: Path, port: int) -> None:
    """Serve until killed."""
    texts = [" ".join(random.Random(n).choices(WORDS, k=50)) for n in range(200)]
    tokenizer = tiny_models.tokenizer().train_new_from_iterator(texts, 2000)
    tokenizer.chat_template = tiny_models.CHAT_TEMPLATE
    tokenizer.save_pretrained(folder)
    (folder / "config.json").write_text('{"max_position_embeddings": 8192}')
    (folder / "none.safetensors").write_bytes(b"")
    app = create_app(WaitingRanker(folder, template="label", max_new_tokens=4), name="waiting", api_key=KEY)
    Server(app, "127.0.0.1", port, log_level="error").run([bound_socket("127.0.0.1", port)])


def make_body(random_: random.Random, documents: int, words: int) -> bytes:
    """Return a request of so many documents of so many words."""
    texts = [" ".join(random_.choices(WORDS, k=words)) for _ in range(documents)]
    return json.dumps({"query": "how long?", "documents": texts, "return_documents": False}).encode()


async def honest(
    url: str, until: float, seconds: list[float], failures: Counter[str], seed: int, pause_s: float = 0
) -> None:
    """Rank lists of 20, one after the other."""
    random_ = random.Random(seed)
    async with httpx.AsyncClient(base_url=url, headers=HEAD, timeout=60) as client:
        while time.monotonic() < until:
            began = time.monotonic()
            try:
                status = str((await client.post("/v1/rerank", content=make_body(random_, 20, 30))).status_code)
            except httpx.HTTPError as error:
                status = type(error).__name__
            seconds.append(time.monotonic() - began)
            failures[status] += 1
            await asyncio.sleep(pause_s)


async def health(url: str, until: float, longest: list[float]) -> None:
    """Ask for ``/health`` five times a second."""
    async with httpx.AsyncClient(base_url=url, timeout=60) as client:
        while time.monotonic() < until:
            began = time.monotonic()
            (await client.get("/health")).raise_for_status()
            longest.append(time.monotonic() - began)
            await asyncio.sleep(0.2)


@dataclass(frozen=True)
class Hostile:
    """What a client sends, how long it stays, how many do it at once, and whether they read what comes."""

    content: bytes
    wait_s: float
    number: int
    reads: bool = True


async def raw(port: int, client: Hostile) -> None:
    """Send bytes, and hang up after ``wait_s`` or when the server does."""
    with suppress(OSError, TimeoutError, asyncio.IncompleteReadError):
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 if not client.reads else 1 << 16)
        try:
            writer.write(client.content)
            async with asyncio.timeout(client.wait_s):
                await writer.drain()
                await (reader.read() if client.reads else asyncio.sleep(client.wait_s))
        finally:
            writer.transport.abort()


def posted(body: bytes, length: int | None = None, key: str = KEY) -> bytes:
    """Return a request to rank."""
    head = f"POST /v1/rerank HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\nContent-Length: {length or len(body)}\r\n\r\n"
    return head.encode() + body


def hostile_requests() -> dict[str, Hostile]:
    """Return the clients of each kind."""
    random_ = random.Random(1)
    large = make_body(random_, 600, 400)
    fields = b'{"query":"q","documents":["x"],' + b",".join(b'"f%d":1' % n for n in range(330_000)) + b"}"
    return {
        "large": Hostile(posted(large), 20, 2),
        "hangs up": Hostile(posted(large), 0.3, 10),
        "fields": Hostile(posted(fields), 20, 2),
        "head without end": Hostile(b"GET /health HTTP/1.1\r\n" + b"X: y\r\n" * 200_000, 20, 4),
        "slow head": Hostile(b"GET /health HTTP/1.1\r\nX: ", 20, 50),
        "all but a byte": Hostile(posted(b"x" * ((4 << 20) - 1), 4 << 20), 60, 150),
        "never reads": Hostile(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n" * 5000, 60, 4, reads=False),
        "wrong key": Hostile(posted(large, key="no"), 5, 2),
    }


async def repeated(port: int, client: Hostile, until: float) -> None:
    """Send the same again and again."""
    while time.monotonic() < until:
        async with asyncio.timeout(max(0.1, until - time.monotonic())):
            await raw(port, client)
        await asyncio.sleep(1)


def attack(port: int, hostile: dict[str, Hostile], until: float) -> None:
    """Run all hostile clients, in a process of their own."""

    async def all_of_them() -> None:
        kinds = hostile.values()
        await asyncio.gather(
            *(repeated(port, client, until) for client in kinds for _ in range(client.number)),
            return_exceptions=True,
        )

    os.nice(19)  # in life they are other machines
    asyncio.run(all_of_them())


async def soak(port: int, server: psutil.Process, minutes: int) -> None:
    """Print what the server holds, minute by minute, beside clients that are killed and stops of its own process."""
    url, hostile = f"http://127.0.0.1:{port}", hostile_requests()

    def held() -> str:
        counts = f"{server.num_threads()} threads, {server.num_fds()} open files, {len(server.children(recursive=True))} children"
        return f"memory {server.memory_info().rss / 2**20:.0f} MB, {counts}"

    async def disturb(until: float) -> None:
        while time.monotonic() < until:
            attackers = multiprocessing.Process(target=attack, args=(port, hostile, until))
            attackers.start()
            await asyncio.sleep(15)
            attackers.kill()
            attackers.join()
            server.suspend()
            await asyncio.sleep(1)
            server.resume()

    print(f"idle: {held()}", flush=True)
    for minute in range(1, minutes + 1):
        until, took, statuses = time.monotonic() + 60, [], Counter()
        await asyncio.gather(disturb(until), *(honest(url, until, took, statuses, n, pause_s=0.5) for n in range(4)))
        print(f"minute {minute}: {len(took)} lists, statuses {dict(statuses)}, {held()}", flush=True)
    await asyncio.sleep(15)
    print(f"15 seconds after the last client: {held()}", flush=True)


async def measure(port: int, pid: int, seconds: float, hostile: dict[str, Hostile]) -> None:
    """Print what honest clients get."""
    url, until = f"http://127.0.0.1:{port}", time.monotonic() + seconds
    took, statuses, healths, memory = [], Counter(), [], []

    async def watch_memory() -> None:
        while time.monotonic() < until:
            memory.append(psutil.Process(pid).memory_info().rss)
            await asyncio.sleep(0.1)

    before = sum(psutil.Process(pid).cpu_times()[:2])
    jobs = [honest(url, until, took, statuses, n) for n in range(8)] + [health(url, until, healths), watch_memory()]
    attackers = multiprocessing.Process(target=attack, args=(port, hostile, until))
    attackers.start()
    await asyncio.gather(*jobs)
    attackers.join()
    p95 = statistics.quantiles(took, n=20)[-1]
    print(
        f"{'beside hostile clients' if hostile else 'alone':24} {len(took):5} lists, statuses {dict(statuses)}, "
        f"median {statistics.median(took):.2f} s, p95 {p95:.2f} s, longest /health {max(healths):.2f} s, "
        f"{sum(psutil.Process(pid).cpu_times()[:2]) - before:.0f} s of CPU, memory {memory[0] / 2**20:.0f} to {max(memory) / 2**20:.0f} MB"
    )


def main() -> None:
    """Measure with and without hostile clients."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--soak", type=int, metavar="MINUTES")
    parser.add_argument("--serve", nargs=2, metavar=("FOLDER", "PORT"))
    options = parser.parse_args()
    if options.serve:
        serve(Path(options.serve[0]), int(options.serve[1]))
        return
    with bound_socket("127.0.0.1", 0) as free:
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "benchmarks.serving_load", "--serve", folder, str(port)]
        process = subprocess.Popen(command, env=os.environ | {"TOKENIZERS_PARALLELISM": "false"})
        try:
            while process.poll() is None:
                with suppress(httpx.HTTPError):
                    if httpx.get(f"http://127.0.0.1:{port}/health", timeout=60).status_code == 200:
                        break
                time.sleep(0.2)
            if options.soak:
                asyncio.run(soak(port, psutil.Process(process.pid), options.soak))
            for hostile in () if options.soak else ({}, hostile_requests(), {}):
                asyncio.run(measure(port, process.pid, options.seconds, hostile))
            began = time.monotonic()
            process.terminate()
            process.wait(40)
            print(f"ended after {time.monotonic() - began:.1f} s with {process.returncode}")
        finally:
            process.kill()
            process.wait()


if __name__ == "__main__":
    main()
