"""A server whose stderr nobody reads: a pipe that is full must stop neither its start, nor its calls, nor its end.

It did all three: a line of the log was written in the thread of the calls. What cannot be written is dropped, and the
reader that comes back is told how much.
"""

from __future__ import annotations

import fcntl
import io
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request

import pytest

from pagedcore.cli.background_stderr import BackgroundStderr


def full_pipe() -> tuple[int, int]:
    """Its ends; not one more byte goes in."""
    reader, writer = os.pipe()
    flags = fcntl.fcntl(writer, fcntl.F_GETFL)
    fcntl.fcntl(writer, fcntl.F_SETFL, flags | os.O_NONBLOCK)
    for size in (4096, 1):
        while True:
            try:
                os.write(writer, b"." * size)
            except BlockingIOError:
                break
    fcntl.fcntl(writer, fcntl.F_SETFL, flags)
    return reader, writer


def test_a_server_lives_with_a_full_pipe() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    reader, writer = full_pipe()
    command = [
        sys.executable,
        "-m",
        "pagedcore",
        "serve",
        "--port",
        str(port),
        "--kv-cache-memory",
        "32MiB",
        "--verbose",
    ]
    with subprocess.Popen(command, stderr=writer) as process:
        os.close(writer)
        try:
            for path in ["/health"] * 20:
                deadline = time.monotonic() + 60
                while True:
                    try:
                        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
                            assert answer.status == 200
                        break
                    except OSError:
                        assert process.poll() is None and time.monotonic() < deadline
                        time.sleep(0.1)
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=20) == 0
        finally:
            process.kill()
            os.close(reader)


def test_what_was_dropped_is_told() -> None:
    reader, writer = full_pipe()
    with os.fdopen(writer, "w") as under:
        before = sys.stderr
        stream = BackgroundStderr(under)
        begin = time.monotonic()
        for _ in range(3000):
            print("x" * 1000, file=stream, flush=True)
        assert time.monotonic() - begin < 1
        read: list[bytes] = []
        thread = threading.Thread(target=lambda: read.extend(iter(lambda: os.read(reader, 1 << 16), b"")))
        thread.start()
        print("again", file=stream)
        try:
            assert stream.settle(10) is under
            print("last", file=stream)
            assert stream.settle(10) is under
        finally:
            sys.stderr = before
    thread.join()
    os.close(reader)
    text = b"".join(read).decode().lstrip(".")
    assert text.startswith("x" * 1000) and text.count("x" * 1000 + "\n") < 1100
    assert "writes to stderr were dropped, for nobody read them" in text and text.endswith("last\n")


def test_one_that_is_never_read_does_not_keep_the_end_waiting() -> None:
    reader, writer = full_pipe()
    before = sys.stderr
    under = os.fdopen(writer, "w")
    try:
        stream = BackgroundStderr(under)
        print("x", file=stream)
        begin = time.monotonic()
        found = stream.settle(0.2)
        assert time.monotonic() - begin < 2 and found is not under
        found.write("anything")
        found.close()
    finally:
        sys.stderr = before
        os.read(reader, 1 << 16)  # lets the thread go on
        os.close(reader)


@pytest.mark.parametrize("error", [OSError("gone"), ValueError("closed")])
def test_a_stream_that_fails_is_forgotten(error: Exception) -> None:
    class Failing(io.StringIO):
        def write(self, text: str) -> int:
            raise error

    before = sys.stderr
    try:
        stream = BackgroundStderr(Failing())
        print("x", file=stream)
        stream.settle(5)
        print("y", file=stream)
        stream.settle(5)
    finally:
        sys.stderr = before
