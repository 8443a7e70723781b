"""A progress bar on stderr, without a dependency."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Any, TextIO

__all__ = ["Progress", "chosen_progress"]

_INTERVAL = 0.1  # seconds between redraws


class Progress:
    """Counts what has finished (requests), and generated tokens if it is told of any. Redraws one line, at most every
    0.1 s."""

    def __init__(
        self, total: int, *, noun: str = "requests", enabled: bool | None = None, stream: TextIO | None = None
    ) -> None:
        """``enabled`` None: only when the stream is a terminal."""
        self._stream = sys.stderr if stream is None else stream
        # stderr is None under pythonw and some services.
        tty = self._stream is not None and self._stream.isatty()
        self._enabled = self._stream is not None and (tty if enabled is None else enabled)
        self._total = total
        self._noun = noun
        self._done = 0
        self._tokens = 0
        self._start = time.monotonic()
        self._drawn = 0.0

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._enabled:
            self._draw()
            self._stream.write("\n")
            self._stream.flush()

    def update(self, *, requests: int = 0, tokens: int = 0) -> None:
        self._tokens += tokens
        self.reach(self._done + requests, self._total)

    def reach(self, done: int, total: int) -> None:
        """So many of so many, by now."""
        self._done, self._total = done, total
        now = time.monotonic()
        if self._enabled and (now - self._drawn >= _INTERVAL or self._done == self._total):
            self._drawn = now
            self._draw()

    def _draw(self) -> None:
        elapsed = max(time.monotonic() - self._start, 1e-9)
        share = self._done / self._total if self._total else 1.0
        bar = "#" * int(share * 24)
        left = f", {elapsed / share - elapsed:.0f} s left" if 0 < share < 1 else ""
        speed = f"{self._tokens / elapsed:.1f} tokens/s, " if self._tokens else ""
        counts = f"{self._done:,}/{self._total:,} {self._noun}"
        self._stream.write(f"\r{share:4.0%} |{bar:<24}| {counts}, {speed}{elapsed:.0f} s{left}\x1b[K")
        self._stream.flush()


def chosen_progress(progress: bool | None, options: Any) -> bool | None:
    """``use_tqdm`` is what others call it."""
    theirs: bool | None = options.pop("use_tqdm", None)
    return theirs if progress is None else progress
