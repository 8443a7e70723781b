"""News of the prefix cache over ZeroMQ, as vLLM publishes its own: for routers that send a request where its prefix is.

The wire (vllm-project/vllm, vllm/distributed/kv_events.py, with pull requests 42892 and 45177):

- PUB: ``[topic, number, batch]``. Numbers have 8 bytes, the highest first, and begin at 0. A batch is msgpack:
  ``[seconds since 1970, [event, ...], rank]``; an event is a map, its kind under ``type``.
- ROUTER, for what was missed: ``[b"", first number]`` is answered by ``[b"", topic, number, batch]`` for each batch
  from there on that is kept, and by ``[b"", b"", -1, b""]``.

Blocks of tenants (``cache_salt``) stay between the tenant and the server: neither their tokens nor that they are there
is published. Needs the extra ``events`` (pyzmq, msgspec). What waits for a slow subscriber is bounded and then dropped;
the engine never waits for one.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from .. import _core
from ..errors import Aborted, InvalidArgument, Io, Unsupported
from ..routing import block_hash
from .settings import EventSettings
from .sockets import remove_stale

__all__ = ["KvEvents", "Translation"]

_END = (-1).to_bytes(8, "big", signed=True)
_MOST_WAITING = 4096  # batches on their way to one subscriber
_PATIENCE = 0.1  # seconds


class Translation:
    """Events of the engine as those of vLLM. Not thread-safe."""

    def __init__(self, block_size: int, medium: str) -> None:
        self._block_size = block_size
        self._medium = medium
        self._hashes: dict[int, int] = {}
        """Of the blocks that were published and not removed, by the engine's id."""

    def batch(self, events: Iterable[_core.CacheEvent]) -> list[dict[str, Any]]:
        """Blocks that continue each other are one event, as removed ones are that follow each other."""
        made: list[dict[str, Any]] = []
        for event in events:
            if event.kind == "cleared":
                self._hashes.clear()
                made.append({"type": "AllBlocksCleared"})
            elif event.kind == "removed":
                self._remove(made, event.id)
            elif len(event.tokens) == self._block_size:  # the tails of sequences are not, with vLLM
                self._store(made, event)
        return made

    def _store(self, made: list[dict[str, Any]], event: _core.CacheEvent) -> None:
        parent = self._hashes.get(event.parent)
        if event.salt or (event.parent and parent is None):  # a tenant's, or what continues a tenant's
            return
        block = block_hash(parent or 0, event.tokens)
        self._hashes[event.id] = block
        last = made[-1] if made else {}
        if last.get("type") == "BlockStored" and parent is not None and last["block_hashes"][-1] == parent:
            last["block_hashes"].append(block)
            last["token_ids"] += event.tokens
            return
        stored = {"type": "BlockStored", "block_hashes": [block], "parent_block_hash": parent}
        stored |= {"token_ids": list(event.tokens), "block_size": self._block_size}
        made.append({**stored, "lora_id": None, "medium": self._medium, "lora_name": None})

    def _remove(self, made: list[dict[str, Any]], id: int) -> None:
        block = self._hashes.pop(id, None)
        if block is None:
            return
        if made and made[-1]["type"] == "BlockRemoved":
            made[-1]["block_hashes"].append(block)
        else:
            made.append({"type": "BlockRemoved", "block_hashes": [block], "medium": self._medium})


class _Kept:
    """Batches for replay, the latest ones."""

    def __init__(self, most: int, most_bytes: int = 64 << 20) -> None:
        self._lock = threading.Lock()
        self._batches: deque[tuple[int, bytes]] = deque()
        self._most, self._most_bytes, self._bytes = most, most_bytes, 0

    def add(self, number: int, batch: bytes) -> None:
        with self._lock:
            self._batches.append((number, batch))
            self._bytes += len(batch)
            while len(self._batches) > self._most or self._bytes > self._most_bytes:
                self._bytes -= len(self._batches.popleft()[1])

    def since(self, number: int) -> list[tuple[int, bytes]]:
        with self._lock:
            return [kept for kept in self._batches if kept[0] >= number]


class KvEvents:
    """Publishes until :meth:`close`, on threads of its own. The engine must keep events (``cache_events``), and nobody
    else may take them."""

    def __init__(self, engine: _core.Engine, settings: EventSettings) -> None:
        """Raises Unsupported without the extra, InvalidArgument for what is no endpoint, Io for one that is in use."""
        try:
            import msgspec
            import zmq
        except ModuleNotFoundError as error:
            raise Unsupported(f"KV events need {error.name}: pip install 'pagedcore[events]'") from None
        if settings.buffer_steps < 1:
            raise InvalidArgument(f"buffer_steps={settings.buffer_steps} must be 1 or more")
        self._zmq, self._encode = zmq, msgspec.msgpack.Encoder().encode
        self._engine, self._topic = engine, settings.topic.encode()
        self._translation = Translation(engine.memory_plan.block_size, settings.medium)
        self._kept = _Kept(settings.buffer_steps)
        self._number = 0
        self._ended = threading.Event()
        self._context = zmq.Context()
        threads = [threading.Thread(target=self._publish, name="kv-events", daemon=True)]
        try:
            self._pub = self._bound(zmq.PUB, settings.endpoint, _MOST_WAITING)
            if settings.replay_endpoint is not None:
                self._router = self._bound(zmq.ROUTER, settings.replay_endpoint, settings.buffer_steps + 1)
                threads.append(threading.Thread(target=self._replay, name="kv-events-replay", daemon=True))
        except BaseException:
            self._context.destroy(linger=0)
            raise
        self._send([{"type": "AllBlocksCleared"}])  # what one that ended before has said no longer holds
        self._threads = threads
        for thread in threads:
            thread.start()

    def _bound(self, kind: int, endpoint: str, most_waiting: int) -> Any:
        socket = self._context.socket(kind)
        socket.set_hwm(most_waiting)
        socket.setsockopt(self._zmq.LINGER, 0)
        scheme, _, path = endpoint.partition("://")
        if scheme == "ipc" and not path.startswith(("@", "*")):
            remove_stale(path)  # ZeroMQ would replace any file
        try:
            socket.bind(endpoint)
        except self._zmq.ZMQError as error:
            wrong = error.errno in (self._zmq.EPROTONOSUPPORT, self._zmq.EINVAL) or "://" not in endpoint
            if wrong:
                raise InvalidArgument(f"{endpoint!r} is no endpoint such as tcp://127.0.0.1:5557: {error}") from None
            raise Io(f"cannot publish KV events at {endpoint}: {error}") from None
        return socket

    def _publish(self) -> None:
        while not self._ended.is_set():
            try:
                events = self._engine.cache_events(_PATIENCE)
            except Aborted:  # the engine has ended
                return
            batch = self._translation.batch(events)
            if batch:
                self._send(batch)

    def _send(self, events: list[dict[str, Any]]) -> None:
        batch = self._encode([time.time(), events, 0])
        self._kept.add(self._number, batch)
        self._pub.send_multipart((self._topic, self._number.to_bytes(8, "big"), batch))  # a PUB socket never blocks
        self._number += 1

    def _replay(self) -> None:
        while not self._ended.is_set():
            if not self._router.poll(int(_PATIENCE * 1000)):
                continue
            client, *frames = self._router.recv_multipart()
            if len(frames) != 2 or frames[0] or len(frames[1]) != 8:
                continue  # no request: nothing says what would be an answer
            for number, batch in self._kept.since(int.from_bytes(frames[1], "big")):
                self._answer(client, self._topic, number.to_bytes(8, "big"), batch)
            self._answer(client, b"", _END, b"")

    def _answer(self, client: bytes, *frames: bytes) -> None:
        with suppress(self._zmq.ZMQError):  # it has left
            self._router.send_multipart((client, b"", *frames), self._zmq.NOBLOCK)

    def close(self) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join()
        self._context.destroy(linger=0)
