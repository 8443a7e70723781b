"""An event loop's share of an engine: a queue of its own, whose descriptor wakes the loop once for all news of a step.

The loop alone holds it, as the callback of its reader: when the loop is closed or goes, so does the queue, and with it
every request whose outputs would come there. It holds those who wait by weak references only: what nobody holds any
more ends its own requests.
"""

from __future__ import annotations

import asyncio
import os
import weakref
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Protocol

from .errors import Aborted
from .request import native_arguments

if TYPE_CHECKING:
    from ._core import Engine, EngineOutput
    from .request import Request

__all__ = ["LoopQueue", "Taker"]


class Taker(Protocol):
    """Whoever outputs are for. Called on the event loop's thread."""

    def take(self, output: EngineOutput) -> None: ...

    def fail(self, error: BaseException) -> None:
        """Nothing more will come."""


class LoopQueue:
    """Used on its loop's thread, but for :meth:`leave` and its end."""

    def __init__(self, engine: Engine, loop: asyncio.AbstractEventLoop) -> None:
        self._fd = -1  # __del__ may find a half-made object
        self.engine = engine
        self._loop = weakref.ref(loop)
        self._takers: dict[int, weakref.ref[Taker]] = {}
        self._delivering = False
        self.number = engine.open_queue()
        # A descriptor of our own: the engine's may be closed, and its number given to somebody, while it is watched.
        self._fd = os.dup(engine.output_fd(self.number))
        os.set_inheritable(self._fd, False)
        loop.add_reader(self._fd, self)

    def submit_all(self, requests: Sequence[Request], inbox: Taker, *, every_token: bool = False) -> list[int]:
        """Their ids. When the engine refuses one of them, none is submitted."""
        numbers = self.engine.submit_all(*native_arguments(requests, every_token, self.number))
        ref = weakref.ref(inbox)
        self._takers.update(dict.fromkeys(numbers, ref))
        return numbers

    def take_leftovers(self, inbox: Taker) -> bool:
        """Takes outputs that are there: they hold memory until then. False when there are none, and while others are
        being handed out, which come first."""
        return not self._delivering and self() > 0

    def register_prefix(self, name: str, tokens: Sequence[int], owner: tuple[int, bool], taker: Taker) -> int:
        """``owner``: the salt, and whether it is shared. Returns the id of the request that computes it."""
        number = self.engine.register_prefix(name, tokens, *owner, self.number)
        self._takers[number] = weakref.ref(taker)
        return number

    def __call__(self) -> int:
        """Hands out all that has come; returns how much that was."""
        try:
            outputs = self.engine.wait(0.0, self.number)
        except Aborted as error:
            self._end(str(error))
            return 0
        self._delivering = True
        for output in outputs:
            ref = self._takers.pop(output.request, None) if output.last else self._takers.get(output.request)
            taker = ref() if ref is not None else None
            if taker is None:
                continue  # it has gone, and ended its requests
            try:
                taker.take(output)
            except Exception as error:
                taker.fail(error)
        self._delivering = False
        return len(outputs)

    def is_of(self, loop: asyncio.AbstractEventLoop) -> bool:
        return self._loop() is loop

    def _end(self, why: str) -> None:
        self._unwatch()
        takers = {id(taker): taker for ref in self._takers.values() if (taker := ref()) is not None}
        self._takers.clear()
        for taker in takers.values():
            taker.fail(Aborted(why))

    def _unwatch(self) -> None:
        loop = self._loop()
        if loop is not None and not loop.is_closed() and self._fd >= 0:
            loop.remove_reader(self._fd)

    def leave(self) -> None:
        """Has the loop look at a closed engine at once, if this is its thread; else it does so when it comes to it."""
        loop = self._loop()
        with suppress(RuntimeError):  # none runs in this thread
            if asyncio.get_running_loop() is loop:
                self()

    def __del__(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        number = getattr(self, "number", None)
        if number is not None:
            self.engine.close_queue(number)
