"""``pagedcore top``: a server at work, in a terminal."""

from __future__ import annotations

import argparse
import http.client
import json
import os
import shutil
import socket
import ssl
import sys
from typing import Any
from urllib.parse import urlencode, urlsplit

from ..config_files import read_given
from ..errors import InvalidArgument, Io
from .common import Formatter, add_report_flags
from .screen import Picture, Terminal

__all__ = ["add_to"]

_MOST = 16 << 20  # bytes of an answer

_EPILOG = """\
examples:
  pagedcore top                                  the server at http://127.0.0.1:8000, until q or Ctrl-C
  pagedcore top https://llm.example --interval 5
  pagedcore top unix:/run/pagedcore.sock
  pagedcore top --once                           once, as text, for scripts"""


def add_to(commands: Any) -> None:
    parser: argparse.ArgumentParser = commands.add_parser(
        "top",
        help="shows what a server is doing",
        description="Shows throughput, the KV memory, steps and requests of a server, in a terminal.",
        epilog=_EPILOG,
        formatter_class=Formatter,
    )
    parser.add_argument("url", nargs="?", default="http://127.0.0.1:8000", metavar="URL", help="of the server")
    parser.add_argument("--once", action="store_true", help="print it once, and end")
    parser.add_argument("--interval", type=float, default=1.0, metavar="X", help="seconds between two (default: 1)")
    parser.add_argument(
        "--api-key-file", metavar="PATH", help="the first key in it is sent (default: PAGEDCORE_API_KEY's first)"
    )
    parser.add_argument("--model", default="", metavar="NAME", help="of a server with several (default: its first)")
    parser.add_argument("--ssl-ca-certs", metavar="PATH", help="certificates to trust, instead of the system's")
    add_report_flags(parser)
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    if not 0.1 <= arguments.interval <= 3600:
        raise InvalidArgument(f"--interval {arguments.interval:g} must be in [0.1, 3600] seconds")
    server = _Server(arguments.url, arguments.model, _key(arguments.api_key_file), arguments.ssl_ca_certs)
    before = server.snapshot()
    if arguments.once or not sys.stdout.isatty():
        size = shutil.get_terminal_size((100, 50))
        print("\n".join(Picture(before, None, server.name).lines(size.columns, None)))
        return 0
    with Terminal() as terminal:
        now: dict[str, Any] | None = before
        trouble = ""
        while True:
            terminal.show(Picture(now or before, before, server.name, trouble))
            if terminal.ended_within(arguments.interval, Picture(now or before, before, server.name, trouble)):
                return 0
            before = now or before
            try:
                now, trouble = server.snapshot(), ""
            except Io as error:
                now, trouble = None, str(error)


def _key(file: str | None) -> str:
    text = os.environ.get("PAGEDCORE_API_KEY", "").replace(",", "\n") if file is None else read_given(file)
    keys = [line.strip() for line in text.splitlines()]
    return next((key for key in keys if key and not key.startswith("#")), "")


class _Server:
    """Calls ``/snapshot``."""

    def __init__(self, url: str, model: str, key: str, certificates: str | None) -> None:
        try:
            parts = urlsplit(url if "://" in url or url.startswith("unix:") else "http://" + url)
            wrong = not (parts.hostname if parts.scheme in ("http", "https") else parts.scheme == "unix" and parts.path)
            self._port = parts.port
        except ValueError:
            wrong = True
        if wrong:
            raise InvalidArgument(f"{url!r} is no address such as http://127.0.0.1:8000 or unix:/run/pagedcore.sock")
        self.name, self._model = url, model
        self._parts = parts
        self._headers = {"authorization": f"Bearer {key}"} if key else {}
        self._tls = None
        if parts.scheme == "https":
            if certificates is not None:
                read_given(certificates)  # says when it is not there
            try:
                self._tls = ssl.create_default_context(cafile=certificates)
            except ssl.SSLError as error:
                raise InvalidArgument(f"{certificates}: holds no certificates: {error}") from None
        elif certificates is not None:
            raise InvalidArgument(f"--ssl-ca-certs has no effect: {url} is not of https")

    def snapshot(self) -> dict[str, Any]:
        """Raises Io when the server cannot be reached, and when it answers something else."""
        connection = self._connection()
        path = self._parts.path.rstrip("/") if self._parts.scheme != "unix" else ""
        try:
            query = urlencode({"model": self._model}) if self._model else ""
            connection.request("GET", f"{path}/snapshot?{query}", headers=self._headers)
            answer = connection.getresponse()
            body = answer.read(_MOST)
        except (OSError, http.client.HTTPException) as error:
            raise Io(f"{self.name}: cannot be reached: {getattr(error, 'strerror', None) or error}") from None
        finally:
            connection.close()
        if answer.status == 401:
            raise Io(f"{self.name}: asks for an API key: --api-key-file or PAGEDCORE_API_KEY")
        if answer.status == 404 and self._model and b"model_not_found" in body:
            raise Io(f"{self.name}: serves no model {self._model!r}")
        if answer.status == 404:
            raise Io(f"{self.name}: has no /snapshot: it is no pagedcore server, or was started with --no-page")
        if answer.status != 200:
            raise Io(f"{self.name}: answers with status {answer.status}")
        try:
            found = json.loads(body)
            if isinstance(found, dict) and {"kv", "stats", "requests", "steps", "tables"} <= found.keys():
                return found
        except ValueError:
            pass
        raise Io(f"{self.name}: answers, but is no pagedcore server")

    def _connection(self) -> http.client.HTTPConnection:
        if self._parts.scheme == "unix":
            return _UnixConnection(self._parts.path)
        host = self._parts.hostname or ""
        if self._tls is not None:
            return http.client.HTTPSConnection(host, self._port, timeout=30, context=self._tls)
        return http.client.HTTPConnection(host, self._port, timeout=30)


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=30)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)
