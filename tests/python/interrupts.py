"""Processes that can be interrupted: a shell starts background jobs with SIGINT ignored, and children inherit that."""

from __future__ import annotations

import signal
import subprocess
from typing import Any


def start(command: list[str], **options: Any) -> subprocess.Popen[Any]:
    def restore() -> None:
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    return subprocess.Popen(command, preexec_fn=restore, **options)
