"""Prefixes that outlive an engine, in a directory, and go to another one, over a pipe: the same bits, less work."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pagedcore import LLM, Corrupt, InvalidArgument, Io, SamplingParams, Unsupported

PARAMS = SamplingParams(temperature=0.8, seed=5, max_tokens=12, logprobs=2)
LONG = "The sea was calm and the boat lay still. " * 20
PROMPTS = [
    LONG + "Then",
    LONG + "A bird",
    "One two three four five six seven eight nine ten eleven twelve thirteen " * 3,
]
SIZES = {"kv_cache_memory": "96MiB", "max_sequences": 8}


def said(llm: LLM, **options: Any) -> list[tuple[Any, ...]]:
    outputs = llm.generate(PROMPTS, PARAMS, progress=False, **options)
    return [(o.outputs[0].token_ids, o.outputs[0].logprobs) for o in outputs]


@pytest.fixture(scope="module")
def expected(gguf: Path) -> list[tuple[Any, ...]]:
    with LLM(gguf, **SIZES) as llm:
        return said(llm)


# rule: engine.store-is-a-cache
def test_a_restart_finds_its_tokens_and_says_the_same(gguf: Path, tmp_path: Path, expected: list[Any]) -> None:
    store = tmp_path / "kv"
    with LLM(gguf, kv_store=store, kv_store_size="256MiB", **SIZES) as llm:
        assert said(llm) == expected
        assert "KV store" in str(llm.memory_plan())
    assert {oct(store.stat().st_mode & 0o777)} == {"0o700"}
    assert {oct(file.stat().st_mode & 0o777) for file in store.iterdir()} == {"0o600"}
    with LLM(gguf, kv_store=store, kv_store_size="256MiB", **SIZES) as llm:
        assert said(llm) == expected
        stats = llm.stats()
        whole = sum(len(llm.tokenize(prompt)) // 16 * 16 for prompt in PROMPTS[1:])  # the first two share theirs
        assert stats["kv_store_hit_tokens"] >= 0.95 * whole
        assert stats["kv_store_errors"] == 0
        said(llm, salt=8)
        assert llm.stats()["kv_store_hit_tokens"] == stats["kv_store_hit_tokens"]
    with LLM(gguf, kv_store=store, kv_store_size="256MiB", dtype="float32", **SIZES) as llm:  # other numbers
        said(llm)
        assert llm.stats()["kv_store_hit_tokens"] == 0


def test_a_store_of_another_model_is_shared_and_nothing_of_it_is_used(
    tiny: Callable[..., tuple[Path, Any]], tmp_path: Path
) -> None:
    folder, _ = tiny("llama")
    other, _ = tiny("qwen2")
    prompt = list(range(3, 90))
    for path, hits in ((folder, 0), (other, 0), (folder, 80)):
        with LLM(path, kv_store=tmp_path / "kv", kv_store_size="64MiB") as llm:
            llm.generate(prompt, SamplingParams(max_tokens=2), progress=False)
            assert llm.stats()["kv_store_hit_tokens"] == hits


def run_limited(limit: str, folder: Path, store: Path) -> dict[str, float]:
    """The statistics of an engine that generates in a process that lives under a limit, from the first model on."""
    code = """
        import json, os, resource, sys, time
        from pagedcore import LLM, SamplingParams
        params = SamplingParams(max_tokens=4, ignore_eos=True)
        def run(**options):
            with LLM(sys.argv[1], **options) as llm:
                for first in (3, 30):
                    output = llm.generate(list(range(first, first + 90)), params, progress=False)[0]
                    assert len(output.outputs[0].token_ids) == 4, output
                for _ in range(100 if options else 0):  # a thread writes, when it comes to it
                    if llm.stats()["kv_store_errors"]:
                        break
                    time.sleep(0.05)
                return llm.stats()
        run()  # so that all modules are loaded
        exec(sys.argv[3])
        print(json.dumps(run(kv_store=sys.argv[2], kv_store_size="64MiB")))
    """
    command = [sys.executable, "-c", textwrap.dedent(code), str(folder), str(store), limit]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def test_a_full_disk_costs_no_request(tiny: Callable[..., tuple[Path, Any]], tmp_path: Path) -> None:
    folder, _ = tiny("llama")

    limit = "resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))"  # not even the head of a file
    stats = run_limited(limit, folder, tmp_path / "kv")
    assert stats["kv_store_errors"] > 0 and stats["kv_store_bytes_written"] == 0


def test_a_directory_that_may_only_be_read_is_read(tiny: Callable[..., tuple[Path, Any]], tmp_path: Path) -> None:
    folder, _ = tiny("llama")
    store = tmp_path / "kv"
    with LLM(folder, kv_store=store, kv_store_size="64MiB") as llm:
        llm.generate(list(range(3, 93)), SamplingParams(max_tokens=4), progress=False)
    for parent in (tmp_path, *tmp_path.parents, folder, *folder.parents):
        if str(parent).startswith(str(Path(os.environ.get("TMPDIR", "/tmp")))) and parent.stat().st_uid == os.getuid():
            parent.chmod(parent.stat().st_mode | 0o055)
    for file in folder.iterdir():
        file.chmod(0o644)
    for file in [store, *store.iterdir()]:
        if os.getuid() == 0:
            os.chown(file, 65534, 65534)
        file.chmod(0o500 if file == store else 0o400)

    try:  # root may write everywhere
        stats = run_limited("os.seteuid(65534)" if os.getuid() == 0 else "", folder, store)
    finally:
        store.chmod(0o700)
    assert stats["kv_store_hit_tokens"] >= 80
    assert stats["kv_store_errors"] > 0 and stats["kv_store_bytes_written"] == 0


def test_a_killed_engine_leaves_what_verifies(tiny: Callable[..., tuple[Path, Any]], tmp_path: Path) -> None:
    folder, _ = tiny("llama")
    code = """
        import sys
        from pagedcore import LLM, SamplingParams
        llm = LLM(sys.argv[1], kv_store=sys.argv[2], kv_store_size="64MiB")
        for round in range(10_000):
            tokens = [3 + (round * 7 + i * i) % 90 for i in range(200)]
            llm.generate(tokens, SamplingParams(max_tokens=1), progress=False)
            print(round, flush=True)
    """
    command = [sys.executable, "-c", textwrap.dedent(code), str(folder), str(tmp_path / "kv")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for _ in range(20):
            assert process.stdout.readline()
        process.send_signal(signal.SIGKILL)
    with LLM(folder, kv_store=tmp_path / "kv", kv_store_size="64MiB") as llm, LLM(folder) as other:
        for round in range(0, 20, 3):
            tokens = [3 + (round * 7 + i * i) % 90 for i in range(200)]
            mine, theirs = (
                engine.generate(tokens, SamplingParams(max_tokens=6, logprobs=1), progress=False)[0].outputs[0]
                for engine in (llm, other)
            )
            assert (mine.token_ids, mine.logprobs) == (theirs.token_ids, theirs.logprobs)
        assert llm.stats()["kv_store_errors"] == 0
        assert llm.stats()["kv_store_hit_tokens"] > 0


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"kv_store": "{}/a/b"}, Io, "the directory cannot be made"),
        ({"kv_store": "{}/file"}, Io, "is no directory"),
        (
            {"kv_store": "{}/kv", "enable_prefix_caching": False},
            InvalidArgument,
            "kv_store keeps what the prefix cache",
        ),
        ({"kv_store": "{}/kv", "kv_store_size": 5}, InvalidArgument, "kv_store_size = 5 bytes holds no block"),
        ({"kv_store_size": "1GiB"}, InvalidArgument, "has no effect: it is for a kv_store"),
    ],
)
def test_what_cannot_work_is_refused(
    tiny: Callable[..., tuple[Path, Any]], tmp_path: Path, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    (tmp_path / "file").write_bytes(b"x")
    given = {name: value.format(tmp_path) if name == "kv_store" else value for name, value in options.items()}
    with pytest.raises(error, match=message):
        LLM(tiny("llama")[0], **given)


# rule: engine.transfer-is-whole
def test_prefill_in_one_process_and_decode_in_another(gguf: Path, expected: list[Any]) -> None:
    code = """
        import sys
        from pagedcore import LLM, SamplingParams
        with LLM(sys.argv[1], kv_transfer=True, kv_cache_memory="96MiB", max_sequences=8) as llm:
            for prompt in sys.argv[2:]:
                llm.generate(prompt, SamplingParams(max_tokens=0), progress=False)
                data = llm.export_prefix(prompt)
                sys.stdout.buffer.write(len(data).to_bytes(8, "little") + data)
    """
    command = [sys.executable, "-c", textwrap.dedent(code), str(gguf), *PROMPTS]
    with (
        LLM(gguf, kv_transfer=True, **SIZES) as llm,
        subprocess.Popen(command, stdout=subprocess.PIPE) as process,
    ):
        assert process.stdout is not None
        for prompt in PROMPTS:
            data = process.stdout.read(int.from_bytes(process.stdout.read(8), "little"))
            assert llm.import_prefix(io.BytesIO(data)) == len(llm.tokenize(prompt)) // 16 * 16
        assert said(llm) == expected
        assert llm.stats()["prefix_hit_tokens"] >= sum(len(llm.tokenize(p)) // 16 * 16 for p in PROMPTS)
        with pytest.raises(Corrupt, match="cut off"):
            llm.import_prefix(data[:-1])
        with pytest.raises(Corrupt, match="damaged"):
            llm.import_prefix(data[:-1] + bytes([data[-1] ^ 1]))
        with pytest.raises(TypeError, match="mode 'rb'"):
            llm.import_prefix(io.StringIO("text"))  # type: ignore[arg-type]
        with pytest.raises(InvalidArgument, match="compute them first"):
            llm.export_prefix(PROMPTS[0], salt=99)
    with LLM(gguf, dtype="float32", kv_transfer=True, **SIZES) as other, pytest.raises(InvalidArgument, match="dtype"):
        other.import_prefix(data)


def test_without_the_option_nothing_leaves(tiny: Callable[..., tuple[Path, Any]]) -> None:
    with LLM(tiny("llama")[0]) as llm, pytest.raises(Unsupported, match="kv_transfer = true"):
        llm.export_prefix([1] * 40)
