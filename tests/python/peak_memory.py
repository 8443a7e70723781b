"""What something takes of memory, tried in a child of its own: its peak is what the kernel counted (VmHWM)."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pagedcore.errors import Error


def memory(name: str) -> int:
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) << 10 for line in status.splitlines() if line.startswith(name + ":"))


def peak_of(build: Callable[[], object]) -> tuple[int, str]:
    """Bytes above what there was before, and the error that it ended in."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        result: Any = (0, "")
        try:
            before = memory("VmRSS")
            try:
                build()
                kind = "no error"
            except Error as error:
                kind = f"{type(error).__name__}: {error}"
            result = (memory("VmHWM") - before, kind)
        except BaseException as error:
            result = (0, repr(error))
        finally:
            os.write(writing, pickle.dumps((result[0], result[1][:500])))
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as file:
        data = file.read()
    os.waitpid(child, 0)
    peak, kind = pickle.loads(data)
    return peak, kind
