"""uvicorn with limits for clients that are slow on purpose, a port that is taken before anything is loaded, and an orderly end."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import socket
import sys
from typing import Any

import uvicorn
from fastapi import FastAPI
from h11 import IDLE
from uvicorn.protocols.http.h11_impl import H11Protocol

from iranker_verl.errors import UserError

LOG = logging.getLogger("uvicorn.error")
HEAD_S = 10.0  # for a request's line and headers to arrive
HEAD_BYTES = 16 << 10
SEND_S = 60.0  # for a client to take what it was sent
CONNECTIONS = 900  # below the usual limit of open files; further ones get 503
DRAIN_S = 15.0  # for rankings under way, once the server is to end; then they get 503
SWITCH_S = 0.0005  # Python's threads take turns: the event loop waits this long for those that parse and count tokens
SHUTDOWN_S = 20  # until uvicorn ends what does not end by itself; Kubernetes kills after 30


class LimitedProtocol(H11Protocol):
    """uvicorn's HTTP/1.1, which closes a connection whose request head does not arrive, or whose answer is not read, in time."""

    _late: asyncio.TimerHandle | None = None
    _unread: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for a head."""
        super().connection_made(transport)
        transport.set_write_buffer_limits(high=0)  # pause_writing is called as soon as anything waits to be sent
        self._watch()

    def pause_writing(self) -> None:
        """Begin to wait for the client to read."""
        super().pause_writing()
        self._unread = self.loop.call_later(SEND_S, self.transport.abort)  # close() would wait until all is sent

    def resume_writing(self) -> None:
        """Wait no longer: all is sent."""
        super().resume_writing()
        self._all_read()

    def _all_read(self) -> None:
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None

    def data_received(self, data: bytes) -> None:
        """Take data, and keep waiting where it does not complete a head."""
        super().data_received(data)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no longer."""
        super().connection_lost(exc)
        self._stop()
        self._all_read()

    def _watch(self) -> None:
        if self.conn.their_state is not IDLE:
            self._stop()
        elif self._late is None:
            self._late = self.loop.call_later(HEAD_S, self.timeout_keep_alive_handler)

    def _stop(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None


class Server(uvicorn.Server):
    """uvicorn's server, which tells the application when it begins to end, so that every open request gets an answer."""

    def __init__(self, app: FastAPI, host: str, port: int, **options: Any) -> None:
        self._app = app
        super().__init__(
            uvicorn.Config(
                app,
                host=host,
                port=port,
                http=LimitedProtocol,
                ws="none",
                h11_max_incomplete_event_size=HEAD_BYTES,
                limit_concurrency=CONNECTIONS,
                timeout_graceful_shutdown=SHUTDOWN_S,
                **options,
            )
        )

    def run(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve until a signal ends it."""
        sys.setswitchinterval(SWITCH_S)
        super().run(sockets)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Open the model and take connections; log the address, as uvicorn does only for sockets of its own."""
        await super().startup(sockets)
        for listening in sockets or []:
            host, port = listening.getsockname()[:2]
            LOG.info(
                "Uvicorn running on http://%s:%d (Press CTRL+C to quit)", f"[{host}]" if ":" in host else host, port
            )

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Take no more connections, and end those that there are: in DRAIN_S seconds, or with 503."""
        timer = asyncio.get_running_loop().call_later(DRAIN_S, self._app.state.stopping.set)
        try:
            await super().shutdown(sockets)
        finally:
            timer.cancel()


def bound_socket(host: str, port: int) -> socket.socket:
    """Return a socket on this address. UserError where it is in use or none of this machine's."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        taken = socket.socket(family, kind, protocol)
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            taken.bind(address)
            taken.listen(1)  # two that are only bound may share an address
        except OSError:
            taken.close()
            raise
    except OSError as error:
        raise UserError(
            f"{host}:{port}: cannot listen there ({error.strerror}); give another --port or --host"
        ) from error
    return taken


def is_loopback(host: str) -> bool:
    """Return whether only this machine can reach ``host``."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
