"""An OpenAI-compatible server that is none, in a thread: it answers by a function, and fails when it is told to."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


def answer(text: str | None, **changes: Any) -> dict[str, Any]:
    """The body of a chat completion: one token a word of the answer, seven of the prompt."""
    words = len((text or "").split())
    body = {
        "id": "1",
        "object": "chat.completion",
        "created": 0,
        "model": "fake",
        "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}],
        "usage": {"prompt_tokens": 7, "completion_tokens": words, "total_tokens": 7 + words},
    }
    return body | changes


class FakeServer:
    """``respond(request, number)`` gives a status, a body (a dict, as JSON, or bytes) and perhaps headers. ``requests`` holds what
    came in."""

    def __init__(self, respond: Callable[[dict[str, Any], int], tuple[Any, ...]]) -> None:
        self.requests: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.running = self.most = 0
        lock = threading.Lock()
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                try:
                    request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                except ValueError:  # who asked is gone: killed, in a test
                    self.close_connection = True
                    return
                with lock:
                    server.requests.append(request)
                    server.keys.append(self.headers["Authorization"])
                    number = len(server.requests)
                    server.running += 1
                    server.most = max(server.most, server.running)
                try:
                    status, body, *headers = respond(request, number)
                finally:
                    with lock:
                        server.running -= 1
                content = body if isinstance(body, bytes) else json.dumps(body).encode()
                try:
                    self.send_response(status)
                    self.send_header("Content-Type", "application/json")
                    for name, value in (headers[0] if headers else {}).items():
                        self.send_header(name, value)
                    self.send_header("Content-Length", str(len(content)))
                    self.end_headers()
                    self.wfile.write(content)
                except OSError:
                    self.close_connection = True

            def log_message(self, *_: Any) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 256  # clients come all at once

        self._server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"

    @contextmanager
    def serving(self) -> Iterator[FakeServer]:
        thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            self._server.server_close()
            thread.join()
