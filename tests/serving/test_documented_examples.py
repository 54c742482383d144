"""The examples of docs/serving.md, run as they stand there against a running server."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("openai")

from tests.serving.running import serving

PAGE = (Path(__file__).parents[2] / "docs" / "serving.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def client():
    with serving(name="tiny") as (client, _):
        yield client


def here(client, text):
    """Return an example with the running server's address."""
    assert "localhost:8000" in text
    return text.replace("localhost:8000", f"127.0.0.1:{client.base_url.port}")


@pytest.mark.skipif(shutil.which("curl") is None, reason="no curl")
def test_the_curl_example(client):
    [command] = re.findall(r"^    (curl localhost:8000/v1/rerank .*(?:\n      .*)*)", PAGE, flags=re.M)
    ran = subprocess.run(["sh", "-c", here(client, command)], capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0 and '"results":[{"index":1,' in ran.stdout


def test_the_cohere_example(client, monkeypatch, capsys):
    """Run by the client where it is installed, else by a stand-in that sends what it sends."""
    [code] = re.findall(r"```python\n(import cohere\n.*?)```", PAGE, flags=re.S)
    try:
        import cohere  # noqa: F401
    except ImportError:
        monkeypatch.setitem(sys.modules, "cohere", StandIn)
    exec(compile(here(client, code), "docs/serving.md", "exec"), {})
    assert capsys.readouterr().out.strip() == "1"


class StandIn:
    """cohere 5's ``ClientV2``, as far as the example goes: the request was captured from the real one."""

    class ClientV2:
        def __init__(self, api_key, base_url):
            self.key, self.url = api_key, base_url

        def rerank(self, **body):
            import types

            import httpx

            answer = httpx.post(
                f"{self.url}/v2/rerank", json=body, headers={"Authorization": f"Bearer {self.key}"}
            ).json()
            return types.SimpleNamespace(results=[types.SimpleNamespace(**result) for result in answer["results"]])
