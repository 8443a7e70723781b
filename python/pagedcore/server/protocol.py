"""uvicorn's HTTP protocol, with bounds on what a client may hold up: headers, connections, unread answers."""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from .errors import ApiError, openai_error
from .http import encoded

__all__ = ["bounded_protocol"]

_MOST_HEADER_BYTES = 64 << 10
_REASONS = {
    400: "Bad Request",
    408: "Request Timeout",
    431: "Request Header Fields Too Large",
    503: "Service Unavailable",
}


def bounded_protocol(*, header_timeout: float, write_timeout: float, most_connections: int) -> type[HttpToolsProtocol]:
    """``header_timeout``: seconds for all headers of a request to come, the first one's from the connection on.
    ``write_timeout``: seconds in which a client reads nothing of what waits for it."""

    class Bounded(_BoundedProtocol):
        _header_timeout, _write_timeout, _most_connections = header_timeout, write_timeout, most_connections

    return Bounded


class _BoundedProtocol(HttpToolsProtocol):
    _header_timeout: float
    _write_timeout: float
    _most_connections: int
    _timer: asyncio.TimerHandle | None = None  # for headers
    _stalled: asyncio.TimerHandle | None = None  # for an answer
    _in_headers = True
    _header_bytes = 0

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        peer = transport.get_extra_info("socket")
        with suppress(OSError, AttributeError):
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)  # finds clients whose machine is gone
        if len(self.connections) > self._most_connections:
            self._refuse(503, f"{self._most_connections} connections are open")
        else:
            self._timer = self.loop.call_later(self._header_timeout, self._too_slow)

    def connection_lost(self, exc: Exception | None) -> None:
        self._disarm()
        self.resume_writing()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        if self._in_headers:
            self._header_bytes += len(data)
        super().data_received(data)
        if self._in_headers and self._header_bytes > _MOST_HEADER_BYTES and not self.transport.is_closing():
            self._refuse(431, f"the headers have more than {_MOST_HEADER_BYTES} bytes")

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_headers = True
        if self._timer is None:
            self._timer = self.loop.call_later(self._header_timeout, self._too_slow)

    def on_headers_complete(self) -> None:
        self._in_headers, self._header_bytes = False, 0
        self._disarm()
        super().on_headers_complete()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._stalled = self.loop.call_later(self._write_timeout, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None

    def send_400_response(self, msg: str) -> None:
        self._refuse(400, "this is not HTTP/1.1")

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _too_slow(self) -> None:
        self._timer = None
        if self.cycle is None or self.cycle.response_complete:
            self._refuse(408, f"the headers did not come within {self._header_timeout:g} s")

    def _refuse(self, status: int, message: str) -> None:
        """Answers before there is a request that could be answered, and closes."""
        self._disarm()
        body = encoded(openai_error(ApiError(status, message)))
        head = f"HTTP/1.1 {status} {_REASONS[status]}\r\ncontent-type: application/json\r\n"
        self.transport.write(f"{head}content-length: {len(body)}\r\nconnection: close\r\n\r\n".encode() + body)
        self.transport.close()
