"""The HTTP server: uvicorn, with limits on headers and connections."""

from __future__ import annotations

import asyncio
import logging
import socket
import tempfile
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from v2m.core.errors import UsageError
from v2m.service.api import create_app
from v2m.service.service import Service

HEADER_TIMEOUT_S = 15.0  # from the first byte of a request, or the start of a connection, to the end of its headers
MAX_HEADER_BYTES = 64 * 1024
MAX_CONNECTIONS = 256
KEEP_ALIVE_S = 15
CLOSE_S = 5  # for connections at the end of the service

logger = logging.getLogger(__name__)


class LimitedH11Protocol(H11Protocol):
    """uvicorn's protocol, which closes a connection whose request line and headers do not come in time."""

    _header_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._update_header_timer()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._update_header_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if self._header_timer is not None:
            self._header_timer.cancel()

    def _waits_for_headers(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _update_header_timer(self) -> None:
        if not self._waits_for_headers():
            if self._header_timer is not None:
                self._header_timer.cancel()
            self._header_timer = None
        elif self._header_timer is None:
            self._header_timer = self.loop.call_later(HEADER_TIMEOUT_S, self._end_slow_request)

    def _end_slow_request(self) -> None:
        self._header_timer = None
        if self._waits_for_headers() and not self.transport.is_closing():
            self.transport.close()


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens. Raise UsageError where the address cannot be had."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        server_socket = socket.create_server(address[:2], family=family, backlog=MAX_CONNECTIONS)
    except OSError as error:
        problem = f"port {port} of {host} cannot be listened on ({error.strerror or error})"
        raise UsageError(f"{problem}: give another `port`") from error
    server_socket.setblocking(False)
    return server_socket


def serve(service: Service, server_socket: socket.socket) -> None:
    """Serve until SIGINT or SIGTERM."""
    tempfile.tempdir = str(service.uploads)  # the disk whose room is looked at
    config = uvicorn.Config(
        create_app(service),
        http=LimitedH11Protocol,
        ws="none",
        h11_max_incomplete_event_size=MAX_HEADER_BYTES,
        limit_concurrency=MAX_CONNECTIONS,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=CLOSE_S,
        server_header=False,
        access_log=False,
        log_config=None,
    )
    host, port = server_socket.getsockname()[:2]
    logger.warning("v2m is at http://%s:%d", f"[{host}]" if ":" in host else host, port)
    uvicorn.Server(config).run(sockets=[server_socket])
