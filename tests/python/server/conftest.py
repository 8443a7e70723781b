"""One server process for each module of tests, and what is known of it."""

from __future__ import annotations

import json
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest

MODEL = "smol"
SCRIPTED = Path(__file__).with_name("scripted.py")
_ARGUMENTS = ("--port", "0", "--served-model-name", MODEL, "--kv-cache-memory", "96MiB")


def raw_call(path: str, values: Any, **headers: str) -> bytes:
    """The bytes of a call on a connection that is kept."""
    body = json.dumps(values).encode()
    named = {"host": "x", "content-type": "application/json", "content-length": str(len(body)), **headers}
    return "".join([f"POST {path} HTTP/1.1\r\n", *(f"{k}: {v}\r\n" for k, v in named.items()), "\r\n"]).encode() + body


@dataclass
class Server:
    """A running one. ``log``: its lines so far."""

    process: subprocess.Popen[str]
    log: list[dict[str, Any]] = field(default_factory=list)
    raw: list[str] = field(default_factory=list)
    address: str = ""
    _lines: queue.SimpleQueue[dict[str, Any] | None] = field(default_factory=queue.SimpleQueue)

    @classmethod
    def start(cls, *arguments: str, script: Path | None = None, **environment: str) -> Server:
        program = ["-m", "pagedcore", "serve"] if script is None else [str(script)]
        process = subprocess.Popen(
            [sys.executable, *program, *arguments],
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONWARNINGS": "default", **environment},
        )
        server = cls(process)
        threading.Thread(target=server._read, daemon=True).start()
        server.address = server.wait_for("ready")["address"]
        return server

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.raw.append(line)
            if line.startswith("{"):
                self._lines.put(json.loads(line))
        self._lines.put(None)

    def wait_for(self, event: str, **values: Any) -> dict[str, Any]:
        """The next line of the log with these values."""
        while True:
            line = self._lines.get(timeout=60)
            assert line is not None, "the server ended:\n" + "".join(self.raw)
            self.log.append(line)
            if line["event"] == event and all(line.get(name) == value for name, value in values.items()):
                return line

    def connect(self, timeout: float = 30.0) -> socket.socket:
        if self.address.startswith("unix:"):
            unix = socket.socket(socket.AF_UNIX)
            unix.settimeout(timeout)
            unix.connect(self.address.removeprefix("unix:"))
            return unix
        host, _, port = self.address.partition("//")[2].rpartition(":")
        return socket.create_connection((host, int(port)), timeout)

    def send(self, method: str, path: str, body: bytes = b"", **headers: str) -> Reply:
        """A call without a library between."""
        named = {"host": "test", "connection": "close", "content-length": str(len(body)), **headers}
        named.setdefault("content-type", "application/json")
        head = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in named.items())
        with self.connect() as client:
            client.sendall(f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode() + body)
            return Reply.of(client)

    def post(self, path: str, values: Any, **headers: str) -> Reply:
        return self.send("POST", path, json.dumps(values).encode(), **headers)

    def stats(self) -> dict[str, float]:
        """Its metrics, by name with labels, but for ours that name MODEL and nothing else."""
        lines = self.send("GET", "/metrics").text.replace(f'{{model="{MODEL}"}}', "").splitlines()
        return {name: float(value) for name, _, value in (ln.rpartition(" ") for ln in lines if not ln.startswith("#"))}

    def openai(self, **options: Any) -> openai.OpenAI:
        return openai.OpenAI(base_url=self.address + "/v1", **{"api_key": "none", "max_retries": 0, **options})

    def openai_async(self, **options: Any) -> openai.AsyncOpenAI:
        return openai.AsyncOpenAI(base_url=self.address + "/v1", **{"api_key": "none", "max_retries": 0, **options})

    def anthropic(self, **options: Any) -> anthropic.Anthropic:
        return anthropic.Anthropic(base_url=self.address, **{"api_key": "none", "max_retries": 0, **options})

    def anthropic_async(self, **options: Any) -> anthropic.AsyncAnthropic:
        return anthropic.AsyncAnthropic(base_url=self.address, **{"api_key": "none", "max_retries": 0, **options})

    def stop(self) -> int:
        """By SIGTERM. Returns the exit status."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=60)


@dataclass
class Reply:
    status: int
    headers: dict[str, str]
    body: bytes

    @classmethod
    def of(cls, client: socket.socket) -> Reply:
        """What comes until the server closes."""
        data = b""
        while piece := client.recv(65536):
            data += piece
        head, _, body = data.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        if headers.get("transfer-encoding") == "chunked":
            body = b"".join(_chunks(body))
        return cls(int(first.split()[1]), headers, body)

    @property
    def text(self) -> str:
        return self.body.decode()

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> dict[str, Any]:
        """In OpenAI's shape."""
        assert self.headers["content-type"] == "application/json", self
        assert set(self.json) == {"error"}, self
        error = self.json["error"]
        assert set(error) == {"message", "type", "param", "code"}, self
        return dict(error)


def _chunks(body: bytes) -> Iterator[bytes]:
    while body:
        size, _, body = body.partition(b"\r\n")
        yield body[: int(size, 16)]
        body = body[int(size, 16) + 2 :]


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    running = Server.start(*_ARGUMENTS)
    yield running
    assert running.stop() == 0
    assert not [line for line in running.raw if not line.startswith("{")], "something wrote beside the log"


@pytest.fixture(scope="module")
def scripted() -> Iterator[Server]:
    """Says what the last message says: see scripted.py."""
    running = Server.start(script=SCRIPTED)
    yield running
    assert running.stop() == 0
