"""The command line as a user meets it: outputs, exit statuses and error messages."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import interrupts
from pagedcore import LLM, SamplingParams, __version__

HINT = "pagedcore: the model has a chat template: --chat makes a message of each prompt\n"
MEMORY = ["--kv-cache-memory", "48MiB"]


def cli(*arguments: object, stdin: str = "", timeout: float = 60) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pagedcore", *map(str, arguments)]
    return subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=timeout, check=False)


def test_version() -> None:
    assert cli("--version").stdout == f"pagedcore {__version__}\n"


COMMANDS = (
    *("generate", "chat", "batch", "score", "embed", "tokenize", "convert", "plan", "bench", "simulate", "calibrate"),
)


@pytest.mark.parametrize(
    "command", [[], *([name] for name in (*COMMANDS, "serve", "top", "selftest", "doctor", "completion"))]
)
def test_help_teaches(command: list[str]) -> None:
    done = cli(*command, "--help")
    assert done.returncode == 0
    assert "usage: pagedcore" in done.stdout
    assert "examples:" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 120


def test_generate_prints_the_text(llm_bf16: LLM) -> None:
    expected = llm_bf16.generate("Two plus two is", SamplingParams(temperature=0, max_tokens=12))[0].outputs[0].text
    flags = ["--temperature", "0", "--max-tokens", "12", *MEMORY]
    by_argument = cli("generate", "Two plus two is", *flags)
    assert (by_argument.returncode, by_argument.stdout, by_argument.stderr) == (0, expected + "\n", HINT)
    assert cli("generate", *flags, stdin="Two plus two is").stdout == expected + "\n"


def test_generate_json(llm_bf16: LLM) -> None:
    done = cli(
        "generate",
        "A",
        "B",
        "-n",
        2,
        "--seed",
        3,
        "--max-tokens",
        4,
        "--logprobs",
        1,
        "--ignore-eos",
        "--temperature",
        1,
        "--json",
        *MEMORY,
    )
    assert done.returncode == 0, done.stderr
    first, second = map(json.loads, done.stdout.splitlines())
    params = SamplingParams(n=2, seed=3, max_tokens=4, logprobs=1, ignore_eos=True)
    for found, expected in zip((first, second), llm_bf16.generate(["A", "B"], params), strict=True):
        assert [s["token_ids"] for s in found["outputs"]] == [s.token_ids for s in expected.outputs]
        assert [s["text"] for s in found["outputs"]] == [s.text for s in expected.outputs]
        assert all(len(s["logprobs"]) == 4 for s in found["outputs"])


def test_plan(gguf: Path) -> None:
    plan = LLM.plan(gguf, kv_cache_memory="100MiB")
    table = cli("plan", "--kv-cache-memory", "100MiB")
    assert (table.returncode, table.stdout) == (0, f"{plan}\n")
    found = json.loads(cli("plan", "-m", gguf, "--kv-cache-memory", "100MiB", "--json").stdout)
    assert found == plan.to_dict()
    wide = json.loads(cli("plan", "--kv-cache-memory", "100MiB", "--dtype", "float32", "--json").stdout)
    assert wide["kv_tokens"] * 2 == pytest.approx(found["kv_tokens"], rel=0.01)


@pytest.fixture
def trace(tmp_path: Path) -> dict[str, Path]:
    csv, jsonl = tmp_path / "trace.csv", tmp_path / "trace.jsonl"
    csv.write_text("input_tokens,output_tokens\n5,3\n20,4\n9,2\n")
    jsonl.write_text(
        '{"timestamp": 0, "input_length": 5, "output_length": 3}\n{"input_length": 20, "output_length": 4}\n'
    )
    return {"csv": csv, "jsonl": jsonl}


def test_bench_throughput(tiny: Any, trace: dict[str, Path]) -> None:
    model = ["--model", tiny("llama")[0], "--kv-cache-memory", "1MiB"]
    fixed = json.loads(
        cli(*["bench", "throughput", "--num-prompts", 3, "--input-len", 7, "--output-len", 5, "--json", *model]).stdout
    )
    assert (fixed["requests"], fixed["input_tokens"], fixed["output_tokens"]) == (3, 21, 15)
    csv = json.loads(cli("bench", "throughput", "--trace", trace["csv"], "--json", *model).stdout)
    assert (csv["requests"], csv["input_tokens"], csv["output_tokens"]) == (3, 34, 9)
    jsonl = json.loads(cli("bench", "throughput", "--trace", trace["jsonl"], "--json", *model).stdout)
    assert (jsonl["requests"], jsonl["input_tokens"], jsonl["output_tokens"]) == (2, 25, 7)
    table = cli("bench", "throughput", "--trace", trace["csv"], "--num-prompts", 1, *model).stdout
    assert "generated tokens" in table


def test_bench_latency(tiny: Any) -> None:
    model = ["--model", tiny("llama")[0], "--kv-cache-memory", "1MiB", "--num-prompts", 2, "--output-len", 4]
    found = json.loads(cli("bench", "latency", "--json", *model).stdout)
    for name in ("first_token", "per_token", "request"):
        assert 0 < found[name]["p50"] <= found[name]["max"]
    assert "p99" in cli("bench", "latency", *model).stdout


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["generate", "x", "--temperature", "-1"], 2, "temperature"),
        (["generate", "x", "--kv-cache-memory", "lots"], 2, "lots"),
        (["generate", ""], 2, "empty"),
        (["bench", "throughput", "--num-prompts", "0"], 2, "num-prompts"),
        (["generate", "x", "--no-such-flag"], 2, "pagedcore generate: error: there is no flag --no-such-flag ("),
        (["generate", "--max-tok", "3", "x"], 2, "there is no flag --max-tok; did you mean --max-tokens?"),
        (["generate", "--max-new-tokens=3", "x"], 2, "there is no flag --max-new-tokens; use --max-tokens ("),
        (["serve", "--gpu-memory-utilisation", "0.5"], 2, "did you mean --gpu-memory-utilization?"),
        (["batch", "x", "--chunked-prefill-size", "64"], 2, "use --max-batched-tokens ("),
        (["tokenize", "a", "--verbos"], 2, "did you mean --verbose? (pagedcore tokenize --help"),
        (["generate", "x", "--stop-token-ids", "7;8"], 2, "'7;8' is no list of token ids, such as 5,17"),
        (["generate", "x", "--logit-bias", "7=1"], 2, "'7=1' is no list of biases, such as 5:1.5,17:-inf"),
        (["generate", "x", "--threads", "0"], 2, "it must lie in [1, 4096], or be left out for the number of CPUs"),
        (["generate", "x", "--swap-space", "4"], 2, "swap_space = 4 bytes holds no block: one takes"),
        (["nonsense"], 2, "nonsense"),
        (["generate", "x", "--model", "/no/such.gguf"], 1, "/no/such.gguf"),
        (["plan", "--model", "/no/such.gguf"], 1, "/no/such.gguf"),
        (["plan", "--kv-cache-memory", "10"], 2, "block"),
        (["bench", "latency", "--trace", "/no/such.csv"], 1, "/no/such.csv"),
    ],
    ids=str,
)
def test_errors_are_one_line_and_a_status(arguments: list[str], status: int, message: str) -> None:
    done = cli(*arguments)
    assert done.returncode == status
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert done.stdout == ""


def test_flags_as_others_write_them() -> None:
    ours = cli("plan", "--json", "--kv-cache-memory", "64MiB", "--max-context", 512, "--max-sequences", 8)
    theirs = cli("plan", "--json", "--kv-cache-memory", "64MiB", "--max-model-len", 512, "--max-num-seqs", 8)
    assert ours.returncode == 0
    assert theirs.stdout == ours.stdout


def test_debug_shows_the_traceback() -> None:
    assert "Traceback" in cli("plan", "--model", "/no/such.gguf", "--debug").stderr


def test_a_prompt_too_long_is_an_error() -> None:
    done = cli("generate", "--max-context", 16, "--kv-cache-memory", "1MiB", stdin="word " * 100)
    assert done.returncode == 2
    assert "leaves no room in a context of 16" in done.stderr


def test_chat_over_a_pipe(llm_bf16: LLM) -> None:
    params = SamplingParams(temperature=0, max_tokens=16)
    messages = [{"role": "user", "content": "Name a colour."}]
    first = llm_bf16.chat(messages, params)[0].outputs[0].text
    messages += [{"role": "assistant", "content": first}, {"role": "user", "content": "Another one."}]
    second = llm_bf16.chat(messages, params)[0].outputs[0].text
    flags = ["--temperature", "0", "--max-tokens", "16", *MEMORY]
    lines = "Name a colour.\nAnother one.\n/reset\nName a colour.\n/nonsense\n/exit\nnever read\n"
    done = cli("chat", *flags, stdin=lines)
    assert done.returncode == 0
    assert done.stdout == f"{first}\n{second}\n{first}\n"
    assert "/nonsense" in done.stderr
    assert cli("chat", *MEMORY).returncode == 0  # the end of the input


class Terminal:
    """Reads what a program writes to its terminal, up to an expected text."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._seen = b""

    def wait_for(self, text: bytes, seconds: float = 30) -> None:
        end = time.monotonic() + seconds
        while text not in self._seen:
            ready, _, _ = select.select([self._descriptor], [], [], max(0.0, end - time.monotonic()))
            assert ready, self._seen
            self._seen += os.read(self._descriptor, 4096)
        self._seen = self._seen.split(text, 1)[1]

    def type(self, text: bytes) -> None:
        os.write(self._descriptor, text)


def test_chat_in_a_terminal_survives_ctrl_c() -> None:
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "pagedcore", "chat", "--max-tokens", "4000", "--ignore-eos", *MEMORY]
    process = interrupts.start(command, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True)
    os.close(theirs)
    terminal = Terminal(ours)
    try:
        terminal.wait_for(b"> ")
        terminal.type(b"Tell me a long story.\n")
        terminal.wait_for(b"story.\r\n")
        terminal.wait_for(b" ")  # it speaks
        process.send_signal(signal.SIGINT)
        terminal.wait_for(b"(stopped)")
        terminal.wait_for(b"> ")
        terminal.type(b"/exit\n")
        assert process.wait(timeout=10) == 0
    finally:
        process.kill()
        process.wait()
        os.close(ours)


def test_ctrl_c_is_status_130() -> None:
    command = [sys.executable, "-m", "pagedcore", "generate", "Once", "--max-tokens", "4000", "--ignore-eos", *MEMORY]
    process = interrupts.start(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None and process.stdout.read(1)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=10)
        assert process.returncode == 130
        assert "Traceback" not in err
    finally:
        process.kill()
        process.wait()


def test_a_closed_pipe_is_no_traceback() -> None:
    command = (
        f"{sys.executable} -m pagedcore generate Once --max-tokens 400 --ignore-eos {' '.join(MEMORY)} | head -c 1"
    )
    done = subprocess.run(command, shell=True, capture_output=True, text=True, timeout=60, check=False)
    assert "Traceback" not in done.stderr
    assert "Exception" not in done.stderr
