"""One replica: an engine, the server's application over it, and what it says of itself to routers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

from ..async_llm import AsyncLLM
from ..engine_options import engine_config
from ..routing.measure import Reporter
from ..server.access import read_keys
from ..server.app import application
from ..server.served import Served, ToServe
from ..server.settings import Settings
from ..server.state import State
from .config import RayConfig
from .hint import Hint

__all__ = ["Replica"]

_EVENTS = 65536  # of the prefix cache that wait for the next news
_MOST_WAITING = 64  # messages of an answer that nobody has taken yet


class Replica:
    """Ray makes it and calls it. API keys are those of PAGEDCORE_API_KEY."""

    def __init__(self, config: RayConfig) -> None:
        self._config = config
        options = {"cache_events": _EVENTS, **config.engine_options()}
        open_model = partial(AsyncLLM, config.model, progress=False, **options)
        served = Served.load(
            ToServe(
                open=open_model,
                names=config.names,
                tool_format=config.tool_format,
                chat_template=config.chat_template,
            )
        )
        self._llm = served.llm
        self._state = State([served], Settings(api_keys=read_keys(None), log_calls=False))
        self._app = application(self._state)
        self._reporter = Reporter(served.llm.engine, engine_config(options).max_sequences)
        self._reports = 0
        self._latest: dict[str, float] = {}
        self._reporting = asyncio.Lock()

    async def serve(
        self, scope: dict[str, Any], body: bytes, hint: Hint | None = None
    ) -> AsyncIterator[dict[str, Any]]:
        """Answers a call, given as ASGI has it, by ASGI's messages. Ends it when nobody takes them any more. ``hint``:
        was for the router."""
        messages: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue(_MOST_WAITING)
        given = False

        async def receive() -> dict[str, Any]:
            nonlocal given
            if not given:
                given = True
                return {"type": "http.request", "body": body, "more_body": False}
            await asyncio.Event().wait()  # whoever leaves ends the call
            raise AssertionError

        async def send(message: Any) -> None:
            await messages.put(message)

        async def answer() -> None:
            try:
                await self._app(dict(scope), receive, send)
            finally:
                await messages.put(None)

        answering = asyncio.ensure_future(answer())
        try:
            while (message := await messages.get()) is not None:
                yield message
            await answering
        finally:
            answering.cancel()

    async def check_health(self) -> None:
        """Raises Aborted where the engine has failed: Ray makes another replica then."""
        self._llm.stats()

    async def record_routing_stats(self) -> dict[str, Any]:
        """For routers (News), with a number that grows."""
        async with self._reporting:
            news = await asyncio.to_thread(self._reporter.news)
            self._reports += 1
        self._latest = {name: float(value) for name, value in news.load.to_dict().items()}
        return {"number": self._reports, "news": news.to_dict()}

    def record_autoscaling_stats(self) -> dict[str, float]:
        """The latest load, by the names of Load's fields."""
        return self._latest

    async def __del__(self) -> None:
        """Ray calls it when the calls that were there have ended, or time is up."""
        self._state.draining = True
        await self._llm.aclose()
