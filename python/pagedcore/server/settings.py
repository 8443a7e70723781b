"""What an operator says about a server."""

from __future__ import annotations

from dataclasses import dataclass, field

__all__ = ["EventSettings", "Settings"]


@dataclass(frozen=True, kw_only=True)
class _Socket:
    """Where it listens, and what clients may hold up. Times are seconds."""

    host: str = "127.0.0.1"
    port: int = 8000
    uds: str | None = None
    """A Unix socket, instead of host and port."""
    max_connections: int = 4096
    header_timeout: float = 30.0
    write_timeout: float = 60.0
    """In which a client reads nothing of what waits for it."""
    keep_alive: int = 75
    """For a connection between two calls."""
    drain_timeout: int = 30
    """From SIGTERM on, for the calls that are there."""
    ssl_certfile: str | None = None
    ssl_keyfile: str | None = None
    ssl_keyfile_password: str | None = field(default=None, repr=False)
    ssl_ca_certs: str | None = None


@dataclass(frozen=True, kw_only=True)
class Settings(_Socket):
    """Who may call, and within which bounds. Sizes are bytes."""

    api_keys: tuple[str, ...] = field(default=(), repr=False)
    """Any of them opens the endpoints; none: they are open."""
    cors_origins: tuple[str, ...] = ()
    """Of pages whose scripts may call; ``*``: any."""
    max_body_size: int = 8 << 20
    body_timeout: float = 60.0
    """For a body to come."""
    request_timeout: float | None = None
    """For an answer; None: any."""
    log_calls: bool = True
    page: bool = True
    """Whether there are the page at ``/`` and ``/snapshot``, which it shows."""
    otlp_traces_endpoint: str | None = None
    """Of a collector of OpenTelemetry; None: no traces."""
    kv_events: EventSettings | None = None
    """None: they are not published."""


@dataclass(frozen=True, kw_only=True)
class EventSettings:
    """Where news of the prefix cache is published."""

    endpoint: str
    """Of ZeroMQ, to bind: ``tcp://127.0.0.1:5557``, ``ipc:///run/kv``."""
    replay_endpoint: str | None = None
    """Where subscribers ask for what they missed; None: nowhere."""
    topic: str = ""
    buffer_steps: int = 10_000
    """Batches that are kept for replay, within 64 MiB."""
    medium: str = "GPU"
    """Where the blocks are."""
