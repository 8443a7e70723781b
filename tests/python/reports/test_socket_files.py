"""A socket is made where nothing is, or where one is that nobody listens on any more. ZeroMQ replaced any file of that
name, without a word: ``--kv-events-endpoint ipc://notes.txt`` was the end of the notes."""

from __future__ import annotations

import socket
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pagedcore.errors import Io
from pagedcore.server.kv_events import KvEvents
from pagedcore.server.settings import EventSettings


class Engine:
    memory_plan = SimpleNamespace(block_size=16)

    def cache_events(self, timeout: float) -> list[Any]:
        threading.Event().wait(timeout)
        return []


@pytest.mark.parametrize("replay", [False, True])
def test_kv_events_leave_what_is_there_alone(tmp_path: Path, replay: bool) -> None:
    notes, link = tmp_path / "notes.txt", tmp_path / "link"
    notes.write_text("precious")
    link.symlink_to(notes)
    engine: Any = Engine()
    for path in (notes, link, tmp_path):
        if replay:
            settings = EventSettings(endpoint="tcp://127.0.0.1:*", replay_endpoint=f"ipc://{path}")
        else:
            settings = EventSettings(endpoint=f"ipc://{path}")
        with pytest.raises(Io, match=rf"{path}: exists, and is no socket"):
            KvEvents(engine, settings)
    assert notes.read_text() == "precious" and link.is_symlink()


def test_a_socket_is_taken_over_only_from_the_dead(tmp_path: Path) -> None:
    path = tmp_path / "kv"
    settings, engine = EventSettings(endpoint=f"ipc://{path}"), Engine()
    first = KvEvents(engine, settings)  # type: ignore[arg-type]
    try:
        with pytest.raises(Io, match="kv"):
            KvEvents(engine, settings)  # type: ignore[arg-type]
    finally:
        first.close()
    left = socket.socket(socket.AF_UNIX)  # by a server that was killed
    path.unlink(missing_ok=True)
    left.bind(str(path))
    left.close()
    KvEvents(engine, settings).close()  # type: ignore[arg-type]
