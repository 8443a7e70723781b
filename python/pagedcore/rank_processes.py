"""The ranks of an engine as processes of this machine: started, watched, started anew."""

from __future__ import annotations

import atexit
import logging
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import InvalidArgument

if TYPE_CHECKING:
    from . import _core

__all__ = ["RankProcesses"]

_log = logging.getLogger("pagedcore")
_PERIOD = 0.05  # seconds between two looks at them
_MOST_FAILURES = 5  # in a row, of one that does not even live for _SHORT seconds
_SHORT = 10.0


class RankProcesses:
    """Starts ranks 1 to N-1 of ``LLM(model, tensor_parallel=N, ...)``, each ``pagedcore worker`` with its share of
    ``threads``; rank 0 is the LLM that is made with :attr:`options`. One that dies is started anew, and so is one that
    the watched engine has lost, which is killed first. Closing, or the end of this process, ends them::

        with RankProcesses(model, {"tensor_parallel": 2}) as ranks, LLM(model, **ranks.options) as llm:
            ranks.watch(llm.engine)
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | None,
        options: Mapping[str, Any],
        *,
        mmap: bool = False,
        revision: str | None = None,
        token: str | None = None,
    ) -> None:
        """``options``: those of the LLM. With a ``rank_address`` of this host ranks come there, else to a Unix socket
        and through shared memory; a secret is drawn unless there is a ``rank_token_file``. ``token``: of the hub."""
        size = options.get("tensor_parallel") or 1
        if not isinstance(size, int) or size < 2:
            raise InvalidArgument(f"tensor_parallel = {size!r} leaves no rank to be a process: set 2 or more")
        threads = options.get("threads") or len(os.sched_getaffinity(0))
        if threads < size:
            raise InvalidArgument(
                f"tensor_parallel = {size} exceeds threads = {threads}: a rank has one thread at least; use fewer"
                " ranks, or set threads"
            )
        self._folder = Path(tempfile.mkdtemp(prefix="pagedcore-ranks-"))  # for this user only
        own: dict[str, Any] = {"rank_address": f"unix:{self._folder}/ranks"}
        own["rank_token_file"] = str(self._folder / "token")
        file = os.open(own["rank_token_file"], os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(file, "w") as secret:
            secret.write(secrets.token_urlsafe(32))
        share = [threads * (rank + 1) // size - threads * rank // size for rank in range(size)]
        self.options: dict[str, Any] = own | dict(options) | {"threads": share[0]}
        """For the LLM that is rank 0."""
        meeting = {"--connect": self.options["rank_address"], "--token-file": self.options["rank_token_file"]}
        for name in ("rank_deadline", "rank_patience"):
            if name in options:
                meeting["--" + name.replace("_", "-")] = options[name]
        where = {"--model": model, "--revision": revision}
        self._commands: list[list[str]] = []
        for rank in range(1, size):
            flags = meeting | where | {"--rank": rank, "--threads": share[rank]}
            words = [word for flag, value in flags.items() if value is not None for word in (flag, str(value))]
            words += ["--mmap"] if mmap else []
            self._commands.append([sys.executable, "-m", "pagedcore", "worker", *words])
        self._environment = os.environ | ({"HF_TOKEN": token} if token else {})
        self._engine: _core.Engine | None = None
        self._failures = [0] * size
        self._closing = threading.Event()
        self._lock = threading.Lock()
        self._begun = [0.0] * (size - 1)
        self._processes = [self._start(rank) for rank in range(1, size)]
        atexit.register(self.close)
        self._watcher = threading.Thread(target=self._watch, name="pagedcore-ranks", daemon=True)
        self._watcher.start()

    @property
    def pids(self) -> list[int]:
        """Of the processes that are ranks 1 and up, as of now."""
        with self._lock:
            return [process.pid for process in self._processes]

    def watch(self, engine: _core.Engine) -> None:
        """Of this engine, rank 0, losses are heard: a rank may live and yet be lost, when it is frozen."""
        self._engine = engine

    def close(self) -> None:
        """Ends them, a second later by force. Idempotent. Close the LLM first: then they end by themselves."""
        self._closing.set()
        if self._watcher is not threading.current_thread():
            self._watcher.join()
        end = time.monotonic() + 1.0
        for process in self._processes:
            try:
                process.wait(max(0.0, end - time.monotonic()) if self._engine is not None else 0.0)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        shutil.rmtree(self._folder, ignore_errors=True)
        atexit.unregister(self.close)

    def __enter__(self) -> RankProcesses:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _start(self, rank: int) -> subprocess.Popen[bytes]:
        self._begun[rank - 1] = time.monotonic()
        return subprocess.Popen(
            self._commands[rank - 1],
            stdin=subprocess.DEVNULL,
            env=self._environment,
            start_new_session=True,  # Ctrl-C is for rank 0, which ends them when it has answered
        )

    def _watch(self) -> None:
        while not self._closing.wait(_PERIOD):
            losses = self._engine.rank_losses() if self._engine is not None else []
            for rank in range(1, len(self._processes) + 1):
                self._look_at(rank, losses[rank][1] if losses else 0)

    def _look_at(self, rank: int, lost: int) -> None:
        """``lost``: the process that the engine lost last as this rank."""
        process = self._processes[rank - 1]
        if process.pid == lost and process.poll() is None:
            time.sleep(_PERIOD)  # one that is dying is dead then
            if process.poll() is None:
                _log.warning("rank %d is lost, though its process %d is there: it is killed", rank, lost)
                process.kill()
                process.wait()
        status = process.poll()
        if status is None or status == 0 or self._failures[rank] >= _MOST_FAILURES:
            return
        lived = time.monotonic() - self._begun[rank - 1]
        self._failures[rank] = self._failures[rank] + 1 if status > 0 and lived < _SHORT else 0
        if self._failures[rank] >= _MOST_FAILURES:
            _log.error("rank %d ended %d times in a row, with status %d: it stays away", rank, _MOST_FAILURES, status)
            return
        how = f"signal {-status}" if status < 0 else f"status {status}"
        _log.warning("rank %d, process %d, ended with %s: it is started anew", rank, process.pid, how)
        with self._lock:
            self._processes[rank - 1] = self._start(rank)
