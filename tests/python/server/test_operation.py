"""What operators rely on: keys, bounds, sockets, signals, configuration."""

from __future__ import annotations

import os
import signal
import socket
import ssl
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import openai
import pytest

from .conftest import MODEL, Reply, Server, raw_call

HEAD = (
    "POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\nauthorization: Bearer first-key\r\n"
)
SMALL = ("--port", "0", "--served-model-name", MODEL, "--kv-cache-memory", "16MiB")


def _run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """One that does not come up."""
    command = [sys.executable, "-m", "pagedcore", "serve", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, env={**os.environ, **environment})


def test_keys_bounds_and_queue(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text("# two of them\nfirst-key\n\nsecond-key\n")
    config = tmp_path / "server.toml"
    config.write_text(
        f'api-key-file = "{keys}"\nmax-body-size = "4KiB"\nbody_timeout = 2\nheader-timeout = 2\n'
        'cors-origin = ["https://app.example"]\nmax-connections = 40\n'
        "[engine]\nmax-waiting = 1\nmax-sequences = 1\n[names]\nserved-model-name = ['a', 'b']\n"
    )
    server = Server.start(
        "--config", str(config), "--port", "0", "--kv-cache-memory", "16MiB", PAGEDCORE_API_KEY="other"
    )
    try:
        _keys(server)
        _slow_clients(server)
        _cors(server)
        _queue(server)
        _connections(server)
        assert "first-key" not in "".join(server.raw) and "wrong-key" not in "".join(server.raw)
    finally:
        assert server.stop() == 0


def _keys(server: Server) -> None:
    assert [m.id for m in server.openai(api_key="second-key").models.list()] == ["a", "b"]
    for wrong in ("wrong-key", "first-ke", "first-keyy", "FIRST-KEY", "other"):
        with pytest.raises(openai.AuthenticationError) as caught:
            server.openai(api_key=wrong).models.list()
        assert caught.value.code == "invalid_api_key"
    paths = ("/v1/models", "/version", "/load", "/metrics")
    assert [server.send("GET", path).status for path in paths] == [401] * 4
    reply = server.post("/v1/completions", {"prompt": "Hi"})
    assert reply.status == 401 and reply.headers["www-authenticate"] == "Bearer"
    assert server.send("GET", "/v1/models", x_api_key="first-key").status == 200
    assert [server.send("GET", path).status for path in ("/health", "/ready")] == [200, 200]
    body = {"prompt": "x" * 5000}
    assert server.post("/v1/completions", body).status == 401, "a body is not read before its key"
    assert server.post("/v1/completions", body, authorization="Bearer first-key").status == 413


def _slow_clients(server: Server) -> None:
    """Of headers, and of a body; others are served meanwhile."""
    head = HEAD.encode()
    with server.connect() as silent, server.connect() as slow, server.connect() as body:
        slow.sendall(head)
        body.sendall(head + b"content-length: 100\r\n\r\n{")
        assert server.send("GET", "/health").status == 200
        assert [Reply.of(client).status for client in (silent, slow, body)] == [408, 408, 408]


def _cors(server: Server) -> None:
    asked = {"origin": "https://app.example", "access_control_request_method": "POST"}
    reply = server.send("OPTIONS", "/v1/chat/completions", **asked, access_control_request_headers="authorization")
    assert reply.status == 200 and reply.headers["access-control-allow-origin"] == "https://app.example"
    asked["origin"] = "https://evil.example"
    reply = server.send("OPTIONS", "/v1/chat/completions", **asked, access_control_request_headers="authorization")
    assert reply.status == 400 and "access-control-allow-origin" not in reply.headers


def _queue(server: Server) -> None:
    """One runs, one waits: the third is told to come again."""
    client = server.openai(api_key="first-key")
    asked: dict[str, Any] = {"model": "b", "prompt": "Hi", "max_tokens": 3000, "extra_body": {"ignore_eos": True}}
    running = client.completions.create(**asked, stream=True)
    waiting = _Waiting(server)
    try:
        end = time.monotonic() + 30
        while True:
            try:
                client.completions.create(**{**asked, "max_tokens": 1, "timeout": 0.3})
            except openai.RateLimitError as error:
                assert int(error.response.headers["retry-after"]) >= 1
                assert error.type == "rate_limit_error"
                break
            except openai.APITimeoutError:  # the other one does not wait yet
                assert time.monotonic() < end
    finally:
        running.close()
        waiting.close()


class _Waiting:
    def __init__(self, server: Server) -> None:
        self._client = server.connect()
        values = {"model": "b", "prompt": "Hi", "max_tokens": 3000, "ignore_eos": True}
        self._client.sendall(raw_call("/v1/completions", values, authorization="Bearer first-key"))

    def close(self) -> None:
        self._client.close()


def _connections(server: Server) -> None:
    many = [server.connect() for _ in range(41)]
    replies = []
    for client in many:
        client.settimeout(30)
        replies.append(Reply.of(client).status)
        client.close()
    assert replies.count(503) >= 1 and set(replies) == {503, 408}


def test_nothing_else_imports_what_the_server_needs() -> None:
    code = (
        "import sys, pagedcore.cli; from pagedcore import LLM, AsyncLLM; pagedcore.cli._parser();"
        "print({'starlette', 'uvicorn', 'httptools', 'anyio'} & set(sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "set()\n"


@pytest.mark.parametrize("wanted", [1, 2])
def test_sigterm_waits_for_calls_and_a_second_one_does_not(wanted: int) -> None:
    server = Server.start(*SMALL, "--drain-timeout", "60")
    most = 40 if wanted == 1 else 7000
    stream = server.openai().completions.create(
        model=MODEL, prompt="Hi", max_tokens=most, temperature=0, stream=True, extra_body={"ignore_eos": True}
    )
    next(iter(stream))
    server.process.send_signal(signal.SIGTERM)
    server.wait_for("draining")
    if wanted == 1:
        chunks = list(stream)
        assert chunks[-1].choices[0].finish_reason == "length"
    else:
        server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(timeout=60) == 0
    stream.close()


def test_answers_have_a_deadline() -> None:
    server = Server.start(*SMALL, "--request-timeout", "0.4")
    client = server.openai()
    asked: Any = {"model": MODEL, "prompt": "Hi", "max_tokens": 7000, "extra_body": {"ignore_eos": True}}
    with pytest.raises(openai.InternalServerError) as caught:
        client.completions.create(**asked)
    assert caught.value.status_code == 504 and caught.value.response.headers["x-should-retry"] == "false"
    with pytest.raises(openai.APIError, match="request-timeout"):
        for _ in client.completions.create(**asked, stream=True):
            pass
    assert server.stop() == 0


def test_a_drain_has_an_end() -> None:
    server = Server.start(*SMALL, "--drain-timeout", "1")
    stream = server.openai().completions.create(
        model=MODEL, prompt="Hi", max_tokens=7000, stream=True, extra_body={"ignore_eos": True}
    )
    next(iter(stream))
    assert server.stop() == 0
    stream.close()


def test_unix_sockets(tmp_path: Path) -> None:
    path = tmp_path / "serve.sock"
    stale = socket.socket(socket.AF_UNIX)
    stale.bind(str(path))
    stale.close()  # what a server that was killed leaves
    server = Server.start("--uds", str(path), "--served-model-name", MODEL, "--kv-cache-memory", "16MiB")
    assert server.post("/v1/completions", {"prompt": "Hi", "max_tokens": 1}).status == 200
    assert path.stat().st_mode & 0o777 == 0o660
    second = _run("--uds", str(path))
    assert second.returncode == 1 and "another server listens there" in second.stderr
    assert len(second.stderr.splitlines()) == 1
    assert server.send("GET", "/health").status == 200
    assert server.stop() == 0
    assert not path.exists()
    path.write_text("mine")
    refused = _run("--uds", str(path))
    assert refused.returncode == 1 and "is no socket" in refused.stderr and path.read_text() == "mine"


def test_tls() -> None:
    """The key and certificate are of this test alone, and valid for a hundred years."""
    pem = Path(__file__).with_name("localhost.pem")
    server = Server.start(*SMALL, "--ssl-certfile", str(pem))
    trusting = ssl.create_default_context(cafile=pem)
    assert server.address.startswith("https://127.0.0.1:")
    with urllib.request.urlopen(server.address + "/health", context=trusting) as reply:
        assert reply.status == 200
    with server.connect() as plain:
        plain.sendall(b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n")
        assert not plain.recv(100).startswith(b"HTTP/")
    assert server.stop() == 0
    server = Server.start(*SMALL, "--ssl-certfile", str(pem), "--ssl-ca-certs", str(pem))
    with pytest.raises((ssl.SSLError, OSError)):  # no certificate is shown
        urllib.request.urlopen(server.address + "/health", context=trusting).read()
    trusting.load_cert_chain(pem)
    with urllib.request.urlopen(server.address + "/health", context=trusting) as reply:
        assert reply.status == 200
    assert server.stop() == 0


def test_a_port_in_use_is_one_line(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        found = _run("--port", str(taken.getsockname()[1]), "-m", str(tmp_path / "no-model.gguf"))
    assert found.returncode == 1 and "in use" in found.stderr and len(found.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("port = 'x'", "no value of --port"),
        ("prot = 1", "did you mean 'port'"),
        ("log-calls = 1", "true or false"),
        ("port = [1]", "a text or a number"),
        ("order = 'random'", "one of"),
        ("port = 1\nport = 2", "is not TOML"),
        ("[engine]\nthreads = -1", "threads"),
        ("port = 70000", "--port"),
        ("ssl-keyfile = 'x'", "--ssl-certfile"),
        ("api-key-file = '/dev/null'", "API key"),
        ("tool-format = 'x'", "one of"),
        ("drain-timeout = 0", "above 0"),
    ],
)
def test_configurations_that_are_wrong(tmp_path: Path, text: str, said: str) -> None:
    config = tmp_path / "server.toml"
    config.write_text(text)
    found = _run("--config", str(config))
    assert found.returncode in (1, 2) and said in found.stderr, found.stderr
    assert len(found.stderr.splitlines()) == 1


def test_flags_win_over_the_file(tmp_path: Path) -> None:
    config = tmp_path / "server.toml"
    config.write_text("port = 1\nserved-model-name = 'file'\nkv_cache_memory = '16MiB'\n")
    server = Server.start("--config", str(config), "--port", "0", "--served-model-name", "flag")
    assert [model.id for model in server.openai().models.list()] == ["flag"]
    assert server.stop() == 0
