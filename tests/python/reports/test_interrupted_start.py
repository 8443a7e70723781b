"""Ctrl-C ends a command with status 130 and one line, whenever it comes once the package has begun to be imported.

Reported: a traceback of whatever was being imported, or an ImportError with status 1 where a module in C++ was.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time

import pytest

import interrupts

# Before the N-th module that is imported after pagedcore's own first one, the process interrupts itself. Python's own
# start, before any of the package runs, is not ours.
_STRIKE = """
    import os, runpy, signal, sys

    class Strike:
        left = int(sys.argv[1])

        def find_spec(self, name, path=None, target=None):
            if "pagedcore.starting" in sys.modules and "_core" not in name:
                Strike.left -= 1
                if Strike.left == 0:
                    os.kill(os.getpid(), signal.SIGINT)
            return None

    sys.meta_path.insert(0, Strike())
    sys.argv = ["pagedcore", "generate", "hi", "--max-tokens", "1", "--kv-cache-memory", "16MiB"]
    runpy.run_module("pagedcore", run_name="__main__", alter_sys=False)
"""


@pytest.mark.parametrize("module", [1, 2, 5, 20, 60, 100, 140])
def test_during_any_import(module: int) -> None:
    process = interrupts.start(
        [sys.executable, "-c", textwrap.dedent(_STRIKE), str(module)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    out, err = process.communicate(timeout=300)
    assert (process.returncode, out, err.splitlines()) == (130, "", ["pagedcore: interrupted"])


def test_again_and_again_while_it_ends() -> None:
    """A user who is impatient: the first is told, the others change nothing."""
    command = [sys.executable, "-m", "pagedcore", "generate", "Once", "--max-tokens", "4000", "--ignore-eos"]
    process = interrupts.start(
        [*command, "--kv-cache-memory", "16MiB"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stdout.read(1)
    while process.poll() is None:
        process.send_signal(signal.SIGINT)
        time.sleep(0.001)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 130
    assert [line for line in err.splitlines() if "chat template" not in line] == ["pagedcore: interrupted"]


def test_a_program_that_imports_the_package_keeps_its_handler() -> None:
    code = "import signal; before = signal.getsignal(2); import pagedcore; assert signal.getsignal(2) is before"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=300, env=os.environ)
