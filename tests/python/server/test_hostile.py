"""Clients that send what they should not, as no library does: each gets its status, and the others an answer."""

from __future__ import annotations

import json
import os
import random
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest

from .conftest import MODEL, Reply, Server, raw_call

ENDPOINTS = (
    *("/v1/completions", "/v1/chat/completions", "/v1/responses", "/v1/embeddings", "/v1/rerank", "/v1/score"),
    *("/tokenize", "/detokenize"),
)


@pytest.fixture(autouse=True)
def _still_serves(server: Server) -> Iterator[None]:
    """After each test an ordinary call is answered, and nothing of the test's is left."""
    yield
    body = {"model": MODEL, "prompt": "Hi", "max_tokens": 2, "temperature": 0}
    assert server.post("/v1/completions", body).json["usage"]["completion_tokens"] == 2
    _until(lambda: server.stats()["pagedcore_requests_running"] == 0)
    assert server.stats()["pagedcore_requests_waiting"] == 0
    assert not any('"error"' in line for line in server.raw), "a status of 500 was explained in the log"


def _until(condition: Any) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.mark.parametrize("path", ENDPOINTS)
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"5",
        b"null",
        b'"text"',
        b'{"prompt": NaN}',
        b'{"prompt": "a", "temperature": Infinity}',
        b'{"prompt": "\xff"}',
        b'{"prompt": "\xed\xa0\x80"}',
        b'{"prompt": "\\ud800", "tokens": [1]}',
        b'{"messages": [{"role": "user", "content": "\\udfff"}]}',
        b'{"a": ' + b"9" * 5000 + b"}",
        b"[" * 100_000,
        b'{"a":' * 1000 + b"1" + b"}" * 1000,
        b'{"a":[' + b"1," * 1_100_000 + b"1]}",
        b'{"a": 1e999, "prompt": 7, "messages": 7, "tokens": 7}',
        b"PK\x03\x04" + bytes(range(256)),
    ],
)
def test_bodies_that_are_none(server: Server, path: str, body: bytes) -> None:
    reply = server.send("POST", path, body)
    assert reply.status == 400
    assert reply.error["type"] == "invalid_request_error" and reply.error["message"]


@pytest.mark.parametrize("path", ENDPOINTS)
@pytest.mark.parametrize("value", [None, True, -1, 2**65, 1e308, "", "\x00", [], {}, [[]], [None], {"a": {}}, ["\x00"]])
def test_values_of_the_wrong_kind_for_every_field(server: Server, path: str, value: Any) -> None:
    """400, or an answer where the value means something; never 500."""
    fields = (
        *("model", "prompt", "messages", "tokens", "max_tokens", "n", "temperature", "top_p", "top_k", "stop", "seed"),
        *("logprobs", "top_logprobs", "logit_bias", "tools", "tool_choice", "response_format", "stream_options"),
        *("echo", "best_of", "chat_template", "chat_template_kwargs", "priority", "cache_salt", "bad_words"),
        *("allowed_token_ids", "stop_token_ids", "prompt_logprobs", "use_beam_search", "min_tokens", "prefix"),
    )
    usual: dict[str, Any] = {"prompt": "Hi", "messages": [{"role": "user", "content": "Hi"}], "tokens": [1]}
    for name in fields:
        reply = server.post(path, {**usual, "max_tokens": 1, name: value})
        assert reply.status in (200, 400, 404), (name, value, reply)
        if reply.status != 200:
            assert reply.error["message"]


@pytest.mark.parametrize("kind", ["", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data"])
def test_content_types_that_a_page_of_the_web_could_send(server: Server, kind: str) -> None:
    reply = server.send("POST", "/v1/completions", b'{"prompt": "Hi"}', content_type=kind)
    assert reply.status == 415


def test_bodies_over_the_limit(server: Server) -> None:
    """Of a declared size, and of none; one that declares far too much is not read."""
    head = b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
    piece = b" " * 65536
    with server.connect() as client:
        client.sendall(head + b"content-length: 99999999999999\r\n\r\n{")
        assert Reply.of(client).status == 413
    with server.connect() as client:
        client.sendall(head + b"content-length: 9000000\r\n\r\n")
        client.sendall(b" " * 9_000_000)
        assert Reply.of(client).status == 413
    with server.connect() as client:
        client.sendall(head + b"transfer-encoding: chunked\r\n\r\n")
        for _ in range(150):
            client.sendall(b"10000\r\n" + piece + b"\r\n")
        client.sendall(b"0\r\n\r\n")
        assert Reply.of(client).status == 413


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"GARBAGE\r\n\r\n", 400),
        (b"GET / HTTP/9.9\r\n\r\n", 400),
        (b"GET /\xff HTTP/1.1\r\nhost: x\r\n\r\n", 400),
        (b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-length: -5\r\n\r\n", 400),
        (b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nZZ\r\n", 400),
        (b"GET /health HTTP/1.1\r\nhost: x\r\nx: " + b"a" * 70_000, 431),
        (b"GET /nothing HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n", 404),
        (b"DELETE /v1/completions HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n", 405),
        (b"GET /v1/models/%ff%00/../x HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n", 404),
    ],
)
def test_requests_that_are_none(server: Server, sent: bytes, status: int) -> None:
    with server.connect() as client:
        client.sendall(sent)
        reply = Reply.of(client)
    assert reply.status == status
    assert reply.error["message"]


def test_a_client_that_leaves_ends_its_request(server: Server) -> None:
    """Whether it waits for a stream or for the whole. Counted: the tokens that were computed afterwards."""
    for stream in (True, False):
        begun = server.stats()
        body = {"prompt": "Once upon a time", "max_tokens": 4000, "stream": stream, "ignore_eos": True}
        client = server.connect()
        client.sendall(raw_call("/v1/completions", body))
        if stream:
            assert b"data: " in client.recv(65536) or b"data: " in client.recv(65536)
        else:
            _until(lambda: server.stats()["pagedcore_requests_running"] == 1)
        client.close()
        _until(lambda: server.stats()["pagedcore_requests_running"] == 0)
        ended = server.stats()
        assert ended["pagedcore_requests_aborted_total"] == begun["pagedcore_requests_aborted_total"] + 1
        assert ended["pagedcore_blocks_used"] == 0
        line = server.wait_for("call", status=200 if stream else 499, path="/v1/completions")
        assert line["method"] == "POST"


def test_clients_that_leave_at_any_moment(server: Server) -> None:
    """In the middle of headers, of a body, of an answer; nothing of theirs stays."""
    server.post("/v1/completions", {"prompt": "Hi", "max_tokens": 1})
    descriptors = len(os.listdir(f"/proc/{server.process.pid}/fd"))
    seeded = random.Random(7)
    for _ in range(120):
        path = seeded.choice(("/v1/completions", "/v1/chat/completions", "/v1/responses", "/v1/messages"))
        values: dict[str, Any] = {"max_tokens": 300, "max_output_tokens": 300, "stream": seeded.random() < 0.5}
        values |= {"prompt": ["a b c"] * seeded.randint(1, 3), "input": "Hi", "n": 1 if "messages" in path else 2}
        data = json.dumps({**values, "messages": [{"role": "user", "content": "Hi"}]}).encode()
        head = (
            f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {len(data)}\r\n\r\n"
        )
        sent = head.encode() + data
        client = server.connect()
        client.sendall(sent[: seeded.choice((len(sent), len(sent), seeded.randint(1, len(sent))))])
        client.settimeout(seeded.choice((0.001, 0.05)))
        with suppress(TimeoutError):
            client.recv(seeded.choice((1, 4096)))
        client.close()
    _until(lambda: server.stats()["pagedcore_requests_running"] == 0 == server.stats()["pagedcore_blocks_used"])
    _until(lambda: len(os.listdir(f"/proc/{server.process.pid}/fd")) <= descriptors)
    assert server.send("GET", "/load").json["server_load"] == 1


def test_a_stream_that_nobody_reads_disturbs_nobody(server: Server) -> None:
    client = server.connect()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.sendall(
        raw_call(
            "/v1/completions",
            {"prompt": "Once", "max_tokens": 1000, "stream": True, "ignore_eos": True, "logprobs": 20},
        )
    )
    answer = server.post("/v1/completions", {"prompt": "Hi", "max_tokens": 8, "temperature": 0})
    assert answer.status == 200
    client.close()


def test_pipelined_and_kept_connections(server: Server) -> None:
    one = raw_call("/v1/completions", {"prompt": "Hi", "max_tokens": 1})
    with server.connect() as client:
        client.sendall(one + one + one.replace(b"host: x", b"host: x\r\nconnection: close"))
        data = b""
        while piece := client.recv(65536):
            data += piece
    assert data.count(b"HTTP/1.1 200 OK") == 3


def test_ids_of_callers_come_back_and_need_not_differ(server: Server) -> None:
    for given in ("mine-1", "mine-1", "ü", "x" * 200, ""):
        reply = server.post("/v1/completions", {"prompt": "Hi", "max_tokens": 1}, x_request_id=given)
        found = reply.headers["x-request-id"]
        assert found == given if given == "mine-1" else found.startswith("req_")


def test_the_log_holds_no_texts(server: Server) -> None:
    secret = "xyzzy-plugh-9981"
    server.post("/v1/completions", {"prompt": f"{secret} and so on", "max_tokens": 2, "echo": True})
    server.post("/v1/completions", {"prompt": secret, "temperature": secret, "model": MODEL})
    server.post("/v1/chat/completions", {"messages": [{"role": secret, "content": secret}]})
    server.send("POST", "/v1/completions", secret.encode(), authorization=f"Bearer {secret}")
    server.send("GET", f"/{secret}?{secret}")
    server.post("/v1/completions", {"prompt": "Hi", "max_tokens": 1}, x_request_id="the-last-one")
    server.wait_for("call", request_id="the-last-one")
    assert secret not in "".join(server.raw)
