"""A file that ends in an error takes at most 4 times its size and 64 MiB of memory, whatever it is made of.

Each kind is opened in a child of its own, whose peak is what the kernel counted (VmHWM). Sizes and limit are
arithmetic: files of some 10 MB whose Python objects, made one by one, would take 9 to 60 times as much.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from pagedcore.loading import load_checkpoint
from peak_memory import peak_of

SIZE = 10_000_000
U8, U32, FLOAT, BOOL, TEXT, ARRAY = 0, 4, 6, 7, 8, 9


def text(value: bytes) -> bytes:
    return struct.pack("<Q", len(value)) + value


def entry(key: str, kind: int, value: bytes) -> bytes:
    return text(key.encode()) + struct.pack("<I", kind) + value


def array(kind: int, count: int, data: bytes) -> bytes:
    return struct.pack("<IQ", kind, count) + data


def gguf(entries: list[bytes], tensors: list[bytes] | None = None) -> bytes:
    tensors = tensors or []
    return b"".join([b"GGUF", struct.pack("<IQQ", 3, len(tensors), len(entries)), *entries, *tensors])


def texts(values: list[bytes]) -> bytes:
    return array(TEXT, len(values), b"".join(map(text, values)))


def tokenizer(**fields: tuple[int, bytes]) -> bytes:
    """All of a tokenizer's fields, and what is wrong with one of them; no model."""
    entries = [entry("tokenizer.ggml.model", TEXT, text(fields.pop("model", (0, b"gpt2"))[1]))]
    return gguf([*entries, *(entry(f"tokenizer.ggml.{name}", kind, value) for name, (kind, value) in fields.items())])


def nested(count: int) -> bytes:
    return array(ARRAY, count, array(U8, 0, b"") * count)


TOKENS = [b"%x" % i for i in range(1 << 19)]
FEW = TOKENS[: 1 << 18]
KINDS: dict[str, Callable[[], bytes]] = {
    "bytes": lambda: gguf([entry("x", ARRAY, array(U8, SIZE, bytes(SIZE)))]),
    "booleans": lambda: gguf([entry("x", ARRAY, array(BOOL, SIZE, bytes(SIZE - 1) + b"\2"))]),
    "floats": lambda: gguf([entry("x", ARRAY, array(FLOAT, SIZE // 4, bytes(SIZE)))]),
    "short texts": lambda: gguf([entry("x", ARRAY, texts([b"ab"] * (SIZE // 10)))]),
    "empty texts": lambda: gguf([entry("x", ARRAY, texts([b""] * (SIZE // 8)))]),
    "more empty texts": lambda: gguf([entry("x", ARRAY, texts([b""] * (3 * SIZE // 8)))]),
    "a long text": lambda: gguf([entry("x", TEXT, text(b"a" * SIZE + "\U0001f600".encode()))]),
    "arrays in arrays": lambda: gguf([entry("x", ARRAY, nested(SIZE // 12))]),
    "some arrays in arrays": lambda: gguf([entry("x", ARRAY, nested(60_000))] * 2),
    "keys": lambda: gguf([entry(f"{i:x}", U8, b"\0") for i in range(SIZE // 18)]),
    "some keys": lambda: gguf([entry(f"{i:x}", U8, b"\0") for i in range(60_000)] + [entry("0", U8, b"\0")]),
    "tensors": lambda: gguf([], [text(b"%x" % i) + struct.pack("<IQIQ", 1, 1, 0, 0) for i in range(SIZE // 33)]),
    "some tensors": lambda: gguf([], [text(b"%x" % i) + struct.pack("<IQIQ", 1, 1, 0, 32 * i) for i in range(60_000)]),
    "tokens": lambda: tokenizer(tokens=(ARRAY, texts([*TOKENS[1:], TOKENS[1]]))),
    "too many tokens": lambda: tokenizer(tokens=(ARRAY, texts([*TOKENS, b"x"]))),
    "merges": lambda: tokenizer(
        tokens=(ARRAY, texts(FEW)), merges=(ARRAY, texts([b"1 %x" % (i % 4096) for i in range(SIZE // 14)] + [b"1"]))
    ),
    "scores": lambda: tokenizer(
        model=(0, b"llama"),
        tokens=(ARRAY, texts(TOKENS)),
        scores=(ARRAY, array(FLOAT, len(TOKENS), bytes(4 * len(TOKENS) - 4) + struct.pack("<f", float("nan")))),
    ),
    "ways to join": lambda: tokenizer(
        model=(0, b"llama"),
        tokens=(ARRAY, texts([b"a" * i for i in range(1, 1600)])),
        scores=(ARRAY, array(FLOAT, 1599, bytes(4 * 1599))),
    ),
    "types": lambda: tokenizer(tokens=(ARRAY, texts(FEW)), token_type=(ARRAY, array(BOOL, len(FEW), bytes(len(FEW))))),
}


def build(path: Path) -> None:
    """What an LLM does with a file before it has an engine. Of one without a model, the tokenizer alone."""
    from pagedcore.loading.gguf import GgufFile
    from pagedcore.tokenizer import Tokenizer

    metadata = GgufFile(path).metadata
    if "tokenizer.ggml.model" in metadata:
        Tokenizer.from_gguf(metadata, path.name)
    load_checkpoint(path)


@pytest.mark.parametrize("kind", KINDS)
def test_what_ends_in_an_error_takes_little(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(KINDS[kind]())
    import tokenizers  # noqa: F401  # before the fork: its own memory is not the file's

    peak, ended = peak_of(lambda: build(path))
    assert ended.startswith("Corrupt: ") and "model.gguf" in ended, ended
    most = 4 * path.stat().st_size + (64 << 20)
    assert peak < most, f"{peak >> 20} MiB of {most >> 20}: {ended}"
