"""stderr of a server, whose reader may stop reading: a full pipe must stop neither its start nor its calls."""

from __future__ import annotations

import io
import os
import sys
import threading
import time
from collections import deque
from contextlib import suppress
from typing import TextIO

__all__ = ["BackgroundStderr"]

_MOST = 1 << 20  # characters that wait


class BackgroundStderr(io.TextIOBase):
    """What is written waits for a thread of its own, up to a limit; what is more is dropped, which a line tells when
    there is a reader again. Thread-safe."""

    def __init__(self, under: TextIO) -> None:
        super().__init__()
        self._under = under
        self._waiting: deque[str] = deque()
        self._size = 0  # of what waits, and of what the thread has in hand
        self._dropped = 0
        self._writes = False
        self._change = threading.Condition()
        threading.Thread(target=self._run, name="pagedcore-stderr", daemon=True).start()

    @classmethod
    def install(cls) -> None:
        """As sys.stderr, until ``settle``."""
        if sys.stderr is not None and not isinstance(sys.stderr, cls):
            sys.stderr = cls(sys.stderr)

    def writable(self) -> bool:
        return True

    def isatty(self) -> bool:
        return self._under.isatty()

    def fileno(self) -> int:
        return self._under.fileno()

    def write(self, text: str) -> int:
        with self._change:
            if self._size + len(text) > _MOST:
                self._dropped += 1
                self._change.notify_all()
            elif text:
                self._waiting.append(text)
                self._size += len(text)
                self._change.notify_all()
        return len(text)

    def flush(self) -> None:
        """Does not wait: the thread flushes what it writes."""

    def settle(self, seconds: float = 1.0) -> TextIO:
        """Waits until all is written, so long at most. What this one stood for is sys.stderr again, or /dev/null where
        nobody reads that."""
        end = time.monotonic() + seconds
        with self._change:
            while self._has_more() and time.monotonic() < end:
                self._change.wait(end - time.monotonic())
            stuck = self._has_more()
        # The thread may hold the stream's lock for ever, so that nobody else may touch it.
        sys.stderr = open(os.devnull, "w", encoding="utf-8") if stuck else self._under  # noqa: SIM115  (for good)
        return sys.stderr

    def _has_more(self) -> bool:
        return self._writes or bool(self._waiting) or self._dropped > 0

    def _run(self) -> None:
        while True:
            with self._change:
                self._writes = False
                self._change.notify_all()
                while not self._has_more():
                    self._change.wait()
                self._writes = True
                text = "".join(self._waiting)
                taken = len(text)
                self._waiting.clear()
                dropped, self._dropped = self._dropped, 0
            if dropped:
                text += f"pagedcore: warning: {dropped} writes to stderr were dropped, for nobody read them\n"
            with suppress(OSError, ValueError):  # nobody reads any more
                self._under.write(text)
                self._under.flush()
            with self._change:
                self._size -= taken
