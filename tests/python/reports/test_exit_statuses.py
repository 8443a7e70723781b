"""One rule for the exit statuses of all commands: 0 done, 2 what was given is refused, 1 anything else, 130 Ctrl-C.

What was given is what ``InvalidArgument`` is raised for, or what the parser refuses; a file that is missing or damaged,
a model that is not served, memory, and a request that fails are 1. Flags are taken from the parser.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import pytest

from pagedcore.cli import _parser, main

# What each command needs besides the flag, so that nothing else is wrong with it.
NEEDED = {
    "generate": ["generate", "hi"],
    "bench": ["bench", "throughput"],
    "embed": ["embed", "hi"],
    "score": ["score", "hi"],
    "tokenize": ["tokenize", "hi"],
    "convert": ["convert", "-o", "model.pagedcore"],
    "serve": ["serve", "--port", "0"],
    "fleet": ["fleet", "--model", "llama-3.1-8b", "--device", "h100", "--trace", "no_such_trace.jsonl"],
    "simulate": ["simulate", "--model", "llama-7b", "--device", "a100-40gb", "--rate", "1", "--seconds", "100"],
}
# The value is any text: nothing that is written there can be wrong by itself.
FREE_TEXT = {
    *("--choice", "--revision", "--stop", "--system", "--prefix", "--name"),
    *("--served-model-name", "--cors-origin", "--token", "--regex", "--kv-events-topic"),
}
# The value names a file, which is not there or cannot be made: status 1.
FILES = {
    *("--lengths", "--model", "--trace", "--conversations", "--swap-file", "--trace-file", "--tokenizer", "--output"),
    *("--timeline-file", "--kv-store", "--config", "--uds", "--api-key-file", "--chat-template", "--ssl-certfile"),
    *("--json-schema", "--grammar", "--structural-tag"),
}
# Refused before anybody looks for the file: it would have no effect.
UNUSED = {("plan", "--trace"), ("plan", "--lengths"), ("simulate", "--conversations"), ("top", "--ssl-ca-certs")}
# A plan makes no file; a model that another process serves has any name.
NOT_TRIED = {("plan", "--swap-file"), ("plan", "--kv-store"), ("top", "--model")}


def commands() -> Iterator[tuple[str, argparse.ArgumentParser]]:
    for action in _parser()._actions:
        if isinstance(action, argparse._SubParsersAction):
            yield from action.choices.items()


def flags() -> Iterator[object]:
    for command, parser in commands():
        for action in parser._actions:
            if action.option_strings and action.nargs != 0:
                flag = action.option_strings[-1]
                if flag not in FREE_TEXT and (command, flag) not in NOT_TRIED:
                    yield pytest.param(command, flag, id=f"{command} {flag}")


@pytest.mark.parametrize(("command", "flag"), list(flags()))
def test_a_wrong_value_of_any_flag(
    command: str, flag: str, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A text that is no number, no size and no word of a list; or a file in a folder that there is not."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("asyncio.run", no_server)
    wrong = "/no/such/folder/file" if flag in FILES else "@wrong@"
    status = main_status([*NEEDED.get(command, [command]), flag, wrong])
    out, err = capfd.readouterr()
    assert status == (1 if flag in FILES and (command, flag) not in UNUSED else 2), err
    assert out == ""
    (line,) = err.splitlines()
    # It says which of the flags it was.
    assert wrong in line or flag in line or flag.lstrip("-").replace("-", "_") in line


def no_server(*_: object) -> None:
    pytest.fail("a server began, which would wait for ever")


def main_status(arguments: list[str]) -> int:
    try:
        return main(arguments)
    except SystemExit as end:  # the parser's
        return int(end.code or 0)


# What is refused only with another flag, or with the model at hand.
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["plan", "--swap-space", "4"], "swap_space = 4 bytes holds no block"),
        (["plan", "--kv-cache-memory", "10"], "holds no block"),
        (["plan", "--max-context", "100000"], "positions that the model was made for"),
        (
            ["generate", "--max-context", "16", "--kv-cache-memory", "1MiB", "word " * 100],
            "leaves no room in a context of 16",
        ),
        (["simulate", "--device", "foo", "--model", "llama-7b"], "device 'foo' is neither one of"),
        (["selftest", "--isa", "foo"], "unknown instruction set 'foo'"),
        (["selftest", "--dtype", "float16"], "computes in float32 or bfloat16"),
        (["generate", "hi", "--dtype", "float16"], "computes in float32 or bfloat16"),
        (["generate", "hi", "--swap-file", ""], "swap_file='' names no file"),
        (["generate", "hi", "--trace-file", ""], "trace_file='' names no file"),
        (["generate", "hi", "--plugin", "libx.so"], "plugin = libx.so has no effect: it is for device = 'cuda'"),
        (["generate", "hi", "--graph-rows", "5"], "graph_rows = 5 has no effect"),
        (
            ["generate", "hi", "--preemption", "recompute", "--swap-space", "1GiB"],
            "has no effect: it is for preemption",
        ),
        (["generate", "hi", "--prompt-weight", "3"], "prompt_weight = 3 has no effect: it is for order = 'fair'"),
    ],
    ids=str,
)
def test_what_is_refused_is_2(arguments: list[str], message: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert main_status(arguments) == 2
    out, err = capfd.readouterr()
    (line,) = [line for line in err.splitlines() if "the model has a chat template" not in line]
    assert out == "" and message in line


def test_what_fails_is_1(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Files that are missing, damaged, or of no known kind; a device that the machine lacks."""
    damaged = tmp_path / "damaged.gguf"
    damaged.write_bytes(b"GGUF\3\0\0\0")
    (tmp_path / "trace.csv").write_text("nothing,of,use\n")
    (tmp_path / "device.json").write_text("{}")
    for arguments in (
        ["generate", "hi", "--model", str(damaged)],
        ["bench", "throughput", "--trace", str(tmp_path / "trace.csv")],
        ["replay", str(tmp_path / "trace.csv")],
        ["replay", str(tmp_path / "none")],
        ["simulate", "--model", "llama-7b", "--device", str(tmp_path / "device.json")],
        ["simulate", "--model", "llama-7b", "--device", str(tmp_path / "none.json")],
        ["selftest", "--device", "cuda:99"],
    ):
        assert main_status(arguments) == 1, arguments
        out, err = capfd.readouterr()
        assert (out, len(err.splitlines())) == ("", 1), arguments
