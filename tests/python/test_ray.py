"""Replicas on Ray's own cluster of two nodes: routing, streams, a replica that is killed, one that drains.

Left out where Ray is not installed (pip install "ray[serve]"): it is 79 MB, and a cluster takes a quarter of a minute
to start. tests/python/test_ray_parts.py tests the parts without it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'ray[serve]'")

from pagedcore.client import RetryingClient  # noqa: E402
from pagedcore.ray import build_app  # noqa: E402

# Nobody outside hears of it; a machine with much to do is waited for.
os.environ.update(
    RAY_USAGE_STATS_ENABLED="0", RAY_agent_register_timeout_ms="120000", RAY_raylet_start_wait_time_s="120"
)
CONFIG: dict[str, Any] = {
    "min_replicas": 2,
    "max_replicas": 2,
    "cpus": 0.5,
    "names": ["m"],
    "engine": {"kv_cache_memory": "64MiB", "threads": 1},
    "report_every": 0.5,
}
BODIES = [
    {"prompt": [1000 + 31 * n, 7, 9 * n + 2], "max_tokens": 80, "temperature": 0.9, "seed": n, "ignore_eos": True}
    for n in range(6)
]


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    from ray import serve
    from ray.cluster_utils import Cluster

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    node = {"num_cpus": 2, "object_store_memory": 100 << 20}
    cluster = Cluster(initialize_head=True, head_node_args={**node, "include_dashboard": False})
    cluster.add_node(**node)
    ray.init(address=cluster.address, logging_level="ERROR", log_to_driver=False)
    serve.start(http_options={"host": "127.0.0.1", "port": port}, logging_config={"log_level": "ERROR"})
    try:
        serve.run(build_app(CONFIG), name="app")
        yield f"http://127.0.0.1:{port}"
    finally:
        serve.shutdown()
        ray.shutdown()
        cluster.shutdown()


def replicas() -> list[int]:
    """Process ids."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if b"ServeReplica:app:replicas" in path.read_bytes():
                found.append(int(path.parent.name))
    return found


def ask(address: str, body: dict[str, Any], retries: int = 0) -> tuple[str, list[int]]:
    client = RetryingClient(address, retries=retries, first_wait=0.1)
    pieces = list(client.completion({**body, "model": "m"}))
    return "".join(piece.text for piece in pieces), [token for piece in pieces for token in piece.token_ids]


def ask_all(address: str, retries: int, meanwhile: Any) -> list[Any]:
    found: list[Any] = [None] * len(BODIES)

    def one(at: int) -> None:
        try:
            found[at] = ask(address, BODIES[at], retries)
        except Exception as error:
            found[at] = error

    threads = [threading.Thread(target=one, args=(at,)) for at in range(len(BODIES))]
    for thread in threads:
        thread.start()
    meanwhile()
    for thread in threads:
        thread.join(timeout=60)
    return found


@pytest.fixture(scope="module")
def expected(address: str) -> list[tuple[str, list[int]]]:
    return [ask(address, body) for body in BODIES]


def test_a_prompt_goes_where_its_prefix_is(address: str) -> None:
    import json
    import urllib.request

    prompt = list(range(100, 500))

    def cached() -> int:
        body = json.dumps({"model": "m", "prompt": prompt, "max_tokens": 2, "temperature": 0}).encode()
        request = urllib.request.Request(address + "/v1/completions", body, {"content-type": "application/json"})
        with urllib.request.urlopen(request, timeout=60) as answer:
            tokens: int = json.load(answer)["usage"]["prompt_tokens_details"]["cached_tokens"]
        return tokens

    deadline = time.monotonic() + 30
    while cached() != 399:  # until replicas have said something
        assert time.monotonic() < deadline
        time.sleep(0.2)
    for _ in range(4):
        time.sleep(0.7)  # what the replica says of itself replaces what the front remembers
        assert cached() == 399


def test_a_bad_call_is_told_what_is_wrong_with_it(address: str) -> None:
    with pytest.raises(Exception, match="temperature = -3 is out of range"):
        ask(address, {"prompt": "x", "temperature": -3})


def test_a_replica_is_killed_and_no_token_is_lost(address: str, expected: list[Any]) -> None:
    assert len(replicas()) == 2

    def kill() -> None:
        time.sleep(0.6)
        os.kill(replicas()[0], signal.SIGKILL)

    assert ask_all(address, 100, kill) == expected
    deadline = time.monotonic() + 60
    while len(replicas()) < 2:  # Ray makes another one
        assert time.monotonic() < deadline
        time.sleep(0.2)


def test_replicas_that_go_finish_what_they_have(address: str, expected: list[Any]) -> None:
    """An upgrade to one replica under another name: the old ones drain. No call breaks: nothing is retried."""
    from ray import serve

    def upgrade() -> None:
        time.sleep(0.3)
        serve.run(build_app({**CONFIG, "min_replicas": 1, "max_replicas": 1, "names": ["m", "new"]}), name="app")

    assert ask_all(address, 0, upgrade) == expected
    assert ask(address, BODIES[0]) == expected[0]
