"""A slice of tests/fuzz/bound_api.py, in a process of its own: it would take this one with it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).resolve().parents[1] / "fuzz" / "bound_api.py"


def test_no_argument_of_the_api_ends_the_process() -> None:
    """Expected: exit status 0, no call that takes seconds, no OverflowError, SystemError or text of nanobind."""
    command = [sys.executable, str(SCRIPT), "--calls", "8000", "--seconds", "40", "--most-seconds", "5"]
    run = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
    assert run.returncode == 0, run.stdout[-2000:] + run.stderr[-4000:]
    assert int(run.stdout.split()[0]) > 1000
