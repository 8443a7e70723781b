"""Names of files as callers give them: whatever is wrong is one error of ours that says what, at once.

Expected: Io for what the system does not open, InvalidArgument for what no file is called; names that are not UTF-8, as
Linux allows them, are opened.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pagedcore import LLM, SamplingParams, _core
from pagedcore.errors import Corrupt, InvalidArgument, Io
from pagedcore.loading import load_checkpoint, load_description
from pagedcore.loading.container import save_container
from pagedcore.tokenizer import Tokenizer

Tiny = Callable[..., tuple[Path, Any]]
LONG = "x" * 300  # NAME_MAX is 255
OUTSIDE = os.fsdecode(b"m\xff\xfe")  # as Python spells bytes that are not UTF-8


@pytest.mark.parametrize("path", [LONG, f"a/{LONG}", f"./{LONG}", "x" * 5000, "y/" * 3000])
def test_names_that_are_too_long(path: str) -> None:
    for call in (load_description, Tokenizer.from_path, lambda path: LLM.plan(path), lambda path: LLM(tokenizer=path)):
        with pytest.raises(Io, match=r"File name too long|no such file|no tokenizer at") as raised:
            call(path)
        assert len(str(raised.value)) < 500
    with pytest.raises(Io):
        _core.InputFile(path)


@pytest.mark.parametrize("path", ["x/..", "x/.", "..x/y", "x/-y.", "x--y/z", "a/b..c", "./a/b", "a//b", "a/b/c", "é/b"])
def test_what_no_model_on_the_hub_is_called(path: str) -> None:
    with pytest.raises(Io, match="there is no such file or directory, and it is no hub id"):
        load_description(path)
    with pytest.raises(InvalidArgument, match="expected hub:owner/name"):
        load_description(f"hub:{path}")


@pytest.mark.parametrize(
    ("url", "meant"),
    [
        ("https://huggingface.co/org/name", "hub:org/name"),
        ("https://huggingface.co/org/name/tree/main", "hub:org/name"),
        ("HTTPS://hf.co/org/name.gguf", "hub:org/name.gguf"),
        ("hf://org/name", "hub:org/name"),
        ("file:///tmp/model.gguf", "hub:owner/name"),
        ("http://x", "hub:owner/name"),
        ("hub:https://huggingface.co/org/name", "hub:org/name"),
    ],
)
def test_a_url_is_no_name(url: str, meant: str) -> None:
    with pytest.raises(InvalidArgument, match="is a URL") as raised:
        load_description(url)
    assert f"'{meant}'" in str(raised.value)


class _Bytes(os.PathLike[bytes]):
    def __fspath__(self) -> bytes:
        return b"x"


@pytest.mark.parametrize("path", [5, b"x", None, [], _Bytes(), ""])
def test_what_is_no_path(path: Any) -> None:
    if path is not None:  # the model of the package, the checkpoint's tokenizer
        with pytest.raises(InvalidArgument, match="a model is a path"):
            LLM.plan(path)
        with pytest.raises(InvalidArgument, match="a tokenizer is a path"):
            LLM(tokenizer=path)
    with pytest.raises(InvalidArgument, match="a tokenizer is a path"):
        Tokenizer.from_path(path)


def test_a_tokenizer_that_is_no_regular_file(tmp_path: Path) -> None:
    """Expected is the kind of file, not that there is none; nothing may wait for a writer."""
    file = tmp_path / "tokenizer.json"
    os.mkfifo(file)
    for path in (file, tmp_path):
        with pytest.raises(Io, match=r"tokenizer\.json: is a FIFO"):
            Tokenizer.from_path(path)
    file.unlink()
    file.symlink_to("/dev/zero")
    with pytest.raises(Io, match="is a device"):
        Tokenizer.from_path(file)
    file.unlink()
    file.symlink_to("nowhere")
    with pytest.raises(Io, match="is a link to 'nowhere'"):
        Tokenizer.from_path(file)
    file.unlink()
    with pytest.raises(Io, match="no tokenizer at"):
        Tokenizer.from_path(tmp_path)


@pytest.mark.parametrize("index", [{}, {"weight_map": {}}, {"metadata": {"total_size": 5}}, {"weight_map": None}])
def test_an_index_of_weights_that_names_none(tiny: Tiny, tmp_path: Path, index: dict[str, Any]) -> None:
    shutil.copy(tiny("llama")[0] / "config.json", tmp_path)
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(Corrupt, match=r"model\.safetensors\.index\.json: has no weight_map, or an empty one"):
        load_checkpoint(tmp_path)


def test_an_empty_file_is_said_to_be_empty(tmp_path: Path) -> None:
    (tmp_path / "model.gguf").touch()
    with pytest.raises(Corrupt, match=r"model\.gguf: is empty"):
        load_description(tmp_path / "model.gguf")


def test_names_that_are_not_utf8_are_opened(tiny: Tiny, tmp_path: Path) -> None:
    """A directory, a container in it, a trace and a swap file: what they give is what they give under other names."""
    folder = tmp_path / OUTSIDE
    shutil.copytree(tiny("llama")[0], folder)
    container = folder / f"{OUTSIDE}.pagedcore"
    with load_checkpoint(folder) as checkpoint:
        save_container(container, checkpoint)
    greedy = SamplingParams(temperature=0, max_tokens=4)
    outputs = []
    trace = folder / f"{OUTSIDE}.trace"
    for path in (tiny("llama")[0], folder, str(container)):
        options = {"trace_file": trace, "swap_file": folder / "swap", "swap_space": "1MiB"} if path == folder else {}
        with LLM(path, kv_cache_memory="1MiB", **options) as llm:
            outputs.append(llm.generate([[1, 2, 3]], greedy)[0].outputs[0].token_ids)
            assert llm.model == os.fspath(path)
    assert outputs[0] == outputs[1] == outputs[2] and len(outputs[0]) == 4
    assert _core.replay_trace(str(trace)).steps > 0
    config = _core.EngineConfig(trace_file=str(trace))
    assert config.trace_file == str(trace)
    with pytest.raises(Io, match="there is no such file or directory"):
        load_description(tmp_path / "other" / OUTSIDE)
    with pytest.raises(InvalidArgument, match="half of a surrogate pair"):
        load_description("\ud800")


def test_the_command_line_opens_them_too(tiny: Tiny, tmp_path: Path) -> None:
    folder = tmp_path / OUTSIDE
    shutil.copytree(tiny("llama")[0], folder)
    command = [sys.executable, "-m", "pagedcore"]
    flags = ["-m", os.fspath(folder), "--kv-cache-memory", "1MiB"]
    done = subprocess.run([*command, "plan", *flags], capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    done = subprocess.run([*command, "generate", "x", *flags], capture_output=True, check=False)
    assert done.returncode == 2 and b"the model has no tokenizer" in done.stderr  # it was opened
    done = subprocess.run([*command, "plan", "-m", os.fspath(folder / OUTSIDE)], capture_output=True, check=False)
    assert done.returncode != 0 and b"no such file" in done.stderr and b"Traceback" not in done.stderr
