"""The outputs of one request as they come."""

from __future__ import annotations

from types import TracebackType

from .dispatch import Dispatcher, NotCopied
from .errors import InvalidArgument
from .outputs import RequestOutput
from .request import Request
from .sampling_params import SamplingParams

__all__ = ["Stream", "streamable"]


class Stream(NotCopied):
    """An iterator of :class:`RequestOutput` that each hold what is new in one sample. The request runs from the start,
    whether or not anybody iterates; closing, or dropping the last reference, ends it."""

    def __init__(self, dispatcher: Dispatcher, request: Request) -> None:
        self._closed = True  # until the request is there: __del__ runs even if submit() raises
        self._dispatcher = dispatcher
        self._request = request
        self._inbox = dispatcher.inbox()
        request.started(dispatcher.submit(request, self._inbox))
        self._closed = False

    @property
    def request_id(self) -> int:
        return self._request.id

    def __iter__(self) -> Stream:
        return self

    def __next__(self) -> RequestOutput:
        while not self._closed:
            try:
                news = self._dispatcher.next(self._inbox)
                delta = self._request.take(news)
            except BaseException:
                self._closed = True
                self._dispatcher.abort_and_drain([self._request.id], self._inbox)
                raise
            if self._request.finished:
                self._closed = True
                if not news.last:
                    self._dispatcher.abort([self._request.id])
            if delta is not None:
                return self._request.output([delta])
        raise StopIteration

    def close(self) -> None:
        """Ends the request. Idempotent."""
        if not self._closed:
            self._closed = True
            self._dispatcher.abort([self._request.id])

    def __enter__(self) -> Stream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()


def streamable(params: SamplingParams | None) -> SamplingParams | None:
    """The parameters, unless their outputs are known only when all samples have ended."""
    if isinstance(params, SamplingParams) and params.ranks:
        raise InvalidArgument(
            f"best_of={params.best_of} with n={params.n} cannot be streamed: which samples are the best is known "
            "when all have ended; use generate(), or best_of=None"
        )
    return params
