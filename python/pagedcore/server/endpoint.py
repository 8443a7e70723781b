"""What every endpoint does around its work: an id, the key, the body, errors in the caller's dialect, the log."""

from __future__ import annotations

import asyncio
import time
import traceback
import uuid
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from ..errors import Aborted
from .access import Keys
from .body import read_fields
from .call import Call
from .errors import ApiError, api_error, openai_error
from .fields import Fields
from .http import Json, Left
from .log import log, log_call
from .state import State

__all__ = ["Endpoint"]

_LEFT = 499  # in the log; nobody is there to be answered


class Endpoint:
    """An ASGI application for one path."""

    def __init__(
        self,
        state: State,
        work: Callable[[Call], Awaitable[Response]],
        *,
        path: str,
        body: bool = True,
        open_to_all: bool = False,
        quiet: bool = False,
        shape: Callable[[ApiError], dict[str, Any]] = openai_error,
    ) -> None:
        """``path``: of the route, for metrics and log. ``shape``: of errors. ``open_to_all``: no key is asked for.
        ``quiet``: calls are logged where they fail, since pages make them all the time."""
        self._state = state
        self._work = work
        self._path = path
        self._body = body
        self._quiet = quiet
        self._keys = Keys(() if open_to_all else state.settings.api_keys)
        self._shape = shape

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        call = Call(self._state, request, Fields({}))
        name = _request_id(request)
        status = _LEFT

        async def send_named(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [
                    *message["headers"],
                    (b"x-request-id", name.encode()),
                    (b"request-id", name.encode()),
                ]
            await send(message)

        self._state.calls += 1
        try:
            response = await self._answer(call, name)
            if response is not None:
                await response(scope, receive, send_named)
        finally:
            self._state.calls -= 1
            seconds = time.monotonic() - call.tally.begun
            self._state.answered[self._path, status] += 1
            if call.chosen is not None:
                call.chosen.metrics.take(call.tally, seconds)
            if self._state.tracing is not None:
                self._state.tracing.take(self._path, request.headers, status, call.tally, name)
            if self._state.settings.log_calls and not (self._quiet and status < 400):
                log_call(name, request.method, self._path, status, call.tally, seconds)

    async def _answer(self, call: Call, name: str) -> Response | None:
        """None: the client has left."""
        try:
            self._keys.check(call.request)
            if self._body:
                settings = self._state.settings
                call.fields = await read_fields(call.request, settings.max_body_size, settings.body_timeout)
            return await self._work(call)
        except Left:
            return None
        except asyncio.CancelledError:  # the server stops, and waits no longer
            if not self._state.draining:
                raise
            error = ApiError(503, "the server is shutting down", code="shutting_down", retry_after=5)
        except Exception as raised:
            error = api_error(raised)
            if error.status >= 500:
                _explain(raised, name)
        if error.status == 429 and error.retry_after is not None and call.chosen is not None:
            with suppress(Aborted):  # its engine has ended since: what the error says itself will do
                error.headers["retry-after"] = str(call.chosen.prediction.retry_after(call.chosen.llm.stats()))
        return Json(self._shape(error), error.status, error.headers)


def _request_id(request: Request) -> str:
    """The caller's, where it can stand in a header and in a log."""
    given = request.headers.get("x-request-id", "")
    return given if 0 < len(given) <= 128 and given.isascii() and given.isprintable() else f"req_{uuid.uuid4().hex}"


def _explain(raised: Exception, name: str) -> None:
    """Where it happened; of what was at hand nothing, but for errors of ours, which name no texts."""
    ours = isinstance(raised, ApiError)
    frames = [f"{f.filename}:{f.lineno} {f.name}" for f in traceback.extract_tb(raised.__traceback__)][-12:]
    log("error", {"request_id": name, "error": str(raised)[:500] if ours else type(raised).__name__, "at": frames})
