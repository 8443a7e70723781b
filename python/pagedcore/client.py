"""A client that goes on after a broken connection: no token is lost, doubled or changed.

The same request has the same tokens on any replica of a model (one instruction set, one set of options). So when a
connection breaks, the client calls again, with the same id and with ``received_tokens``: how many tokens it has. The
server computes the answer anew and says what comes after those. Needs nothing but Python's own library.

>>> from pagedcore.client import RetryingClient
>>> client = RetryingClient("http://127.0.0.1:8000")
>>> for piece in client.completion({"prompt": "Once upon a time", "max_tokens": 200}):
...     print(piece.text, end="")
"""

from __future__ import annotations

import http.client
import json
import random
import ssl
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from .checks import check_int, check_real
from .errors import Aborted, InvalidArgument, Io

__all__ = ["Piece", "RetryingClient"]

_AGAIN = (408, 429, 500, 502, 503, 504)
"""Statuses after which a call is made again."""
_MOST_LINE = 16 << 20


@dataclass(frozen=True)
class Piece:
    """What is new of an answer."""

    text: str
    """Of a chat: its content."""
    token_ids: list[int] = field(default_factory=list)
    finish_reason: str | None = None
    choice: Mapping[str, Any] = field(default_factory=dict)
    """As the server sent it: a delta with tool calls and thoughts, log-probabilities."""


class RetryingClient:
    """Of one server, or of what stands before several replicas. Thread-safe: every call has connections of its own."""

    def __init__(
        self,
        url: str,
        *,
        api_key: str | None = None,
        retries: int = 20,
        first_wait: float = 0.1,
        longest_wait: float = 2.0,
        timeout: float = 60.0,
        context: ssl.SSLContext | None = None,
    ) -> None:
        """
        Args:
            url: Such as ``http://127.0.0.1:8000``.
            retries: Calls in a row that may fail without a token more.
            first_wait, longest_wait: Seconds before the next call: twice as long each time, less up to half at random.
            timeout: Seconds without a byte after which a connection counts as broken.
            context: Of https; None: Python's default.
        """
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise InvalidArgument(f"url={url!r} must be such as http://127.0.0.1:8000")
        check_int("retries", retries, 0, 1_000_000)
        check_real("first_wait", first_wait, 0, 3600)
        check_real("longest_wait", longest_wait, 0, 3600)
        check_real("timeout", timeout, 0, 86400, above_low=True)
        self._host, self._port, self._path = parts.hostname, parts.port, parts.path.rstrip("/")
        self._context = context or (ssl.create_default_context() if parts.scheme == "https" else None)
        self._key = api_key
        self._retries, self._first_wait, self._longest_wait = retries, first_wait, longest_wait
        self._timeout = timeout

    def completion(self, body: Mapping[str, Any], *, request_id: str | None = None) -> Iterator[Piece]:
        """The answer to a body of ``/v1/completions``, as it comes; :meth:`chat` likewise. One choice of one prompt.

        ``request_id``: the same in every call; None: drawn. A body that samples without a seed is given one.

        Raises InvalidArgument for what the server refuses (4xx), Io when `retries` calls in a row brought nothing,
        Aborted for an answer that the server itself ended with an error.
        """
        return self._pieces("/v1/completions", body, request_id)

    def chat(self, body: Mapping[str, Any], *, request_id: str | None = None) -> Iterator[Piece]:
        return self._pieces("/v1/chat/completions", body, request_id)

    def _pieces(self, path: str, body: Mapping[str, Any], request_id: str | None) -> Iterator[Piece]:
        wanted = {**body, "stream": True, "return_token_ids": True}
        wanted.setdefault("seed", random.SystemRandom().randrange(2**31))
        name = request_id or f"req_{uuid.uuid4().hex}"
        received, failed = 0, 0
        while True:
            wanted["received_tokens"] = received
            before = received
            try:
                for piece in self._attempt(path, wanted, name):
                    received += len(piece.token_ids)
                    yield piece
                    if piece.finish_reason is not None:
                        return
                why = "the answer ended early"
            except _Broken as broken:
                why = str(broken)
            failed = 0 if received > before else failed + 1
            if failed > self._retries:
                raise Io(f"{self._host}: {failed} calls of request {name} brought nothing: {why}")
            wait = min(self._first_wait * 2 ** min(failed, 30), self._longest_wait)
            time.sleep(wait * random.uniform(0.5, 1.0))

    def _attempt(self, path: str, body: Mapping[str, Any], name: str) -> Iterator[Piece]:
        """Pieces of one connection. Of each only what is whole: the server says the token ids of a piece behind what
        they spell."""
        connection = self._connection()
        try:
            try:
                connection.request("POST", self._path + path, json.dumps(body).encode(), self._headers(name))
                response = connection.getresponse()
                if response.status != 200:
                    self._refused(response.status, response.read(1 << 20))
                held: list[dict[str, Any]] = []
                while line := response.readline(_MOST_LINE):
                    if not line.endswith(b"\n"):
                        break  # cut off
                    if not line.startswith(b"data: ") or line.startswith(b"data: [DONE]"):
                        continue
                    event = json.loads(line[6:])
                    if "error" in event:
                        self._ended(event["error"])
                    for choice in event.get("choices", ()):
                        held.append(choice)
                        if choice.get("token_ids") or choice.get("finish_reason") is not None:
                            yield _piece(held)
                            held = []
            except (Aborted, InvalidArgument):  # the server's words, which are no fault of the connection
                raise
            except (OSError, http.client.HTTPException, ValueError) as error:
                raise _Broken(f"{type(error).__name__}: {error}") from None
        finally:
            connection.close()

    def _connection(self) -> http.client.HTTPConnection:
        if self._context is not None:
            return http.client.HTTPSConnection(self._host, self._port, timeout=self._timeout, context=self._context)
        return http.client.HTTPConnection(self._host, self._port, timeout=self._timeout)

    def _headers(self, name: str) -> dict[str, str]:
        headers = {"content-type": "application/json", "x-request-id": name}
        return headers if self._key is None else {**headers, "authorization": f"Bearer {self._key}"}

    def _refused(self, status: int, data: bytes) -> None:
        try:
            message = json.loads(data)["error"]["message"]
        except (ValueError, KeyError, TypeError):
            message = data[:200].decode(errors="replace")
        if status in _AGAIN:
            raise _Broken(f"{status}: {message}")
        raise InvalidArgument(f"{status}: {message}")

    def _ended(self, error: Mapping[str, Any]) -> None:
        """The server says in an answer that it ends: when it shuts down, another one goes on."""
        if error.get("code") in ("shutting_down", "engine_failed", "replica_lost"):
            raise _Broken(str(error.get("message")))
        raise Aborted(str(error.get("message")))


class _Broken(Exception):
    """The connection, not the request."""


def _piece(held: list[dict[str, Any]]) -> Piece:
    """From the choices of one piece of news. The last one has its tokens."""
    text = "".join(str(_content(choice)) for choice in held)
    deltas = [choice["delta"] for choice in held if choice.get("delta")]
    last = held[-1]
    whole = last if len(held) == 1 else {**last, "delta": _merged(deltas)} if deltas else last
    return Piece(text, list(last.get("token_ids") or ()), last.get("finish_reason"), whole)


def _content(choice: Mapping[str, Any]) -> str:
    if "delta" in choice:
        return choice["delta"].get("content") or ""
    return choice.get("text") or ""


def _merged(deltas: list[Mapping[str, Any]]) -> dict[str, Any]:
    whole: dict[str, Any] = {}
    for delta in deltas:
        for name, value in delta.items():
            if isinstance(value, str) and name != "role":
                whole[name] = whole.get(name, "") + value
            elif isinstance(value, list):
                whole[name] = [*whole.get(name, ()), *value]
            else:
                whole[name] = value
    return whole
