"""The requests of one call on their way: whole, or their news as they come."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any

from ..beam_search_params import BeamSearchParams
from ..outputs import RequestOutput
from ..prompts import Prompt
from ..sampling_params import SamplingParams
from .call import Call
from .errors import ApiError

__all__ = ["Running"]


class Running:
    """Iterate, inside ``async with``, over pairs of a prompt's place and its news; or await :meth:`outputs`. Whatever
    ends the block, or cancels :meth:`outputs`, ends the requests."""

    def __init__(
        self,
        call: Call,
        prompts: Sequence[Prompt],
        params: SamplingParams | BeamSearchParams,
        options: Mapping[str, Any],
    ) -> None:
        self._llm = call.llm
        self._tally = call.tally
        self._prompts = list(prompts)
        self._params = params
        self._options = {**options, **call.keywords()}
        self._streams: list[Any] = []
        self._pumps: list[asyncio.Task[None]] = []

    async def outputs(self) -> list[RequestOutput]:
        if isinstance(self._params, BeamSearchParams):
            found = await self._llm.beam_search(self._prompts, self._params, **self._options)
        else:
            found = await self._llm.generate(self._prompts, self._params, **self._options)
        for at, output in enumerate(found):
            self._tally.take(at, output)
        return list(found)

    async def __aenter__(self) -> Running:
        if isinstance(self._params, SamplingParams) and self._params.ranks:
            message = f"best_of={self._params.best_of} with n={self._params.n} cannot be streamed"
            raise ApiError(400, f"{message}: which samples are the best is known when all have ended", param="best_of")
        try:
            for prompt in self._prompts:
                self._streams.append(self._stream(prompt))
                await self._streams[-1]  # submits it, or raises what is wrong with it
        except BaseException:
            await self._close()
            raise
        return self

    def _stream(self, prompt: Prompt) -> Any:
        if isinstance(self._params, BeamSearchParams):
            return self._llm.stream_beam_search(prompt, self._params, **self._options)
        return self._llm.stream(prompt, self._params, **self._options)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._close()

    async def _close(self) -> None:
        for pump in self._pumps:
            pump.cancel()
        for pump in self._pumps:
            with suppress(asyncio.CancelledError):
                await pump
        for stream in self._streams:
            await stream.aclose()

    async def __aiter__(self) -> AsyncIterator[tuple[int, RequestOutput]]:
        if len(self._streams) == 1:
            async for output in self._streams[0]:
                self._tally.take(0, output)
                yield 0, output
            return
        news: asyncio.Queue[tuple[int, RequestOutput | Exception | None]] = asyncio.Queue(len(self._streams))
        self._pumps = [asyncio.ensure_future(_pump(at, stream, news)) for at, stream in enumerate(self._streams)]
        running = len(self._streams)
        while running:
            at, output = await news.get()
            if isinstance(output, Exception):
                raise output
            if output is None:
                running -= 1
            else:
                self._tally.take(at, output)
                yield at, output


async def _pump(at: int, stream: Any, news: asyncio.Queue[tuple[int, RequestOutput | Exception | None]]) -> None:
    try:
        async for output in stream:
            await news.put((at, output))
        await news.put((at, None))
    except Exception as error:
        await news.put((at, error))
