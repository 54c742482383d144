"""A running server over a model that is none, for tests."""

from __future__ import annotations

import contextlib
import re
import socket
import threading
import time

import httpx

from iranker_verl.inference import AsyncRanker
from iranker_verl.inference.endpoint import Endpoint
from iranker_verl.serving.app import create_app
from iranker_verl.serving.server import Server, bound_socket
from tests.fake_openai import FakeServer, answer

FLEAS = ["Fleas feed on blood.", "A flea can live up to a year.", "Eggs hatch in a week."]
BODY = {"query": "how long do fleas live", "documents": FLEAS}


def exclude_first(request, number):
    """Exclude the first candidate of the prompt."""
    return 200, answer("<answer>[A]</answer>")


@contextlib.contextmanager
def serving(respond=exclude_first, root_path="", **options):
    """A client of a running server, and the model's server behind it."""
    behind = FakeServer(respond)
    with behind.serving():
        app = create_app(AsyncRanker(Endpoint(behind.url, "fake", retries=0)), **options)
        server = Server(app, "127.0.0.1", 0, log_level="error", root_path=root_path)
        listening = [bound_socket("127.0.0.1", 0)]  # as `iranker serve` does
        thread = threading.Thread(target=server.run, args=(listening,), daemon=True)
        thread.start()
        until = time.monotonic() + 20
        while not server.started:
            assert time.monotonic() < until and thread.is_alive()
            time.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=20) as client:
                yield client, behind
        finally:
            server.should_exit = True
            thread.join(20)
            assert not thread.is_alive()


def begun(client, length, sent, more=""):
    """A connection on which a request to rank has begun, of a body of ``length`` bytes."""
    line = socket.socket()
    line.settimeout(20)
    line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)  # an answer that is not read does not fit into it
    line.connect((client.base_url.host, client.base_url.port))
    line.sendall(
        f"POST /v1/rerank HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n{more}\r\n".encode()
        + sent
    )
    return line


def refused(response, status):
    assert response.status_code == status
    error = response.json()["error"]
    assert error["code"] == status and set(error) == {"message", "type", "param", "code"}
    return error["message"]


def counted(client, name):
    found = re.search(rf"^{re.escape(name)} (\S+)$", client.get("/metrics").text, flags=re.M)
    return float(found[1]) if found else 0.0
