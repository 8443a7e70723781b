"""The retrying client: answers that go on behind what was received, over servers that are killed."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from pagedcore import InvalidArgument, Io
from pagedcore.client import Piece, RetryingClient

from .conftest import MODEL, Server

BODIES: list[tuple[str, dict[str, Any]]] = [
    ("completion", {"prompt": "The sea is", "max_tokens": 24, "temperature": 0}),
    ("completion", {"prompt": "Ω → ü: 日本語 ☃", "max_tokens": 32, "temperature": 1.6, "seed": 11, "logprobs": 2}),
    (
        "completion",
        {"prompt": [500, 600, 700], "max_tokens": 24, "temperature": 1.0, "seed": 3, "stop": ["e", " of the"]},
    ),
    (
        "chat",
        {"messages": [{"role": "user", "content": "Name a colour."}], "max_tokens": 24, "temperature": 0.8, "seed": 5},
    ),
]


def whole(pieces: list[Piece]) -> tuple[str, list[int], str | None]:
    last = pieces[-1].finish_reason if pieces else None
    return "".join(p.text for p in pieces), [t for p in pieces for t in p.token_ids], last


def call(client: RetryingClient, kind: str, body: dict[str, Any]) -> list[Piece]:
    return list(client.chat(body) if kind == "chat" else client.completion(body))


class Resumed(RetryingClient):
    """As if a connection before had brought so many tokens."""

    def __init__(self, url: str, received: int) -> None:
        super().__init__(url, retries=0)
        self._received = received

    def _attempt(self, path: str, body: Any, name: str) -> Iterator[Piece]:
        return super()._attempt(path, {**body, "received_tokens": self._received}, name)


@pytest.mark.parametrize(("kind", "body"), BODIES, ids=["greedy", "half characters", "stop strings", "chat"])
def test_an_answer_goes_on_behind_every_token(server: Server, kind: str, body: dict[str, Any]) -> None:
    everything = call(RetryingClient(server.address), kind, body)
    text, tokens, reason = whole(everything)
    assert tokens and reason is not None
    shown = ["".join(piece.text for piece in everything[:count]) for count in range(len(everything) + 1)]
    for received in {0, 1, 2, len(tokens) // 2, len(tokens) - 1, len(tokens)}:
        rest, ids, end = whole(call(Resumed(server.address, received), kind, body))
        assert ids == tokens[received:] and end == reason
        assert text.endswith(rest)
        heads = [before for count, before in enumerate(shown) if len(whole(everything[:count])[1]) == received]
        if heads:  # a piece ended there: its text is what is left out
            assert text[: len(text) - len(rest)] in heads


def test_log_probabilities_go_on_too(server: Server) -> None:
    kind, body = BODIES[1]
    found = [piece.choice.get("logprobs") for piece in call(RetryingClient(server.address), kind, body)]
    offsets = [at for one in found if one for at in one["text_offset"]]
    values = [value for one in found if one for value in one["token_logprobs"]]
    rest = [piece.choice.get("logprobs") for piece in call(Resumed(server.address, 7), kind, body)]
    assert [at for one in rest if one for at in one["text_offset"]] == offsets[7:]
    assert [value for one in rest if one for value in one["token_logprobs"]] == values[7:]


@pytest.mark.parametrize(
    ("changes", "status", "message"),
    [
        ({"stream": False}, 400, "needs stream=true"),
        ({"n": 2, "temperature": 1.0}, 400, "one choice of one prompt"),
        ({"echo": True}, 400, "one choice of one prompt"),
        ({"temperature": 1.0}, 400, "without a seed"),
        ({"received_tokens": -1}, 400, "received_tokens"),
        ({"received_tokens": "2"}, 400, "received_tokens"),
    ],
)
def test_what_cannot_go_on_is_refused(server: Server, changes: dict[str, Any], status: int, message: str) -> None:
    body = {"prompt": "The sea", "max_tokens": 4, "temperature": 0, "stream": True, "received_tokens": 2, **changes}
    reply = server.post("/v1/completions", body)
    assert reply.status == status and message in reply.text


def test_more_tokens_than_there_are(server: Server) -> None:
    body = {"prompt": "The sea", "max_tokens": 4, "temperature": 0, "stream": True, "received_tokens": 5}
    assert "it is another one" in server.post("/v1/completions", body).text


def test_a_client_says_what_is_wrong() -> None:
    with pytest.raises(InvalidArgument, match="must be such as"):
        RetryingClient("127.0.0.1:8000")
    nobody = RetryingClient("http://127.0.0.1:9", retries=2, first_wait=0.01)
    with pytest.raises(Io, match="3 calls of request mine brought nothing"):
        list(nobody.completion({"prompt": "x"}, request_id="mine"))


def test_a_refusal_is_not_repeated(server: Server) -> None:
    client = RetryingClient(server.address, first_wait=100.0)
    with pytest.raises(InvalidArgument, match=r"400: .*temperature"):
        list(client.completion({"prompt": "x", "temperature": -1}))


def test_servers_are_killed_and_nothing_is_lost() -> None:
    """kill -9 in the middle of four streams, twice; the next server listens at the same place."""
    draws = random.Random(7)
    arguments = ("--served-model-name", MODEL, "--kv-cache-memory", "96MiB", "--threads", "1", "--no-log-calls")
    server = Server.start("--port", "0", *arguments)
    port = server.address.rpartition(":")[2]
    bodies = [
        {"prompt": [1000 + 31 * n, 7, 9 * n + 2], "max_tokens": 64, "temperature": 0.9, "seed": n, "ignore_eos": True}
        for n in range(4)
    ]
    expected = [whole(list(RetryingClient(server.address).completion(body))) for body in bodies]
    found: list[Any] = [None] * len(bodies)
    calls = threading.Semaphore(0)

    def ask(at: int) -> None:
        pieces = []
        client = RetryingClient(server.address, retries=200, first_wait=0.05, longest_wait=0.5)
        for piece in client.completion(bodies[at]):
            pieces.append(piece)
            calls.release()
        found[at] = whole(pieces)

    threads = [threading.Thread(target=ask, args=(at,)) for at in range(len(bodies))]
    for thread in threads:
        thread.start()
    kills = 0
    try:
        while kills < 2 and any(thread.is_alive() for thread in threads):
            for _ in range(draws.randrange(20, 50)):  # pieces of all
                calls.acquire(timeout=10)
            if not any(thread.is_alive() for thread in threads):
                break
            server.process.kill()
            server.process.wait()
            kills += 1
            server = Server.start("--port", port, *arguments)
        for thread in threads:
            thread.join(timeout=120)
    finally:
        server.stop()
    assert kills == 2
    assert found == expected
