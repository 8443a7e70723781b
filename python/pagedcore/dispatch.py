"""Several Python threads on one engine: whoever waits drains for all, and routes each output to the call it is for."""

from __future__ import annotations

import os
import queue
import threading
import weakref
from collections import deque
from collections.abc import Iterable, Sequence
from contextlib import suppress
from itertools import chain, repeat
from typing import TYPE_CHECKING, NoReturn

from .errors import Aborted, InvalidArgument
from .request import native_arguments

if TYPE_CHECKING:
    from ._core import Engine, EngineOutput
    from .request import Request

__all__ = ["Dispatcher", "Inbox", "NotCopied"]

_SLICE = 0.1  # seconds in the engine before Python may react to a signal or a changed drainer


class NotCopied:
    """What stands for something that runs. A copy would end it when the copy goes."""

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError(
            f"a {type(self).__name__} cannot be copied or pickled: it stands for an engine; make another one"
        )


class Inbox:
    """The outputs of one call's requests. None wakes the caller up, so that it drains. When it goes, the requests that
    it was for are ended, and a prefix that was not there yet is released: whatever an interrupt left undone."""

    __slots__ = ("__weakref__", "queue", "ref", "requests")

    def __init__(self, gone: deque[weakref.ref[Inbox]]) -> None:
        self.queue: queue.SimpleQueue[EngineOutput | None] = queue.SimpleQueue()
        self.requests: list[int] = []  # outlives it, in Dispatcher._owned
        self.ref = weakref.ref(self, gone.append)  # a C function: no interrupt comes in between
        hash(self.ref)  # has to be known while it lives


class Dispatcher(NotCopied):
    """No thread of its own. Ctrl-C may strike between any two bytecodes of the main thread, which may be draining for
    others. An output is therefore moved from the engine to its inbox by single C calls, and is lost at no point, and so
    are the ids of what the engine has accepted; who drains is an entry in a dictionary, not a lock: a thread that was
    struck with it in hand finds it its own."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._pid = os.getpid()
        self._registering = threading.Lock()
        self._gone: deque[weakref.ref[Inbox]] = deque()  # inboxes that nobody holds any more
        self._owned: dict[weakref.ref[Inbox], list[int]] = {}
        self._prefixes: dict[weakref.ref[Inbox], tuple[str, int]] = {}  # names that are being registered
        self._inboxes: dict[int, weakref.ref[Inbox]] = {}
        self._waiting: dict[int, weakref.ref[Inbox]] = {}  # of calls that are inside _step(), by thread
        self._drainer: dict[None, int] = {}  # at most one entry: the thread that drains
        self._arrived: deque[EngineOutput] = deque()  # from the engine, not routed yet; touched by the drainer only

    def inbox(self) -> Inbox:
        return Inbox(self._gone)

    def submit(self, request: Request, inbox: Inbox) -> int:
        """Returns the request's id. All its news come to `inbox`, token by token, until one says `last`."""
        arguments = (request.token_ids, request.native, request.options, True, 0, request.constraint)
        (number,) = self._accept(inbox, map(self.engine.submit, *([argument] for argument in arguments)))
        return number

    def submit_all(self, requests: Sequence[Request], inbox: Inbox, *, every_token: bool = False) -> list[int]:
        """The same for several, without their news on the way where nobody looks at them. When the engine refuses one
        of them, none is submitted."""
        arguments = native_arguments(requests, every_token)
        accepted = map(self.engine.submit_all, *([argument] for argument in arguments))
        return self._accept(inbox, chain.from_iterable(accepted))

    def register_prefix(self, name: str, tokens: Sequence[int], salt: int, shared: bool, inbox: Inbox) -> int:
        """Returns the id of the request that computes it, whose one output comes to `inbox`. Unless it is kept() before
        its inbox goes, it is released."""
        self._prefixes[inbox.ref] = (name, salt)
        arguments = (name, tokens, salt, shared)
        (request,) = self._accept(inbox, map(self.engine.register_prefix, *([argument] for argument in arguments)))
        return request

    def kept(self, inbox: Inbox) -> None:
        self._prefixes.pop(inbox.ref, None)

    def _accept(self, inbox: Inbox, numbers: Iterable[int]) -> list[int]:
        """`numbers`: an iterator in C that calls the engine when it is asked."""
        self._check_process()
        self._sweep()
        self._owned[inbox.ref] = inbox.requests
        with self._registering:
            before = len(inbox.requests)
            inbox.requests.extend(numbers)
            accepted = inbox.requests[before:]
            self._inboxes.update(dict.fromkeys(accepted, inbox.ref))
        return accepted

    def _sweep(self) -> None:
        """Ends what inboxes that are gone were for. Every step may be interrupted and done again."""
        while self._gone:
            ref = self._gone[0]
            owned = self._owned.get(ref, [])
            if ref in self._prefixes and owned:
                with suppress(InvalidArgument, Aborted):
                    self.engine.release_prefix(*self._prefixes[ref])
            self.abort([request for request in owned if request in self._inboxes])
            for request in owned:
                self._inboxes.pop(request, None)
            self._prefixes.pop(ref, None)
            self._owned.pop(ref, None)
            with suppress(ValueError):
                self._gone.remove(ref)

    def abort(self, requests: Iterable[int]) -> None:
        """Ends requests; what still comes from them is dropped with their inbox. Takes no lock and does not wait: it
        may run in a finaliser, at any point of any thread."""
        if os.getpid() != self._pid:
            return
        for request in requests:
            try:
                self.engine.abort(request)
            except Aborted:  # closed: there is nothing left to end
                return

    def abort_and_drain(self, requests: Sequence[int], inbox: Inbox) -> None:
        """Ends requests and waits until the engine has let go of them."""
        self.abort(requests)
        while any(request in self._inboxes for request in requests):
            try:
                if not self.engine.busy and not self._arrived:
                    return
                self._step(inbox)
            except Aborted:
                return

    def take_leftovers(self, inbox: Inbox) -> bool:
        """Takes outputs that are there, perhaps of requests whose callers have gone: they hold memory until then. False
        when none are to come."""
        self._sweep()
        if not self.engine.busy and not self._arrived:
            return False
        self._step(inbox)
        return True

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
            self._waiting[me] = inbox.ref  # before the attempt: whoever drains now will see it
            if self._drainer.setdefault(None, me) == me:
                self._drain()
                return None
            return inbox.queue.get(timeout=_SLICE)
        except queue.Empty:
            return None
        finally:
            # No call comes first: a second Ctrl-C strikes behind calls, and would leave the others waiting for us.
            drained = None in self._drainer and self._drainer[None] == me
            if drained:
                del self._drainer[None]
            self._waiting.pop(me, None)
            if drained:
                self._wake_another(inbox)

    def _drain(self) -> None:
        self._arrived.extend(chain.from_iterable(map(self.engine.wait, repeat(_SLICE, 1))))
        while self._arrived:
            output = self._arrived[0]
            inbox = self._inbox_of(output.request)
            deque(map(inbox.queue.put, map(deque.popleft, repeat(self._arrived, 1))), maxlen=0)
            if output.last:
                self._inboxes.pop(output.request, None)

    def _inbox_of(self, request: int) -> Inbox:
        ref = self._inboxes.get(request)
        if ref is None:
            with self._registering:  # its submit() may not have returned yet
                ref = self._inboxes.get(request)
        inbox = None if ref is None else ref()
        if inbox is None:  # whoever it was for is gone: it is ended, and its outputs are dropped
            self.abort([request])
            inbox = self.inbox()
        return inbox

    def _wake_another(self, inbox: Inbox) -> None:
        """This thread may be busy with its outputs for a while: let another one drain meanwhile."""
        for ref in list(self._waiting.values()):
            other = ref()
            if other is not None and other is not inbox:
                other.queue.put(None)
                return

    def _check_process(self) -> None:
        if os.getpid() != self._pid:
            raise Aborted(
                f"this LLM belongs to process {self._pid}, and this is its child {os.getpid()}: an engine does not "
                "survive fork(); create the LLM in the child"
            )
