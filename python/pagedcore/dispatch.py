"""Several Python threads on one engine: whoever waits drains for all, and routes each output to the call it is for."""

from __future__ import annotations

import os
import queue
import threading
from collections import deque
from collections.abc import Iterable, Sequence
from itertools import chain, repeat
from typing import TYPE_CHECKING

from .errors import Aborted

if TYPE_CHECKING:
    from ._core import Engine, EngineOutput
    from .request import Request

__all__ = ["Dispatcher", "Inbox"]

_SLICE = 0.1  # seconds in the engine before Python may react to a signal or a changed drainer


class Inbox:
    """The outputs of one call's requests. None wakes the caller up, so that it drains."""

    def __init__(self) -> None:
        self.queue: queue.SimpleQueue[EngineOutput | None] = queue.SimpleQueue()


class Dispatcher:
    """No thread of its own. Ctrl-C may strike between any two bytecodes of the main thread, which may be draining for
    others. An output is therefore moved from the engine to its inbox by single C calls, and is lost at no point; and
    who drains is an entry in a dictionary, not a lock: a thread that was struck with it in hand finds it its own."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._pid = os.getpid()
        self._registering = threading.Lock()
        self._inboxes: dict[int, Inbox] = {}
        self._waiting: dict[int, Inbox] = {}  # of calls that are inside _step()
        self._drainer: dict[None, int] = {}  # at most one entry: the thread that drains
        self._arrived: deque[EngineOutput] = deque()  # from the engine, not routed yet; touched by the drainer only

    def submit(self, request: Request, inbox: Inbox) -> int:
        """Returns the request's id. All its news come to `inbox`, token by token, until one says `last`."""
        self._check_process()
        with self._registering:
            number = self._engine.submit(request.token_ids, request.native, request.options, stream=True)
            self._inboxes[number] = inbox
        return number

    def submit_all(self, requests: Sequence[Request], inbox: Inbox, *, every_token: bool = False) -> list[int]:
        """The same for several, without their news on the way where nobody looks at them. When the engine refuses one
        of them, none is submitted."""
        self._check_process()
        with self._registering:
            numbers = self._engine.submit_all(
                [request.token_ids for request in requests],
                [request.native for request in requests],
                [request.options for request in requests],
                [every_token or request.needs_every_token for request in requests],
            )
            self._inboxes.update(dict.fromkeys(numbers, inbox))
        return numbers

    def register_prefix(self, name: str, tokens: Sequence[int], salt: int, inbox: Inbox) -> int:
        """Returns the id of the request that computes it, whose one output comes to `inbox`."""
        self._check_process()
        with self._registering:
            request = self._engine.register_prefix(name, tokens, salt)
            self._inboxes[request] = inbox
        return request

    def abort(self, requests: Iterable[int]) -> None:
        """Ends requests; what still comes from them is dropped with their inbox. Takes no lock and does not wait: it
        may run in a finaliser, at any point of any thread."""
        if os.getpid() != self._pid:
            return
        for request in requests:
            try:
                self._engine.abort(request)
            except Aborted:  # closed: there is nothing left to end
                return

    def abort_and_drain(self, requests: Sequence[int], inbox: Inbox) -> None:
        """Ends requests and waits until the engine has let go of them."""
        self.abort(requests)
        while any(request in self._inboxes for request in requests):
            try:
                if not self._engine.busy and not self._arrived:
                    return
                self._step(inbox)
            except Aborted:
                return

    def next(self, inbox: Inbox) -> EngineOutput:
        """The next output for this inbox. Raises Aborted when the engine is closed or failed."""
        self._check_process()
        while True:
            try:
                output = inbox.queue.get_nowait()
            except queue.Empty:
                output = self._step(inbox)
            if output is not None:
                return output

    def _step(self, inbox: Inbox) -> EngineOutput | None:
        """Drains once, or waits a slice for the thread that drains now."""
        me = threading.get_ident()
        try:
            self._waiting[id(inbox)] = inbox  # before the attempt: whoever drains now will see it
            if self._drainer.setdefault(None, me) == me:
                self._drain()
                return None
            return inbox.queue.get(timeout=_SLICE)
        except queue.Empty:
            return None
        finally:
            self._waiting.pop(id(inbox), None)
            if self._drainer.get(None) == me:
                self._drainer.pop(None, None)
                self._wake_another(inbox)

    def _drain(self) -> None:
        self._arrived.extend(chain.from_iterable(map(self._engine.wait, repeat(_SLICE, 1))))
        while self._arrived:
            output = self._arrived[0]
            inbox = self._inbox_of(output.request)
            deque(map(inbox.queue.put, map(deque.popleft, repeat(self._arrived, 1))), maxlen=0)
            if output.last:
                self._inboxes.pop(output.request, None)

    def _inbox_of(self, request: int) -> Inbox:
        inbox = self._inboxes.get(request)
        if inbox is None:
            with self._registering:  # its submit() may not have returned yet
                inbox = self._inboxes.get(request)
        if inbox is None:  # Ctrl-C between the engine's submit() and ours: nobody knows the request
            self.abort([request])
            inbox = Inbox()
        return inbox

    def _wake_another(self, inbox: Inbox) -> None:
        """This thread may be busy with its outputs for a while: let another one drain meanwhile."""
        for other in list(self._waiting.values()):
            if other is not inbox:
                other.queue.put(None)
                return

    def _check_process(self) -> None:
        if os.getpid() != self._pid:
            raise Aborted(
                f"this LLM belongs to process {self._pid}, and this is its child {os.getpid()}: an engine does not "
                "survive fork(); create the LLM in the child"
            )
