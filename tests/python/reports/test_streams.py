"""Commands whose stdin, stdout or stderr is closed, full or has lost its reader: one line or none, never a traceback.

Expected: a closed or full stdout is status 1 with one line, as `ls` has it; a reader that has left is status 1 without
a word; stderr that is not there changes no status and its lines go nowhere else.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys

import pytest

PAGEDCORE = f"{sys.executable} -m pagedcore"
GENERATE = "generate hi --max-tokens 3 --kv-cache-memory 16MiB"
# Whatever prints: results, help, the version, and each form of a command.
COMMANDS = [
    "--help",
    "--version",
    "doctor",
    "tokenize hi",
    "plan --kv-cache-memory 16MiB",
    *(["completion bash"] if importlib.util.find_spec("shtab") else []),
    "score 'The sky is blue.' --kv-cache-memory 16MiB",
    GENERATE,
    f"{GENERATE} --json",
    "simulate --setting opt-13b --rate 1 --seconds 30",
]


def shell(command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=100, check=False)


@pytest.mark.parametrize("command", COMMANDS)
def test_stdout_that_takes_nothing(command: str) -> None:
    for where in (">&-", ">/dev/full"):
        done = shell(f"{PAGEDCORE} {command} {where}")
        assert done.returncode == 1, (where, done)
        (line,) = [line for line in done.stderr.splitlines() if "chat template" not in line]
        assert line.startswith("pagedcore: stdout"), line


@pytest.mark.parametrize("command", COMMANDS)
def test_a_reader_that_has_left(command: str) -> None:
    done = shell(f"{PAGEDCORE} {command} | true; echo ${{PIPESTATUS[0]}}")
    assert done.stdout == "1\n"
    assert "Traceback" not in done.stderr and "Exception" not in done.stderr and "stdout" not in done.stderr


def test_stderr_that_is_not_there() -> None:
    for where in ("2>&-", "2>/dev/full"):
        done = shell(f"{PAGEDCORE} generate hi --temperature -1 {where}")
        assert (done.returncode, done.stdout) == (2, ""), where  # the message is not among the results
        done = shell(f"{PAGEDCORE} {GENERATE} --temperature 0 {where}")
        assert done.returncode == 0 and done.stdout and "chat template" not in done.stdout


def test_stdin_that_is_closed_is_empty() -> None:
    assert shell(f"{PAGEDCORE} chat --kv-cache-memory 16MiB <&-").returncode == 0
    for command in ("generate", "tokenize", "score"):
        done = shell(f"{PAGEDCORE} {command} <&-")
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr == "pagedcore: the text is empty\n"


def test_all_three_closed_open_no_file_in_their_place(tmp_path: object) -> None:
    """The trace takes no descriptor of a stream, so that no message lands in it."""
    trace = f"{tmp_path}/trace"
    done = shell(f"{PAGEDCORE} generate hi --max-tokens 3 --temperature 0 --trace-file {trace} <&- >/dev/null 2>&-")
    assert done.returncode == 0
    assert shell(f"{PAGEDCORE} replay {trace}").returncode == 0


def test_what_an_encoding_lacks_is_written_as_an_escape() -> None:
    environment = "PYTHONIOENCODING=ascii"
    assert shell(f"{environment} {PAGEDCORE} tokenize --json 'é'").stdout.isascii()
    done = shell(f"{environment} {PAGEDCORE} tokenize --decode $({PAGEDCORE} tokenize --ids 'é🙂')")
    assert (done.returncode, done.stdout) == (0, "\\xe9\\U0001f642\n")
