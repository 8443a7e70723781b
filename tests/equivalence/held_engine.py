"""An engine that waits until all requests of a wave are submitted, so that its plans can be told twice alike.

The engine takes requests when a step has ended, so what a plan holds depends on who was quicker. Here the engine writes
its trace into a pipe that is full. A first request, the plug, has so many tokens that its line in the trace does not
fit into the writer's buffer: the engine stops there until somebody reads. Everything is submitted meanwhile and comes
in at one boundary. The trace shows whether that worked.
"""

from __future__ import annotations

import fcntl
import os
import select
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import spelling

import pagedcore

PLUG_TOKENS = 1100  # 4 bytes of trace each: more than the buffer of a FILE and a pipe of one page
_FILLER = b"#"


class RaceLost(Exception):
    """The engine did not wait."""


class HeldEngine:
    def __init__(self, model: Any, weights: Any, options: dict[str, Any], cpu: dict[str, Any], pipe: Path) -> None:
        pipe.unlink(missing_ok=True)
        os.mkfifo(pipe)
        self._pipe = os.open(pipe, os.O_RDWR)  # a writer too, so that reading never meets an end
        self._size = fcntl.fcntl(self._pipe, fcntl.F_SETPIPE_SZ, 4096)
        self._trace = bytearray()
        config = spelling.engine_config({**options, "trace_file": str(pipe)}, cpu)
        self.engine = pagedcore.Engine(model, weights, config)

    def wave(self, submit_all: Callable[[Any], None], pause: float) -> list[Any]:
        """Calls `submit_all` while the engine waits; all outputs but the plug's, when the last one has come."""
        self._fill()
        try:
            plug = self._submit_held(submit_all, pause)
        except BaseException:
            self.close()  # an engine that waits for a reader for ever could not be closed
            raise
        outputs = []
        with self._reading():
            while self.engine.busy:
                outputs += self.engine.wait(1.0)
            outputs += self.engine.wait(0.0)
        return [output for output in outputs if output.request != plug]

    def _submit_held(self, submit_all: Callable[[Any], None], pause: float) -> int:
        plug = spelling.submit(self.engine, [319] * PLUG_TOKENS, spelling.sampling({"max_tokens": 1}), salt=999)
        time.sleep(pause)  # for the engine to take it; close() checks that it had
        self.engine.abort(plug)
        submit_all(self.engine)
        return plug

    def close(self) -> list[str]:
        """The lines of the trace. Raises RaceLost when a wave came in at more than one boundary."""
        with self._reading():
            self.engine.close()
        os.close(self._pipe)
        lines = self._trace.replace(_FILLER, b"").decode().splitlines()
        lines = [line for line in lines if not line.startswith("costs ")]  # measured
        words = [line.split(" ", 1)[0] for line in lines]
        plugs = [i for i, line in enumerate(lines) if words[i] == "submit" and len(line) > 4 * PLUG_TOKENS]
        for begin, end in zip(plugs, [*plugs[1:], len(lines)], strict=True):
            wave = words[begin:end]
            came = max(i for i, word in enumerate(wave) if word in ("submit", "register"))
            if wave[:4] != ["submit", "plan", "commit", "abort"] or "plan" in wave[4:came]:
                raise RaceLost(f"lines {begin + 1} to {end} of the trace begin with {wave[:8]}")
        return lines

    def _fill(self) -> None:
        os.set_blocking(self._pipe, False)
        with suppress(BlockingIOError):
            while True:
                os.write(self._pipe, _FILLER * self._size)
        os.set_blocking(self._pipe, True)

    @contextmanager
    def _reading(self) -> Iterator[None]:
        stop = threading.Event()
        reader = threading.Thread(target=self._read, args=(stop,))
        reader.start()
        try:
            yield
        finally:
            stop.set()
            reader.join()

    def _read(self, stop: threading.Event) -> None:
        while select.select([self._pipe], [], [], 0.02)[0] or not stop.is_set():
            if select.select([self._pipe], [], [], 0)[0]:
                self._trace += os.read(self._pipe, 1 << 16)
