"""`iranker serve` with the real vLLM on a tiny random model, in a process of its own."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

pytest.importorskip("vllm")

from iranker_verl.inference import Ranker
from tests import tiny_models

ROOT = Path(__file__).parents[2]
LISTS = [(f"query {n}", [f"text {n} {i}" for i in range(5)]) for n in range(6)]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="vLLM")
def test_the_server_ranks_as_the_library_does_and_ends_when_told(tmp_path):
    folder = tiny_models.save_saying(tmp_path / "model", "B")
    with Ranker(folder, template="label", max_new_tokens=4) as ranker:
        expected = ranker.rank_all(LISTS)
    assert [r.malformed for r in expected] == [0] * 6 and {r.order for r in expected} == {(0, 4, 3, 2, 1)}

    command = [sys.executable, "-m", "iranker_verl.cli", "serve", "--model", str(folder), "--template", "label"]
    process = subprocess.Popen(
        [*command, "--max-new-tokens", "4", "--port", "0"],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        for said in process.stderr:
            if found := re.search(r"running on (http://\S+)", said):
                break
        else:
            raise AssertionError("it ended before it served")
        with httpx.Client(base_url=found[1], timeout=60) as client:
            assert client.get("/health").status_code == 200
            for (query, texts), ranking in zip(LISTS, expected, strict=True):
                body = client.post("/v1/rerank", json={"query": query, "documents": texts}).json()
                assert [result["index"] for result in body["results"]] == list(ranking.order)
                assert body["usage"]["prompt_tokens"] == ranking.prompt_tokens
                assert body["ranking"]["malformed"] == 0
            too_long = client.post("/v1/rerank", json={"query": "q", "documents": ["x" * 3000, "y"]})
            assert too_long.status_code == 400 and "shorten the texts" in too_long.json()["error"]["message"]
            [worker] = subprocess.run(
                ["pgrep", "-g", str(process.pid), "-f", "EngineCore"], capture_output=True, text=True
            ).stdout.split()
            os.kill(int(worker), signal.SIGSTOP)
            stopped = time.monotonic()
            while client.get("/health").status_code != 503:
                assert time.monotonic() - stopped < 10
                time.sleep(0.1)
            answered = client.post("/v1/rerank", json={"query": "q", "documents": ["x", "y"]})
            assert answered.status_code == 503
            os.kill(int(worker), signal.SIGCONT)
            while client.get("/health").status_code != 200:
                assert time.monotonic() - stopped < 30
                time.sleep(0.1)
            assert client.post("/v1/rerank", json={"query": "q", "documents": ["x", "y"]}).status_code == 200
            os.kill(int(worker), signal.SIGKILL)
            until = time.monotonic() + 30
            while client.get("/health").status_code != 503:
                assert time.monotonic() < until
                time.sleep(0.1)
            dead = client.post("/v1/rerank", json={"query": "q", "documents": ["x", "y"]})
            assert dead.status_code == 503 and "restart the server" in dead.json()["error"]["message"]
        os.kill(process.pid, signal.SIGTERM)
        process.communicate(timeout=60)
        assert process.returncode in (0, -signal.SIGTERM)  # uvicorn raises the signal again once all is closed
        until = time.monotonic() + 20
        while subprocess.run(["pgrep", "-g", str(process.pid)], stdout=subprocess.DEVNULL).returncode == 0:
            assert time.monotonic() < until, "processes of vLLM are left"
            time.sleep(0.1)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
