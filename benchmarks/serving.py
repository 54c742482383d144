"""The server's speed beside the library's, on one vLLM, in one run.

    python -m benchmarks.serving

The same lists, once by the library (:meth:`~iranker_verl.inference.AsyncRanker.rank_all`) and once over HTTP, by as many clients as
the library has lists under way; then over HTTP by one client, which is what one user waits. In turns, ``--rounds`` times, with
other lists each time, so that no prompt is in the cache. The model is random and of the size of ``make train-tiny``'s.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
import time
from pathlib import Path

import httpx
import uvicorn

from benchmarks.evaluation import make_model, make_tasks
from iranker_verl.inference import AsyncRanker
from iranker_verl.inference.episode import AHEAD
from iranker_verl.serving.app import create_app

List = tuple[str, list[str]]


async def over_http(url: str, lists: list[List], clients: int) -> list[float]:
    """Return the seconds of each request."""
    waiting, seconds = list(lists), []

    async def client(http: httpx.AsyncClient) -> None:
        while waiting:
            query, documents = waiting.pop()
            began = time.perf_counter()
            (await http.post("/v1/rerank", json={"query": query, "documents": documents})).raise_for_status()
            seconds.append(time.perf_counter() - began)

    async with httpx.AsyncClient(base_url=url, timeout=600, limits=httpx.Limits(max_connections=clients)) as http:
        await asyncio.gather(*(client(http) for _ in range(clients)))
    return seconds


async def measure(ranker: AsyncRanker, lists: list[list[List]], clients: int) -> None:
    """Print lists a second of both ways, and the seconds of a single client."""
    server = uvicorn.Server(
        uvicorn.Config(create_app(ranker, max_concurrent_requests=2 * clients), port=0, log_level="error")
    )
    serving = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.1)
    url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    rates: dict[str, list[float]] = {"library": [], "HTTP": []}
    alone: list[float] = []
    for both, few in zip(lists[::2], lists[1::2], strict=True):
        half = len(both) // 2
        began = time.perf_counter()
        await ranker.rank_all(both[:half])
        rates["library"].append(half / (time.perf_counter() - began))
        began = time.perf_counter()
        await over_http(url, both[half:], clients)
        rates["HTTP"].append((len(both) - half) / (time.perf_counter() - began))
        alone += await over_http(url, few[:8], 1)
    for way, found in rates.items():
        print(f"{way:8} {statistics.median(found):7.1f} lists/s")
    print(f"HTTP / library: {statistics.median(b / a for a, b in zip(*rates.values(), strict=True)):.2f}")
    print(f"one client: {statistics.median(alone):.3f} s a list (median of {len(alone)}), longest {max(alone):.3f} s")
    server.should_exit = True
    await serving


def main() -> None:
    """Measure with a random model of the tiny one's size."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lists", type=int, default=128)
    parser.add_argument("--candidates", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    tasks = make_tasks(4 * options.rounds * options.lists, options.candidates, seed=1)
    texts = [(task.context, [c.text for c in task.candidates]) for task in tasks]
    lists = [texts[i : i + 2 * options.lists] for i in range(0, len(texts), 2 * options.lists)]
    with tempfile.TemporaryDirectory() as folder:
        model = make_model(Path(folder), [text for query, documents in texts[:500] for text in (query, *documents)])
        ranker = AsyncRanker(model, template="label", max_new_tokens=4, max_model_len=1024)
        asyncio.run(measure(ranker, lists, AHEAD * 64))
    print(f"{options.lists} lists of {options.candidates} candidates, {options.rounds} rounds")


if __name__ == "__main__":
    main()
