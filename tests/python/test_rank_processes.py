"""Ranks as processes: the bits of one on the default model, and after any of them is killed or frozen."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from pagedcore import LLM, BeamSearchParams, InvalidArgument, Io, SamplingParams
from pagedcore.rank_processes import RankProcesses
from texts import PROMPTS

SAMPLED = SamplingParams(temperature=0.8, top_p=0.95, seed=11, max_tokens=12, logprobs=2, ignore_eos=True, n=2)
GREEDY = SamplingParams(temperature=0, max_tokens=10, logprobs=1, ignore_eos=True)
MIXED = [GREEDY, SAMPLED, GREEDY, SAMPLED]
WAIT = {"rank_deadline": 60, "rank_patience": 300}  # of a busy machine


def bits(outputs: list[Any]) -> list[Any]:
    return [[(s.token_ids, s.logprobs, s.finish_reason) for s in output.outputs] for output in outputs]


def free_address() -> str:
    with socket.socket() as some:
        some.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{some.getsockname()[1]}"


def answers(llm: LLM) -> list[Any]:
    prompts = ["".join(PROMPTS[:4]), *PROMPTS[6:9]]
    found = bits(llm.generate(prompts, MIXED, progress=False))
    llm.engine.force_preemption(3)
    assert bits(llm.generate(prompts[:2], MIXED[:2], progress=False)) == found[:2]
    llm.engine.force_preemption(4, "swap")
    assert bits(llm.generate(prompts[2:], MIXED[2:], progress=False)) == found[2:]
    llm.engine.force_preemption(0)
    beams = llm.beam_search(prompts[2], BeamSearchParams(beam_width=3, max_tokens=8), progress=False)
    return [*found, [[(s.token_ids, s.score) for s in output.outputs] for output in beams]]


@pytest.mark.parametrize(
    ("dtype", "ranks", "tcp"), [("float32", 2, False), ("bfloat16", 3, True), ("int8", 2, False)], ids=str
)
def test_default_model(dtype: str, ranks: int, tcp: bool, gguf: Path) -> None:
    common: dict[str, Any] = {"dtype": dtype, "kv_cache_memory": "48MiB", "swap_space": "16MiB"}
    with LLM(gguf, threads=1, **common) as one:
        want = answers(one)
    options: dict[str, Any] = {"tensor_parallel": ranks, "threads": ranks, "max_batched_tokens": 64, **common, **WAIT}
    if tcp:
        options["rank_address"] = free_address()
    with RankProcesses(gguf, options) as processes, LLM(gguf, **processes.options) as several:
        processes.watch(several.engine)
        assert answers(several) == want
        assert several.stats()["ranks"] == ranks
        assert f"{ranks} processes" in several.engine.describe()


def test_killed_and_frozen(gguf: Path) -> None:
    """A rank that is killed, or stopped, at any time: outputs are those of one, and nobody is told."""
    prompts = list(PROMPTS[:6])
    params = [SamplingParams(temperature=0.8, seed=i, max_tokens=48, logprobs=1, ignore_eos=True) for i in range(6)]
    common: dict[str, Any] = {"kv_cache_memory": "48MiB", "dtype": "bfloat16"}
    with LLM(gguf, threads=1, **common) as one:
        want = bits(one.generate(prompts, params, progress=False))
        one.register_prefix("kept", PROMPTS[0])
        kept = bits(one.generate([PROMPTS[0] + " and"], GREEDY, progress=False, prefix="kept"))
    options: dict[str, Any] = {"tensor_parallel": 2, "threads": 2, **common, "rank_deadline": 8, "rank_patience": 300}
    with RankProcesses(gguf, options) as processes, LLM(gguf, **processes.options) as llm:
        processes.watch(llm.engine)
        llm.register_prefix("kept", PROMPTS[0])
        for number, after in ((signal.SIGKILL, 0.0), (signal.SIGKILL, 0.4), (signal.SIGSTOP, 0.2)):
            (pid,) = processes.pids
            timer = threading.Timer(after, os.kill, (pid, number))
            timer.start()
            assert bits(llm.generate(prompts, params, progress=False)) == want
            timer.join()
            assert bits(llm.generate(prompts, params, progress=False)) == want
            assert bits(llm.generate([PROMPTS[0] + " and"], GREEDY, progress=False, prefix="kept")) == kept
            assert processes.pids != [pid]
        assert llm.engine.rank_losses()[1][0] >= 1


def worker(*flags: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pagedcore", "worker", *map(str, flags)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


def test_worker_says_what_is_wrong(gguf: Path, tmp_path: Path) -> None:
    """One line and a status: nobody listens, a secret that others can read, one that is too short."""
    secret = tmp_path / "token"
    secret.write_text("0123456789abcdef\n")
    secret.chmod(0o644)
    flags = ("--connect", free_address(), "--token-file", secret, "-m", gguf, "--rank-patience", 0.5)
    done = worker(*flags)
    assert done.returncode == 2
    assert "is open to others than its owner; chmod 600 it" in done.stderr
    secret.chmod(0o600)
    done = worker(*flags)
    assert done.returncode == 1
    assert done.stderr.startswith("pagedcore: ")
    assert "connect" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    secret.write_text("short")
    done = worker(*flags)
    assert "write at least 16 random ones" in done.stderr
    assert worker(*flags, "--rank", 0).returncode == 2


def test_port_in_use(gguf: Path, tmp_path: Path) -> None:
    secret = tmp_path / "token"
    secret.write_text("0123456789abcdef")
    secret.chmod(0o600)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(Io, match=address):
            LLM(gguf, tensor_parallel=2, rank_address=address, rank_token_file=secret, kv_cache_memory="48MiB")


def test_refusals() -> None:
    with pytest.raises(InvalidArgument, match="leaves no rank to be a process"):
        RankProcesses(None, {"tensor_parallel": 1})
    with pytest.raises(InvalidArgument, match="exceeds threads = 2"):
        RankProcesses(None, {"tensor_parallel": 3, "threads": 2})
