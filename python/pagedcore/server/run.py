"""A server from its start to its end."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import ssl
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any

import uvicorn

from ..config_files import read_given
from ..errors import InvalidArgument, Io
from .app import application
from .kv_events import KvEvents
from .log import log
from .protocol import bounded_protocol
from .served import Served, ToServe
from .settings import Settings
from .sockets import address_of, bound_socket, remove_socket_file
from .state import State
from .tracing import Tracing

__all__ = ["serve"]


def serve(models: Sequence[ToServe], settings: Settings) -> int:
    """Binds the socket, loads the models, and answers calls until SIGTERM or Ctrl-C. Then it takes no more, waits
    ``drain_timeout`` seconds for those that are there, ends the others and returns 0. Raises Io where the socket cannot
    be had."""
    begun = time.monotonic()
    bound = bound_socket(settings.host, settings.port, settings.uds)
    try:
        tls = _tls(settings)
        state = State([Served.load(model) for model in models], settings)
        _take_over_logging()
        config = uvicorn.Config(
            application(state),
            http=bounded_protocol(
                header_timeout=settings.header_timeout,
                write_timeout=settings.write_timeout,
                most_connections=settings.max_connections,
            ),
            ws="none",
            lifespan="off",
            loop="asyncio",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=settings.keep_alive,
            timeout_graceful_shutdown=settings.drain_timeout,
            **tls,
        )
        try:
            config.load()
        except ssl.SSLError as error:
            raise InvalidArgument(f"{settings.ssl_certfile}: is no certificate with its key: {error}") from None
        server = _Server(config, state, begun, address_of(bound, tls=bool(tls)))
        watchers = _watchers(state)
        try:
            asyncio.run(server.serve([bound]))
        except OSError as error:
            raise Io(f"cannot listen on {address_of(bound, tls=bool(tls))}: {error.strerror or error}") from None
        finally:
            for watcher in watchers:
                watcher.close()
    finally:
        remove_socket_file(bound, settings.uds)
        bound.close()
    return 0


def _watchers(state: State) -> list[Tracing | KvEvents]:
    """What tells others of this server, if anything."""
    settings = state.settings
    watchers: list[Tracing | KvEvents] = []
    if settings.otlp_traces_endpoint is not None:
        state.tracing = Tracing(settings.otlp_traces_endpoint)
        watchers.append(state.tracing)
    if settings.kv_events is not None:
        watchers.append(KvEvents(state.models[0].llm.engine, settings.kv_events))
    return watchers


def _tls(settings: Settings) -> dict[str, Any]:
    options = {
        "ssl_certfile": settings.ssl_certfile,
        "ssl_keyfile": settings.ssl_keyfile,
        "ssl_keyfile_password": settings.ssl_keyfile_password,
        "ssl_ca_certs": settings.ssl_ca_certs,
    }
    given: dict[str, Any] = {name: value for name, value in options.items() if value is not None}
    if given and settings.ssl_certfile is None:
        raise InvalidArgument(f"--{next(iter(given)).replace('_', '-')} needs --ssl-certfile")
    for name in ("ssl_certfile", "ssl_keyfile", "ssl_ca_certs"):
        if name in given:
            read_given(given[name])  # says which of them is not there
    if settings.ssl_ca_certs is not None:
        given["ssl_cert_reqs"] = ssl.CERT_REQUIRED
    return given


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, state: State, begun: float, address: str) -> None:
        super().__init__(config)
        self._state = state
        self._begun = begun
        self._address = address

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        seconds = round(time.monotonic() - self._begun, 3)
        log("ready", {"address": self._address, "models": list(self._state.by_name), "seconds": seconds})
        if not self._state.settings.api_keys and self._reachable():
            log("warning", {"message": "others may call: the server is not on a loopback address, and has no API keys"})

    def _reachable(self) -> bool:
        return self._address.startswith("http") and not any(f"//{host}" in self._address for host in ("127.", "[::1]"))

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._state.draining = True
        log("draining", {"calls": self._state.calls})
        await super().shutdown(sockets)
        if self.server_state.tasks:  # cancelled: their last words
            await asyncio.wait(self.server_state.tasks, timeout=1.0)
        for model in self._state.models:
            await model.llm.aclose()
        log("stopped", {})

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """A signal that ended the server well is not raised again when it has."""
        before = {number: signal.signal(number, self.handle_exit) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """The second signal does not wait for calls."""
        self._state.draining = True
        self.force_exit = self.should_exit
        self.should_exit = True


class _ToLog(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        log(record.levelname.lower(), {"message": record.getMessage().strip()})


def _take_over_logging() -> None:
    """uvicorn's warnings, in the form of our log and without tracebacks: they may hold what was asked."""
    for name in ("uvicorn.error", "uvicorn", "asyncio", "opentelemetry"):
        logger = logging.getLogger(name)
        logger.setLevel(logging.WARNING)
        logger.propagate = False
        logger.handlers[:] = [_ToLog()]
