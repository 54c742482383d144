"""Keys and budgets: checked before a body is read, while it is read, and before it is ranked."""

from __future__ import annotations

import asyncio
import hmac
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from typing import Any

from fastapi import Request
from fastapi.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from iranker_verl.serving.wire import problem

MAX_BYTES = 4 << 20  # of a body
MAX_FIELDS = 20_000  # texts and names in a body; twice as many values of all kinds
MAX_CHARACTERS = 2 << 20  # of a request's query and documents together
CHARACTERS_UNDER_WAY = 32 * MAX_CHARACTERS  # of all rankings under way
SMALL = 64 << 10  # bytes that are parsed in a millisecond
LARGE_BODIES = 24  # larger ones that are read or parsed at once; more wait
BODY_S = 30.0  # for a body to arrive
PAUSE_S = 5.0  # between two parts of it
OPEN = ("/health", "/metrics")


class Refusal(Exception):
    """A request that is not answered. ``status`` is HTTP's."""

    def __init__(self, status: int, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.param = status, message, param

    def response(self) -> JSONResponse:
        """Return the refusal as a response in OpenAI's form, with Retry-After where trying again helps."""
        headers = {"Retry-After": "1"} if self.status in (429, 503) else {}
        return refused(self.status, self.message, self.param, headers)


def refused(
    status: int, message: str, param: str | None = None, headers: Mapping[str, str] | None = None
) -> JSONResponse:
    """Return an error as a response."""
    return JSONResponse(problem(status, message, param), status_code=status, headers=dict(headers or {}))


class AccessControl:
    """ASGI middleware over all but ``/health`` and ``/metrics``: the key, where there is one, and the size of a body.

    ``counted`` gets the status of a refusal. ``receive`` is handed on as it is (Starlette's function middleware does not do
    that), so that a client that hangs up is noticed.
    """

    def __init__(self, app: ASGIApp, api_key: str | None, counted: Callable[[int], None]) -> None:
        self._app, self._counted = app, counted
        self._key = None if api_key is None else api_key.strip().encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request that is refused; pass on all others."""
        app: ASGIApp = self._app
        if scope["type"] == "http" and scope["path"].removeprefix(scope.get("root_path", "")) not in OPEN:
            try:
                self._check(scope)
            except Refusal as refusal:
                self._counted(refusal.status)
                app = refusal.response()
        await app(scope, receive, send)

    def _check(self, scope: Scope) -> None:
        headers = dict(scope["headers"])
        scheme, _, key = headers.get(b"authorization", b"").strip().partition(b" ")
        if self._key is not None and not (scheme.lower() == b"bearer" and hmac.compare_digest(key.strip(), self._key)):
            raise Refusal(401, "send the server's key, as in `Authorization: Bearer KEY`")
        if scope["method"] != "POST":
            return
        length = headers.get(b"content-length", b"")
        if not length.isdigit() or len(length) > 18 or b"transfer-encoding" in headers:
            raise Refusal(411, "send a Content-Length, and no Transfer-Encoding")
        if int(length) > MAX_BYTES:
            raise Refusal(413, f"the body has {int(length):,} bytes, more than the {MAX_BYTES:,} allowed")


class Bodies:
    """Reads and parses JSON bodies: small ones at once, large ones a few at a time and off the event loop."""

    def __init__(self) -> None:
        self._large = asyncio.Semaphore(LARGE_BODIES)
        self._parser = ThreadPoolExecutor(1, "parse")

    async def read(self, request: Request) -> Any:
        """Return what the body holds. Refusal where it is late, no JSON, or has too many fields.

        A client that hangs up raises Starlette's ClientDisconnect.
        """
        small = int(request.headers["content-length"]) <= SMALL
        async with nullcontext() if small else self._large:
            raw = await _received(request)
            if small:
                return _parse(raw)
            return await asyncio.get_running_loop().run_in_executor(self._parser, _parse, raw)

    def close(self) -> None:
        """End the parser's thread."""
        self._parser.shutdown(wait=False, cancel_futures=True)


async def _received(request: Request) -> bytes:
    parts = []
    try:
        async with asyncio.timeout(BODY_S), asyncio.timeout(PAUSE_S) as pause:
            async for part in request.stream():
                parts.append(part)
                pause.reschedule(asyncio.get_running_loop().time() + PAUSE_S)
    except TimeoutError as error:
        raise Refusal(
            408, f"the body did not arrive within {BODY_S:.0f} seconds, or paused for {PAUSE_S:.0f}"
        ) from error
    return b"".join(parts)


def _parse(raw: bytes) -> Any:
    try:
        text = raw.decode(json.detect_encoding(raw))
        if _is_crowded(text):  # parsing it would hold up all other threads
            raise Refusal(400, f"body: it has more than {MAX_FIELDS:,} texts and names, or twice as many values")
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise Refusal(400, f"body: JSON decode error ({error})") from error
    except (ValueError, RecursionError) as error:  # not UTF-8, a number of thousands of digits, brackets in brackets
        raise Refusal(400, f"body: JSON decode error ({type(error).__name__})") from error


def _is_crowded(text: str) -> bool:
    """Return whether a JSON text has too many strings, or outside of them too many commas and brackets."""
    unescaped = text.replace("\\\\", "").replace('\\"', "")  # the quotes that are left begin or end a string
    if unescaped.count('"') // 2 > MAX_FIELDS:
        return True
    outside = "".join(unescaped.split('"')[::2])
    return sum(map(outside.count, ",[{")) > 2 * MAX_FIELDS


class Admission:
    """Counts the rankings under way, in all and of each client, and their characters."""

    def __init__(self, requests: int, requests_per_client: int | None = None) -> None:
        self._requests, self._per_client = requests, requests_per_client or requests
        self._characters = 0
        self._clients: Counter[str] = Counter()

    @contextmanager
    def admitted(self, client: str, characters: int) -> Iterator[None]:
        """Within it a ranking is under way. Refusal where there are too many."""
        if characters > MAX_CHARACTERS:
            raise Refusal(
                413, f"query and documents have {characters:,} characters, more than the {MAX_CHARACTERS:,} allowed"
            )
        if self._clients.total() >= self._requests:
            raise Refusal(429, f"{self._requests} rankings are under way already; try again in a moment")
        if self._clients[client] >= self._per_client:
            raise Refusal(429, f"{self._per_client} of your rankings are under way already; try again in a moment")
        if self._characters + characters > CHARACTERS_UNDER_WAY:
            raise Refusal(429, "rankings of many long texts are under way already; try again in a moment")
        self._clients[client] += 1
        self._characters += characters
        try:
            yield
        finally:
            self._characters -= characters
            self._clients[client] -= 1
            self._clients += Counter()  # drops clients that have none under way
