"""Requests as coroutines see them: one whose outputs come as they are made, and several whose ends are awaited."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Literal, cast

from .arguments import shown
from .dispatch import NotCopied
from .errors import Aborted, InvalidArgument
from .loop_queue import LoopQueue
from .outputs import CompletionOutput, RequestOutput
from .request import Request
from .running import Feed

if TYPE_CHECKING:
    from ._core import Engine, EngineOutput

__all__ = ["AsyncStream", "Batch", "OutputKind", "PrefixTaker"]

OutputKind = Literal["delta", "cumulative", "final"]
_KINDS = ("delta", "cumulative", "final")


class _Taker(NotCopied):
    """Ends its requests when it goes."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._open: dict[int, Request] = {}
        self._waiter: asyncio.Future[None] | None = None
        self._error: BaseException | None = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def _news(self) -> None:
        """Returns when there may be some. The future is no more than this object's: a task that nobody holds goes, and
        the requests with it."""
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def fail(self, error: BaseException) -> None:
        self._error = error
        self._end()
        self._wake()

    def _end(self) -> None:
        """Takes no lock and does not wait: it may run in a finaliser, at any point of any thread."""
        open_requests, self._open = self._open, {}
        for number in open_requests:
            with suppress(Aborted):  # closed, or a child of fork(): there is nothing left to end
                self._engine.abort(number)

    def __del__(self) -> None:
        if getattr(self, "_open", None):
            self._end()


class Batch(_Taker):
    """Several requests, run to their ends."""

    def __init__(self, engine: Engine, queue: LoopQueue, requests: Sequence[Request]) -> None:
        super().__init__(engine)
        self._requests = requests
        loop_queue = cast(LoopQueue, weakref.proxy(queue))  # the loop alone holds it
        self._feed = Feed(loop_queue, requests, self, every_token=False)

    def take(self, output: EngineOutput) -> None:
        request = self._open.get(output.request)
        if request is None:
            return  # ended by a stop string before the engine knew
        request.take(output)
        if not request.finished:
            return
        del self._open[output.request]
        if not output.last:
            self._engine.abort(output.request)
        self._open.update(self._feed.submit(ended=1))
        if not self._open:
            self._wake()

    async def outputs(self) -> list[RequestOutput]:
        """Cancelling it ends them."""
        self._open.update(self._feed.submit())
        try:
            while self._open:
                await self._news()
            if self._error is not None:
                raise self._error
        finally:
            self._end()
        return [request.output() for request in self._requests]


class PrefixTaker(_Taker):
    """Waits for the one output of a request that computes a prefix."""

    output: EngineOutput | None = None

    def take(self, output: EngineOutput) -> None:
        self.output = output
        self._wake()

    async def wait(self) -> EngineOutput:
        while self.output is None and self._error is None:
            await self._news()
        if self._error is not None:
            raise self._error
        return cast("EngineOutput", self.output)


class AsyncStream(_Taker):
    """An asynchronous iterator of :class:`RequestOutput`: with "delta" each holds what is new in one sample, with
    "cumulative" all samples so far, with "final" there is one, at the end. News that nobody has read is joined, so that
    a slow reader finds fewer and larger ones.

    The request is submitted when iteration begins, or by ``stream = await llm.stream(...)``, which raises what is wrong
    with it. :meth:`aclose`, leaving ``async with``, cancelling the task that iterates, and dropping the last reference
    end it within a step. One task iterates at a time, on one event loop.
    """

    def __init__(
        self,
        engine: Engine,
        prepare: Callable[[], Awaitable[Request]],
        queue: Callable[[], LoopQueue],
        kind: OutputKind,
    ) -> None:
        super().__init__(engine)
        if kind not in _KINDS:
            raise InvalidArgument(f"output_kind={shown(kind)} must be one of {', '.join(map(repr, _KINDS))}")
        self._prepare = prepare
        self._queue_of = queue
        self._kind = kind
        self._request: Request | None = None
        self._loop_queue: weakref.ref[LoopQueue] | None = None
        self._pending: dict[int, CompletionOutput] = {}  # what is new in each sample, those with older news first
        self._closed = False
        self._busy = False

    @property
    def request_id(self) -> int | str | None:
        """None until the request was submitted."""
        return None if self._request is None else self._request.name

    def take(self, output: EngineOutput) -> None:
        request = self._request
        if request is None or output.request not in self._open:
            return
        delta = request.take(output)
        if delta is not None:
            known = self._pending.get(delta.index)
            if known is None:
                self._pending[delta.index] = delta
            else:
                known.append(delta)
        if request.finished:
            del self._open[output.request]
            if not output.last:
                self._engine.abort(output.request)
        if request.finished or (self._pending and self._kind != "final"):
            self._wake()

    def __await__(self):  # type: ignore[no-untyped-def]  # a generator of the event loop's
        return self._started().__await__()

    async def _started(self) -> AsyncStream:
        if self._request is None and not self._closed:
            self._enter()
            try:
                request = await self._prepare()
                if not self._closed:
                    self._submit(request)
            except BaseException:
                self._closed = True
                raise
            finally:
                self._busy = False
        return self

    def _submit(self, request: Request) -> None:
        queue = self._queue_of()
        self._loop_queue = weakref.ref(queue)
        (number,) = queue.submit_all([request], self, every_token=self._kind != "final")
        request.started(number)
        self._open[number] = request
        self._request = request

    def _enter(self) -> None:
        if self._busy:
            raise RuntimeError("this stream is being read by another task: one reads at a time")
        self._busy = True

    def __aiter__(self) -> AsyncStream:
        return self

    async def __anext__(self) -> RequestOutput:
        if self._request is None:
            await self._started()
        self._enter()
        try:
            while not self._ready():
                if self._closed or self._request is None:
                    raise StopAsyncIteration
                self._check_loop()
                await self._news()
        except BaseException:
            self._close()
            raise
        finally:
            self._busy = False
        return self._next()

    def _ready(self) -> bool:
        """Whether there is something to read. Raises what has ended the stream, once all before that was read."""
        request = self._request
        if request is not None and self._pending and (self._kind != "final" or request.finished):
            return True
        if self._error is not None:
            error, self._error, self._closed = self._error, None, True
            raise error
        if request is not None and request.finished:
            self._closed = True
        return False

    def _check_loop(self) -> None:
        queue = self._loop_queue() if self._loop_queue is not None else None
        if queue is None:
            raise Aborted("the event loop on which this stream began is closed, and its request was ended")
        if not queue.is_of(asyncio.get_running_loop()):
            raise InvalidArgument("a stream is read on the event loop on which it began")

    def _next(self) -> RequestOutput:
        request = cast(Request, self._request)
        if self._kind == "delta":
            output = request.output([self._pending.pop(next(iter(self._pending)))])
        else:
            self._pending.clear()
            output = request.output()
            output.outputs = [sample.copy() for sample in output.outputs]
        return replace(output, finished=output.finished and not self._pending)

    def _close(self) -> None:
        self._closed = True
        self._pending.clear()
        self._end()

    async def aclose(self) -> None:
        """Ends the request. Idempotent."""
        self._close()
        self._wake()

    async def __aenter__(self) -> AsyncStream:
        return await self._started()

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()
