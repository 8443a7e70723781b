"""The socket on which a server listens."""

from __future__ import annotations

import errno
import os
import socket
import stat
from contextlib import suppress

from ..errors import InvalidArgument, Io

__all__ = ["address_of", "bound_socket", "remove_socket_file", "remove_stale"]

_BACKLOG = 2048


def bound_socket(host: str, port: int, uds: str | None) -> socket.socket:
    """A TCP socket that is bound, so that a port in use is known before a model is loaded, and that nobody reaches yet;
    or a Unix socket, which listens: clients wait in its queue until the server is ready. Raises Io where it cannot be
    had."""
    return _bound_file(uds) if uds is not None else _bound_port(host, port)


def address_of(bound: socket.socket, *, tls: bool) -> str:
    if bound.family == socket.AF_UNIX:
        return f"unix:{bound.getsockname()}"
    host, port = bound.getsockname()[:2]
    return f"{'https' if tls else 'http'}://{f'[{host}]' if ':' in host else host}:{port}"


def _bound_port(host: str, port: int) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except (OSError, UnicodeError) as error:
        raise InvalidArgument(f"--host {host}: there is no such address: {error}") from None
    bound = socket.socket(family, kind, protocol)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
    except OSError as error:
        bound.close()
        if error.errno == errno.EADDRINUSE:
            raise Io(f"port {port} of {host} is in use: another server listens there; choose another --port") from None
        raise Io(f"cannot listen on port {port} of {host}: {error.strerror}") from None
    return bound


def _bound_file(path: str) -> socket.socket:
    remove_stale(path)
    bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o117)  # for its user and group: whoever may connect may call
    try:
        bound.bind(path)
        bound.listen(_BACKLOG)
    except OSError as error:
        bound.close()
        raise Io(f"{path}: cannot be listened on: {error.strerror or error}") from None
    finally:
        os.umask(before)
    return bound


def remove_stale(path: str) -> None:
    """Removes what a server that is gone has left. Raises Io where one is there, or anything else."""
    try:
        mode = os.lstat(path).st_mode
    except OSError:
        return
    if not stat.S_ISSOCK(mode):
        raise Io(f"{path}: exists, and is no socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            with suppress(FileNotFoundError):
                os.unlink(path)
            return
        except OSError as error:
            raise Io(f"{path}: cannot be listened on: {error.strerror or error}") from None
    raise Io(f"{path}: another server listens there; choose another path")


def remove_socket_file(bound: socket.socket, path: str | None) -> None:
    """When the server ends; another one's file is left alone."""
    if path is not None:
        with suppress(OSError):
            bound.close()
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe, suppress(OSError):
            try:
                probe.connect(path)
            except ConnectionRefusedError:
                os.unlink(path)
