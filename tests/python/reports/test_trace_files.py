"""`trace_file` holds the token ids of every prompt: it is made anew, for its owner alone, and nothing is waited for."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pagedcore import LLM, SamplingParams
from pagedcore.errors import InvalidArgument, Io

Tiny = Callable[..., tuple[Path, Any]]


def open_with(model: Path, trace: Path) -> LLM:
    return LLM(model, kv_cache_memory="1MiB", trace_file=trace)


def test_a_trace_is_a_new_file_for_its_owner(tiny: Tiny, tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        with open_with(tiny("llama")[0], tmp_path / "trace") as llm:
            llm.generate([[1, 2]], SamplingParams(max_tokens=1))
    finally:
        os.umask(old)
    assert (tmp_path / "trace").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "trace").read_text().startswith("pagedcore-trace 4\n")


def test_what_is_there_is_left_alone(tiny: Tiny, tmp_path: Path) -> None:
    """A file was truncated, a link was followed."""
    (tmp_path / "file").write_text("precious")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    (tmp_path / "folder").mkdir()
    for name in ("file", "link", "dangling", "folder"):
        with pytest.raises(Io, match=rf"{name}: is there already, and a trace is written to a new file: remove it"):
            open_with(tiny("llama")[0], tmp_path / name)
    assert (tmp_path / "file").read_text() == "precious"
    assert not (tmp_path / "nowhere").exists()


def test_a_fifo_that_nobody_reads_is_refused_at_once(tiny: Tiny, tmp_path: Path) -> None:
    """The constructor waited for a reader for ever. One that is read is taken: whoever made it chose it."""
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(Io, match="fifo: is a FIFO that nobody reads"):
        open_with(tiny("llama")[0], tmp_path / "fifo")
    reader = os.open(tmp_path / "fifo", os.O_RDONLY | os.O_NONBLOCK)
    os.set_blocking(reader, True)
    read: list[bytes] = []
    thread = threading.Thread(target=lambda: read.extend(iter(lambda: os.read(reader, 65536), b"")))
    with open_with(tiny("llama")[0], tmp_path / "fifo") as llm:
        thread.start()
        llm.generate([[1, 2]], SamplingParams(max_tokens=1))
    thread.join()
    os.close(reader)
    assert b"".join(read).startswith(b"pagedcore-trace 4\n")


def test_a_swap_space_beyond_the_memory_is_refused_with_the_arithmetic(tiny: Tiny) -> None:
    """It was accepted, as memory is taken when it is used; then the kernel ended the process."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    with pytest.raises(
        InvalidArgument, match=r"swap_space = [0-9]+ bytes beside weights .* are left; lower swap_space"
    ):
        LLM(tiny("llama")[0], kv_cache_memory="1MiB", swap_space=2 * total)
    with LLM(tiny("llama")[0], kv_cache_memory="1MiB", swap_space="64MiB"):
        pass
