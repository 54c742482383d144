"""Who may ask, and how much: looked at before a body is read."""

from __future__ import annotations

import hmac
from collections.abc import Callable, Mapping

from fastapi.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from iranker_verl.serving.wire import problem

MAX_BYTES = 4 << 20
OPEN = ("/health", "/metrics")


def refused(
    status: int, message: str, param: str | None = None, headers: Mapping[str, str] | None = None
) -> JSONResponse:
    """An error as a response."""
    return JSONResponse(problem(status, message, param), status_code=status, headers=dict(headers or {}))


class Guard:
    """ASGI middleware over all but ``/health`` and ``/metrics``: the key, where there is one, and the size of a body; ``counted``
    gets the status of a refusal. It hands on ``receive`` as it is (as Starlette's function middleware does not), so that a client
    who hangs up is noticed."""

    def __init__(self, app: ASGIApp, api_key: str | None, counted: Callable[[int], None]) -> None:
        self._app, self._counted = app, counted
        self._expected = None if api_key is None else f"Bearer {api_key}".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        no = None
        if scope["type"] == "http" and scope["path"].removeprefix(scope.get("root_path", "")) not in OPEN:
            no = self._look(scope)
            if no is not None:
                self._counted(no.status_code)
        await (no or self._app)(scope, receive, send)

    def _look(self, scope: Scope) -> JSONResponse | None:
        headers = dict(scope["headers"])
        if self._expected is not None and not hmac.compare_digest(headers.get(b"authorization", b""), self._expected):
            return refused(401, "send the server's key, as in `Authorization: Bearer KEY`")
        if scope["method"] != "POST":
            return None
        length = headers.get(b"content-length", b"")
        if not length.isdigit() or b"transfer-encoding" in headers:
            return refused(411, "send a Content-Length, and no Transfer-Encoding")
        if int(length) > MAX_BYTES:
            return refused(413, f"the body has {int(length):,} bytes, more than the {MAX_BYTES:,} allowed")
        return None
