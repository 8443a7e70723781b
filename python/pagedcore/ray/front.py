"""What clients talk to: reads a call, has its router choose a replica, and passes the answer on.

Ray's own proxy chooses the process that gets a call before it has read the body; so what is chosen by the prompt is
chosen here.
"""

from __future__ import annotations

import asyncio
from typing import Any

from ray.exceptions import RayError
from ray.serve.exceptions import BackPressureError, RayServeException
from starlette.requests import Request

from ..server.body import read_body
from ..server.errors import ApiError, openai_error
from ..server.http import Json
from ..server.settings import Settings
from .config import RayConfig
from .hint import Hint
from .prompts import Prompts

__all__ = ["Front"]

_PASSED_ON = ("type", "asgi", "http_version", "method", "scheme", "path", "raw_path", "query_string", "root_path")
_MORE = ("headers", "client", "server")
_LAST_WORDS = 0.05
_IN_A_THREAD = 16384  # bytes of a body, from which on others are served while it is tokenized


class Front:
    """An ASGI application. ``replicas``: Ray's handle of them."""

    def __init__(self, config: RayConfig, replicas: Any) -> None:
        self._prompts = Prompts(config)
        self._replicas = replicas.options(stream=True)
        self._settings = Settings()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        begun = False

        async def passed(message: Any) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            body = await read_body(Request(scope, receive), self._settings.max_body_size, self._settings.body_timeout)
            await self._serve(scope, body, receive, passed)
        except ApiError as error:
            await Json(openai_error(error), error.status, error.headers)(scope, receive, send)
        except (RayError, RayServeException) as error:
            if begun:
                raise  # the connection breaks: whoever retries goes on (pagedcore.client)
            full = isinstance(error, BackPressureError)
            refused = ApiError(503, "no replica can take the call now", code="overloaded" if full else "replica_lost")
            await Json(openai_error(refused), 503, {"retry-after": "1"})(scope, receive, send)

    async def _serve(self, scope: Any, body: bytes, receive: Any, send: Any) -> None:
        path = scope["path"]
        hint = Hint(1)
        if scope["method"] == "POST":
            if len(body) > _IN_A_THREAD:
                hint = await asyncio.to_thread(self._prompts.hint, path, body)
            else:
                hint = self._prompts.hint(path, body)
        told = {name: scope[name] for name in (*_PASSED_ON, *_MORE) if scope.get(name) is not None}
        answer = self._replicas.serve.remote(told, body, hint=hint)
        leaving = asyncio.ensure_future(_left(receive))
        passing = asyncio.ensure_future(_pass_on(answer, send))
        try:
            await asyncio.wait((leaving, passing), return_when=asyncio.FIRST_COMPLETED)
            if not passing.done():
                await asyncio.wait(
                    (passing,), timeout=_LAST_WORDS
                )  # servers say "disconnect" behind an answer's end too
            if passing.done():
                passing.result()
        finally:
            leaving.cancel()
            if not passing.done():
                answer.cancel()
                passing.cancel()
            await asyncio.gather(leaving, passing, return_exceptions=True)


async def _pass_on(answer: Any, send: Any) -> None:
    async for message in answer:
        await send(message)


async def _left(receive: Any) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
