"""A progress bar on stderr: tqdm's, which is a guest here."""

from __future__ import annotations

import os
import sys
from functools import cache
from types import TracebackType
from typing import Any, TextIO

__all__ = ["Progress", "chosen_progress"]

_LONG = 0.5  # seconds: what is over sooner shows no bar


class Progress:
    """Counts towards a total, which may change. What is not shown costs nothing: tqdm is not even imported."""

    def __init__(
        self,
        total: float | None,
        unit: str,
        *,
        title: str = "",
        enabled: bool | None = None,
        stream: TextIO | None = None,
    ) -> None:
        """``total`` None: nobody knows. ``enabled`` None: only when the stream is a terminal, from half a second on."""
        stream = sys.stderr if stream is None else stream
        # stderr is None under pythonw and some services.
        tty = stream is not None and stream.isatty()
        self._bar: Any = None
        if stream is not None and (tty if enabled is None else enabled):
            self._bar = _bar_type()(
                total=total,
                unit=f" {unit}",
                desc=title or None,
                file=stream,
                delay=_LONG if enabled is None else 0,
                **_width(stream),
            )

    @property
    def enabled(self) -> bool:
        """Whether anybody looks."""
        return self._bar is not None

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.close()

    def add(self, done: float, *, less: float = 0) -> None:
        """So much more is done, and so much less is to be done than was thought."""
        if self._bar is not None:
            if less:
                self._bar.total -= less
            self._bar.update(done)

    def reach(self, done: float, total: float) -> None:
        """So much of so much, by now."""
        if self._bar is not None:
            self._bar.total = total
            self._bar.update(done - self._bar.n)


def _width(stream: TextIO) -> dict[str, Any]:
    """A terminal's, as it changes; 80 columns where it is none or does not know."""
    try:
        columns = os.get_terminal_size(stream.fileno()).columns
    except (OSError, ValueError):
        columns = 0
    return {"dynamic_ncols": True} if columns else {"ncols": 80, "nrows": 24}


@cache
def _bar_type() -> Any:
    from threading import RLock

    from tqdm import tqdm  # type: ignore[import-untyped]

    class Bar(tqdm):  # type: ignore[misc]
        monitor_interval = 0  # starts no thread

    # tqdm's own lock is one between processes: making it decides how the whole program starts processes.
    Bar.set_lock(RLock())
    return Bar


def chosen_progress(progress: bool | None, options: Any) -> bool | None:
    """``use_tqdm`` is what others call it."""
    theirs: bool | None = options.pop("use_tqdm", None)
    return theirs if progress is None else progress
