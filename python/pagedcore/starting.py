"""Ctrl-C while the command starts, and once it has ended.

Importing the package and what it needs takes a tenth of a second and more, in which an interrupt would be shown as the
traceback of some import, or as whatever a library makes of it. Nothing is held by then, so the process ends at once,
with one line and status 130. While a command runs, Ctrl-C is a KeyboardInterrupt as anywhere: files, engines and
temporary files are closed. A program that imports the package keeps its own handler.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # signal itself imports enum and re, where an interrupt would strike
import os
import sys

__all__ = ["INTERRUPTED", "end_at_once", "raise_again", "watch"]

INTERRUPTED = "interrupted"
_watching = False


def watch() -> None:
    """From here on Ctrl-C ends the process, where the process is the command."""
    global _watching
    if _is_command() and _signal.getsignal(_signal.SIGINT) is _signal.default_int_handler:
        try:
            _signal.signal(_signal.SIGINT, _end)
        except ValueError:  # not the main thread
            return
        _watching = True


def raise_again() -> None:
    """Ctrl-C is a KeyboardInterrupt again: something will have to be closed."""
    if _watching:
        _signal.signal(_signal.SIGINT, _signal.default_int_handler)


def end_at_once(told: bool) -> None:
    """What the command held is closed: another Ctrl-C ends the process. ``told``: somebody has said that one came, and
    more change nothing, so that the status stays 130 while the interpreter ends too."""
    if _watching:
        _signal.signal(_signal.SIGINT, _signal.SIG_IGN if told else _end)


def _is_command() -> bool:
    if sys.argv[:1] == ["-m"]:  # while Python looks for the module
        return ("-m", "pagedcore") in zip(sys.orig_argv, sys.orig_argv[1:], strict=False)
    return os.path.basename(sys.argv[0] if sys.argv else "") in ("pagedcore", "pagedcore.exe")


def _end(number: int, frame: object) -> None:
    if sys.stderr is not None:  # a closed descriptor's number may be another file's by now
        try:  # noqa: SIM105  (contextlib would be another import to interrupt)
            os.write(2, f"pagedcore: {INTERRUPTED}\n".encode())
        except OSError:
            pass
    os._exit(130)
