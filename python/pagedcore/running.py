"""Requests of one call, run to their ends."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from .dispatch import Dispatcher
from .errors import InvalidArgument, OutOfMemory
from .outputs import RequestOutput
from .progress import Progress
from .request import Request

if TYPE_CHECKING:
    from ._core import Engine

__all__ = ["Feed", "run_all"]

_I = TypeVar("_I", contravariant=True)


class Submits(Protocol[_I]):
    """What requests are handed to, each for somebody's inbox."""

    def submit_all(self, requests: Sequence[Request], inbox: _I, *, every_token: bool = False) -> list[int]: ...

    @property
    def engine(self) -> Engine: ...

    def take_leftovers(self, inbox: _I) -> bool: ...


class Feed(Generic[_I]):
    """Submits the requests of one call: all at once, or, where ``request_memory`` does not hold them all, in order as
    those before them end. Whether each could run at all is checked before any does."""

    def __init__(self, dispatcher: Submits[_I], requests: Sequence[Request], inbox: _I, every_token: bool) -> None:
        self._dispatcher = dispatcher
        self._requests = requests
        self._inbox = inbox
        self._every_token = every_token
        self._submitted = 0
        self._ended = 0
        self._freed = 0  # requests that have ended since one was refused

    def submit(self, ended: int = 0) -> dict[int, Request]:
        """``ended``: how many more have ended. Returns those that run from now on by their ids. Raises OutOfMemory when
        not even one fits and none is left whose end could be waited for."""
        self._ended += ended
        self._freed += ended
        left = len(self._requests) - self._submitted
        running = self._submitted - self._ended
        if left == 0 or (self._submitted > 0 and running > 0 and self._freed * 8 < running):
            return {}  # each attempt costs as much as it offers
        most = left if self._submitted == 0 else min(left, max(self._freed, 1))
        attempts = 20  # of up to 0.1 s, for what others have left
        while True:
            offered = self._requests[self._submitted : self._submitted + most]
            try:
                numbers = self._dispatcher.submit_all(offered, self._inbox, every_token=self._every_token)
                break
            except OutOfMemory:
                if self._submitted == 0 and most == left and left > 1:
                    self._validate()
                if most == 1 and running > 0:
                    self._freed = 0
                    return {}
                if most == 1:
                    attempts -= 1
                    if attempts == 0 or not self._dispatcher.take_leftovers(self._inbox):
                        raise
                most = (most + 1) // 2
        self._submitted += most
        self._freed = 0
        for request, number in zip(offered, numbers, strict=True):
            request.started(number)
        return dict(zip(numbers, offered, strict=True))

    def _validate(self) -> None:
        """The checks of submission alone, of all."""
        for index, request in enumerate(self._requests):
            try:
                self._dispatcher.engine.validate(request.token_ids, request.native, request.constraint)
            except InvalidArgument as error:
                raise InvalidArgument(f"request {index}: {error}") from None


def run_all(dispatcher: Dispatcher, requests: Sequence[Request], progress: bool | None) -> list[RequestOutput]:
    """Their outputs, in order. The bar counts tokens; while nobody looks at one, the engine reports whole samples."""
    inbox = dispatcher.inbox()
    running: dict[int, Request] = {}
    with Progress(sum(request.most_tokens for request in requests), "tokens", enabled=progress) as bar:
        try:
            feed = Feed(dispatcher, requests, inbox, bar.enabled)
            running.update(feed.submit())
            while running:
                news = dispatcher.next(inbox)
                taker = running.get(news.request)
                if taker is None:
                    continue  # ended by a stop string before the engine knew
                delta = taker.take(news)
                if taker.finished:
                    del running[news.request]
                    if not news.last:
                        dispatcher.abort([news.request])
                    running.update(feed.submit(ended=1))
                bar.add(len(delta.token_ids) if delta else 0, less=taker.spared_tokens if taker.finished else 0)
        finally:
            if running:  # Ctrl-C, a closed engine, a refused request
                dispatcher.abort_and_drain(list(running), inbox)
    return [request.output() for request in requests]
