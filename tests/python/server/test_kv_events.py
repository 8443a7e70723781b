"""News of the prefix cache on vLLM's wire: read by the structures that vLLM's own subscriber declares."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pagedcore import _core
from pagedcore.errors import InvalidArgument, Io
from pagedcore.server.kv_events import KvEvents, Translation
from pagedcore.server.settings import EventSettings

from .conftest import Server

msgspec = pytest.importorskip("msgspec", reason="pip install 'pagedcore[events]'")
zmq = pytest.importorskip("zmq", reason="pip install 'pagedcore[events]'")

END = (-1).to_bytes(8, "big", signed=True)


# As vllm/distributed/kv_events.py has them: the batch an array, events tagged maps.
class KVCacheEvent(msgspec.Struct, omit_defaults=True, gc=False, tag=True):
    pass


class BlockStored(KVCacheEvent):
    block_hashes: list[int | bytes]
    parent_block_hash: int | bytes | None
    token_ids: list[int]
    block_size: int
    lora_id: int | None
    medium: str | None
    lora_name: str | None
    extra_keys: list[tuple[Any, ...] | None] | None = None
    group_idx: int | None = None


class BlockRemoved(KVCacheEvent):
    block_hashes: list[int | bytes]
    medium: str | None
    group_idx: int | None = None


class AllBlocksCleared(KVCacheEvent):
    pass


class Batch(msgspec.Struct, array_like=True, omit_defaults=True, gc=False):
    ts: float
    events: list[BlockStored | BlockRemoved | AllBlocksCleared]
    data_parallel_rank: int | None = None


decoder = msgspec.msgpack.Decoder(Batch)


def stored(id: int, parent: int, tokens: list[int], salt: int = 0) -> _core.CacheEvent:
    return _core.CacheEvent(kind="stored", id=id, parent=parent, tokens=tokens, salt=salt)


def chained(parent: int, tokens: list[int]) -> int:
    """The hash of a block, worked out apart: it begins at 0, and a token has four bytes."""
    data = parent.to_bytes(8, "big") + b"".join(token.to_bytes(4, "big") for token in tokens)
    return int.from_bytes(hashlib.sha256(data).digest()[:8], "big")


def test_blocks_that_continue_each_other_are_one_event() -> None:
    wire = Translation(2, "CPU")
    first = chained(0, [1, 2])
    second, other = chained(first, [3, 4]), chained(first, [5, 6])
    common = {"block_size": 2, "lora_id": None, "medium": "CPU", "lora_name": None, "type": "BlockStored"}
    events = [stored(10, 0, [1, 2]), stored(11, 10, [3, 4]), stored(12, 11, [9]), stored(13, 10, [5, 6])]
    assert wire.batch(events) == [
        {"block_hashes": [first, second], "parent_block_hash": None, "token_ids": [1, 2, 3, 4], **common},
        {"block_hashes": [other], "parent_block_hash": first, "token_ids": [5, 6], **common},
    ]
    removed = [_core.CacheEvent(kind="removed", id=id) for id in (13, 12, 11, 77)]
    assert wire.batch(removed) == [{"type": "BlockRemoved", "block_hashes": [other, second], "medium": "CPU"}]
    assert wire.batch([_core.CacheEvent(kind="cleared"), *removed]) == [{"type": "AllBlocksCleared"}]
    # The same tokens have the same hash wherever they are computed, and another after other tokens.
    assert wire.batch([stored(99, 0, [1, 2])])[0]["block_hashes"] == [first]


def test_nothing_of_a_tenant_is_published() -> None:
    wire = Translation(2, "CPU")
    events = [stored(1, 0, [7, 7], salt=5), stored(2, 1, [8, 8]), stored(3, 2, [9, 9]), stored(4, 0, [1, 1])]
    batch = wire.batch(events)
    assert [event["token_ids"] for event in batch] == [[1, 1]]
    assert wire.batch([_core.CacheEvent(kind="removed", id=id) for id in (1, 2, 3)]) == []


@pytest.fixture(scope="module")
def publishing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, str, str]]:
    folder = tmp_path_factory.mktemp("kv")
    pub, replay = f"ipc://{folder}/pub", f"ipc://{folder}/replay"
    flags = ["--port", "0", "--num-blocks", "64", "--kv-events-endpoint", pub, "--kv-events-replay-endpoint", replay]
    running = Server.start(*flags, "--kv-events-topic", "kv@host@smol", "--kv-events-buffer-steps", "50")
    yield running, pub, replay
    assert running.stop() == 0


class Subscriber:
    def __init__(self, pub: str, replay: str, topic: str = "kv@") -> None:
        self.context = zmq.Context()
        self.sub = self.context.socket(zmq.SUB)
        self.sub.setsockopt_string(zmq.SUBSCRIBE, topic)
        self.sub.connect(pub)
        self.dealer = self.context.socket(zmq.DEALER)
        self.dealer.connect(replay)

    def __enter__(self) -> Subscriber:
        return self

    def __exit__(self, *ended: object) -> None:
        self.context.destroy(linger=0)

    def replay(self, first: int = 0) -> list[tuple[int, Batch]]:
        self.dealer.send_multipart((b"", first.to_bytes(8, "big")))
        found = []
        while True:
            assert self.dealer.poll(60_000)
            empty, topic, number, payload = self.dealer.recv_multipart()
            assert empty == b""
            if number == END:
                assert (topic, payload) == (b"", b"")
                return found
            assert topic == b"kv@host@smol"
            found.append((int.from_bytes(number, "big"), decoder.decode(payload)))

    def live(self, milliseconds: int) -> list[tuple[int, Batch]]:
        found = []
        while self.sub.poll(milliseconds):
            topic, number, payload = self.sub.recv_multipart()
            assert topic == b"kv@host@smol" and len(number) == 8
            found.append((int.from_bytes(number, "big"), decoder.decode(payload)))
        return found


def complete(server: Server, prompt: list[int], **more: Any) -> None:
    reply = server.post("/v1/completions", {"prompt": prompt, "max_tokens": 1, "temperature": 0, **more})
    assert reply.status == 200, reply


def blocks(batches: list[tuple[int, Batch]]) -> dict[int | bytes, list[int]]:
    """What a router knows: the tokens of each block that is there."""
    known: dict[int | bytes, list[int]] = {}
    for _, batch in batches:
        for event in batch.events:
            if isinstance(event, AllBlocksCleared):
                known.clear()
            elif isinstance(event, BlockRemoved):
                for block in event.block_hashes:
                    del known[block]
            else:
                assert event.parent_block_hash is None or event.parent_block_hash in known
                assert len(event.token_ids) == len(event.block_hashes) * event.block_size
                for at, block in enumerate(event.block_hashes):
                    known[block] = event.token_ids[16 * at : 16 * at + 16]
    return known


def test_a_subscriber_knows_what_is_cached_live_and_by_replay(publishing: tuple[Server, str, str]) -> None:
    server, pub, replay = publishing
    with Subscriber(pub, replay) as router:
        begun = router.replay()
        assert begun[0][0] == 0 and begun[0][1].events == [AllBlocksCleared()]
        assert abs(begun[0][1].ts - time.time()) < 3600 and begun[0][1].data_parallel_rank == 0
        prompt = list(range(300, 340))  # two blocks and a half
        complete(server, prompt)
        first = chained(0, prompt[:16])
        found: list[tuple[int, Batch]] = []
        end = time.monotonic() + 60
        while first not in blocks(begun + found) and time.monotonic() < end:
            found = router.replay(len(begun))
        known = blocks(begun + found)
        assert known == {first: prompt[:16], chained(first, prompt[16:32]): prompt[16:32]}
        # Live now, as the subscription has been made by then; a number follows the other.
        router.live(100)
        complete(server, [*prompt[:16], *range(900, 924)])
        heard = router.live(3000)
        assert [number for number, _ in heard] == list(range(heard[0][0], heard[0][0] + len(heard)))
        [event] = [event for _, batch in heard for event in batch.events]
        assert event == BlockStored(
            block_hashes=[chained(first, list(range(900, 916)))],
            parent_block_hash=first,
            token_ids=list(range(900, 916)),
            block_size=16,
            lora_id=None,
            medium="CPU",
            lora_name=None,
        )


def test_salted_blocks_are_not_heard_of_and_eviction_is(publishing: tuple[Server, str, str]) -> None:
    server, pub, replay = publishing
    with Subscriber(pub, replay) as router:
        secret = list(range(2000, 2040))
        complete(server, secret, cache_salt="tenant")
        complete(server, list(range(3000, 3040)))
        mine = chained(0, list(range(3000, 3016)))
        end = time.monotonic() + 60
        while mine not in (known := blocks(router.replay())) and time.monotonic() < end:
            time.sleep(0.05)
        assert mine in known
        told = [event for _, batch in router.replay() for event in batch.events if isinstance(event, BlockStored)]
        assert not {token for event in told for token in event.token_ids} & set(secret)
        for start in range(5000, 9000, 200):  # more than 64 blocks hold
            complete(server, list(range(start, start + 160)))
        end = time.monotonic() + 60
        while time.monotonic() < end:
            removed = {
                b for _, x in router.replay() for e in x.events if isinstance(e, BlockRemoved) for b in e.block_hashes
            }
            if mine in removed:
                break
            time.sleep(0.05)
        assert mine in removed
        assert len(router.replay()) <= 50, "what is kept for replay is bounded"


def test_who_asks_nonsense_or_does_not_read_holds_nobody_up(publishing: tuple[Server, str, str]) -> None:
    server, pub, replay = publishing
    with Subscriber(pub, replay) as idle, Subscriber(pub, replay) as router:
        idle.sub.set_hwm(1)
        for frames in ((b"",), (b"", b"1"), (b"x", b"12345678"), (b"", b"1" * 8, b"more"), (b"",) * 9):
            router.dealer.send_multipart(frames)
        for start in range(10_000, 12_000, 100):
            complete(server, list(range(start, start + 40)))
        assert router.replay(), "it answers after all that"
        router.dealer.send_multipart((b"", b"\xff" * 8))
        assert router.dealer.poll(60_000) and router.dealer.recv_multipart()[2] == END


def test_what_is_wrong_is_said_before_the_server_is_ready(tmp_path: Path) -> None:
    class Engine:
        memory_plan = _core.MemoryPlan(block_size=16)

        def cache_events(self, timeout: float) -> list[_core.CacheEvent]:
            time.sleep(timeout)
            return []

    engine: Any = Engine()
    for endpoint in ("nonsense", "tcp://127.0.0.1", "http://127.0.0.1:1", ""):
        with pytest.raises(InvalidArgument, match="endpoint"):
            KvEvents(engine, EventSettings(endpoint=endpoint))
    first = KvEvents(engine, EventSettings(endpoint="tcp://127.0.0.1:*"))
    try:
        taken = first._pub.getsockopt_string(zmq.LAST_ENDPOINT)
        with pytest.raises(Io, match="in use"):
            KvEvents(engine, EventSettings(endpoint=taken))
    finally:
        first.close()
    again = KvEvents(engine, EventSettings(endpoint=taken))  # all of it was given back
    again.close()
