"""Answers: JSON, and streams of server-sent events whose headers wait for the first of them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any, Protocol, TypeVar

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

__all__ = ["Json", "Left", "Repeated", "answered", "encoded", "event", "in_thread_if", "unless_left"]

_T = TypeVar("_T")
_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode
_encode_ascii = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode


class Left(Exception):
    """The client has left: nobody reads an answer."""


def encoded(values: Any) -> bytes:
    try:
        return _encode(values).encode()
    except UnicodeEncodeError:  # half a surrogate pair, quoted from what was refused
        return _encode_ascii(values).encode()


def event(values: Any, name: str | None = None) -> bytes:
    """A server-sent event."""
    head = b"data: " if name is None else b"event: " + name.encode() + b"\ndata: "
    return head + encoded(values) + b"\n\n"


class Repeated:
    """Events that differ in one text: a stream has one for each token, and no other part of it is encoded again."""

    def __init__(self, made: bytes, name: str) -> None:
        """``made``: one in which the field of this name is an empty text."""
        self._name = f'"{name}":'.encode()
        self._before, self._after = made.split(self._name + b'""')

    def with_text(self, text: str) -> bytes:
        return b"".join((self._before, self._name, _encode(text).encode(), self._after))


class Json(Response):
    media_type = "application/json"

    def __init__(self, values: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(encoded(values), status, headers)


async def unless_left(request: Request, work: Awaitable[_T]) -> _T:
    """The result of the work, which is cancelled when the client leaves. Raises Left then."""
    task = asyncio.ensure_future(work)
    watch = asyncio.ensure_future(_until_left(request.receive))
    try:
        await asyncio.wait((task, watch), return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise Left
    finally:
        for one in (watch, task):
            await _cancelled(one)


async def in_thread_if(long: bool, work: Callable[[], _T]) -> _T:
    """What the work gives: in a thread if it takes long, since everybody else would wait."""
    return await asyncio.to_thread(work) if long else work()


async def _cancelled(task: asyncio.Future[Any]) -> None:
    if not task.done():
        task.cancel()
        with suppress(asyncio.CancelledError, Exception):
            await task


async def _until_left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


class Sse(Response):
    """Events as they come. ``events`` is closed when the client leaves, whatever it waits for: that ends its requests.
    What is raised before the first event is raised by :meth:`begun`, and has a status of its own."""

    media_type = "text/event-stream"

    def __init__(self, events: AsyncIterator[bytes], failed: Callable[[Exception], bytes]) -> None:
        """``failed``: what is sent when a stream that has begun ends in this error."""
        super().__init__(headers={"cache-control": "no-cache", "x-accel-buffering": "no"})
        del self.headers["content-length"]
        self._events = events
        self._failed = failed
        self._first = b""

    async def begun(self, request: Request) -> Sse:
        try:
            self._first = await unless_left(request, anext(self._events))
        except BaseException:
            await self._close()
            raise
        return self

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        writer = asyncio.ensure_future(self._write(send))
        watch = asyncio.ensure_future(_until_left(receive))
        try:
            await asyncio.wait((writer, watch), return_when=asyncio.FIRST_COMPLETED)
            if writer.done():
                writer.result()
        finally:
            for one in (watch, writer):
                await _cancelled(one)
            await self._close()

    async def _write(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        await send({"type": "http.response.body", "body": self._first, "more_body": True})
        try:
            async for chunk in self._events:
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
        except Exception as error:
            await send({"type": "http.response.body", "body": self._failed(error), "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _close(self) -> None:
        close = getattr(self._events, "aclose", None)
        if close is not None:
            await close()


class Asked(Protocol):
    """What a call asks for, in its dialect."""

    async def answer(self) -> dict[str, Any]: ...

    def events(self) -> AsyncIterator[bytes]: ...


async def answered(request: Request, asked: Asked, stream: bool, failed: Callable[[Exception], bytes]) -> Response:
    """Whole, or as it comes. ``failed``: as Sse takes it."""
    if stream:
        return await Sse(asked.events(), failed).begun(request)
    return Json(await unless_left(request, asked.answer()))
