"""The three standard streams as the caller left them: one may be closed, full, or have lost its reader."""

from __future__ import annotations

import io
import os
import sys
from contextlib import suppress

from ..errors import Io
from .background_stderr import BackgroundStderr

__all__ = ["adopt", "check_stdout", "complain", "settle"]

_CLOSED = {"stdin": (0, os.O_RDONLY, "r"), "stdout": (1, os.O_RDONLY, "w"), "stderr": (2, os.O_WRONLY, "w")}
_closed: set[str] = set()


def adopt() -> None:
    """A closed descriptor becomes /dev/null, lest the next file that is opened gets its number and a message lands in
    it. stdin is then empty, stderr drops what it is told, and stdout fails on every write, as a closed one does. Text
    that an encoding lacks is written as an escape."""
    for name, (number, mode, text_mode) in _CLOSED.items():
        if getattr(sys, name) is None:
            _closed.add(name)
            opened = os.open(os.devnull, mode)
            if opened != number:
                os.dup2(opened, number)
                os.close(opened)
            stream = open(number, text_mode, encoding="utf-8", closefd=False)  # noqa: SIM115  (for good)
            setattr(sys, name, stream)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def check_stdout() -> None:
    """Raises Io before any work when nothing could be printed at its end."""
    if "stdout" in _closed:
        raise Io("stdout is closed, and results are printed there: 1>/dev/null drops them")


def complain(message: str) -> None:
    """A line on stderr, where there is one."""
    with suppress(OSError, ValueError):
        print(f"pagedcore: {message}\n", end="", file=sys.stderr, flush=True)


def settle() -> OSError | None:
    """Flushes both outputs and returns what stdout lost. What cannot be flushed now cannot be at the interpreter's exit
    either, which would turn the exit status into 120."""
    if isinstance(sys.stderr, BackgroundStderr):
        sys.stderr.settle()
    lost = None
    for number, stream in ((2, sys.stderr), (1, sys.stdout)):
        try:
            stream.flush()
        except (OSError, ValueError) as error:
            if number == 1:
                lost = error if isinstance(error, OSError) else OSError(str(error))
            with suppress(OSError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), number)
            with suppress(OSError, ValueError):
                stream.flush()
    return lost
