"""What an operator says about a server."""

from __future__ import annotations

from dataclasses import dataclass, field

__all__ = ["Settings"]


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
