"""Answers end where the turn ends, whichever file knows it.

Expected: the tokens that config.json, generation_config.json, the tokenizer, GGUF's eos, eot and eom keys name, and
every token spelled as one of those that end generation in llama.cpp (its llama-vocab.cpp), however the file types it.
Ids outside the vocabulary are warned of and ignored. A model ends an answer with a token when it draws it, which a bias
makes it do.
"""

from __future__ import annotations

import json
import logging
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tokenizers import AddedToken
from tokenizers import Tokenizer as Backend
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel

from gguf_writer import write_gguf
from pagedcore import LLM, SamplingParams
from pagedcore.errors import Corrupt
from pagedcore.loading import load_checkpoint
from pagedcore.tokenizer import Tokenizer

Tiny = Callable[..., tuple[Path, Any]]

# llama.cpp's list, as of November 2026.
ENDS = [
    *("<|eot_id|>", "<|im_end|>", "<|end|>", "<|return|>", "<|call|>", "<|flush|>", "<|calls|>", "<end_of_turn>"),
    *(
        "<|endoftext|>",
        "</s>",
        "<|eom_id|>",
        "<EOT>",
        "_<EOT>",
        "[EOT]",
        "[EOS]",
        "<|end_of_text|>",
        "<eos>",
        "<turn|>",
    ),
    *("<end_of_utterance>", "<|tool_response>", "<｜end▁of▁sentence｜>", "[e~["),
    *("<|fim_pad|>", "<fim-pad>", "<fim_pad>", "<PAD>", "[PAD]"),
    *("<|fim_repo|>", "<|repo_name|>", "<fim-repo>", "<REPO>", "<reponame>", "<|file_sep|>"),
]
NORMAL, CONTROL, USER_DEFINED = 1, 3, 4
ALPHABET = sorted(ByteLevel.alphabet())


def metadata(*more: str, kind: int = NORMAL, **ids: int) -> dict[str, Any]:
    tokens = [*ALPHABET, "<base>", *more, "xy"]
    return {
        "general.architecture": "llama",
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.merges": ["x y"],
        "tokenizer.ggml.token_type": [NORMAL] * 256 + [CONTROL] + [kind] * len(more) + [NORMAL],
        "tokenizer.ggml.eos_token_id": 256,
    } | {f"tokenizer.ggml.{name}_token_id": value for name, value in ids.items()}


BEGINNINGS = [
    "<|im_start|>",
    "<|start_header_id|>",
    "<start_of_turn>",
    "<|fim_prefix|>",
    "<｜User｜>",
    "<|reserved_7|>",
]


@pytest.mark.parametrize("kind", [NORMAL, CONTROL, USER_DEFINED])
@pytest.mark.parametrize("spelling", [*ENDS, *BEGINNINGS])
def test_a_known_spelling_is_one_token_however_it_is_typed(spelling: str, kind: int) -> None:
    tokenizer = Tokenizer.from_gguf(metadata(spelling, kind=kind))
    text = f"ab{spelling}\n{spelling}"
    ids = [ALPHABET.index("a"), ALPHABET.index("b"), 257, ALPHABET.index("Ċ"), 257]
    assert tokenizer.encode(text, add_special_tokens=False) == ids
    without = metadata(spelling, kind=kind)
    del without["tokenizer.ggml.token_type"]
    if kind == NORMAL:
        assert Tokenizer.from_gguf(without).encode(text, add_special_tokens=False) == ids


def gguf(tiny: Tiny, tmp_path: Path, *more: str, kind: int = NORMAL, rows: int = 512, **ids: int) -> Path:
    _, model = tiny("llama", vocab_size=rows)
    values = metadata(*more, kind=kind, **ids)

    def edit(writer: Any) -> None:
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre("gpt-2")
        padding = [f"<|pad_{i}|>" for i in range(rows - len(values["tokenizer.ggml.tokens"]))]
        writer.add_token_list(values["tokenizer.ggml.tokens"] + padding)
        writer.add_token_types(values["tokenizer.ggml.token_type"] + [NORMAL] * len(padding))
        writer.add_token_merges(["x y"])
        for key, value in values.items():
            if key.endswith("_token_id"):
                writer.add_uint32(key, value)

    return write_gguf(tmp_path / "model.gguf", model, "llama", edit)


def answer(llm: LLM, end: int) -> Any:
    """What comes of a prompt when the model draws this token as soon as it may draw any."""
    params = SamplingParams(temperature=0, max_tokens=5, logit_bias={end: 1000})
    return llm.generate([[1, 2]], params)[0].outputs[0]


@pytest.mark.parametrize("spelling", ["<|im_end|>", "<end_of_turn>", "<|file_sep|>"])
def test_a_gguf_file_whose_eos_is_the_base_models(tiny: Tiny, tmp_path: Path, spelling: str) -> None:
    with LLM(gguf(tiny, tmp_path, spelling, "<other>"), kv_cache_memory="1MiB") as llm:
        assert [(end.id, end.token) for end in llm.end_tokens] == [(256, "<base>"), (257, spelling)]
        assert "eos_token_id" in llm.end_tokens[0].why and "spelling" in llm.end_tokens[1].why
        assert (answer(llm, 257).token_ids, answer(llm, 257).finish_reason) == ([257], "stop")
        assert (answer(llm, 256).token_ids, answer(llm, 256).finish_reason) == ([256], "stop")
        assert (answer(llm, 258).token_ids, answer(llm, 258).finish_reason) == ([258] * 5, "length")


def test_the_command_line_says_which_were_taken_and_why(tiny: Tiny, tmp_path: Path) -> None:
    path = str(gguf(tiny, tmp_path, "<|im_end|>"))
    flags = ["--max-tokens", "1", "--verbose", "--kv-cache-memory", "1MiB"]
    command = [sys.executable, "-m", "pagedcore", "generate", "ab", "--model", path, *flags]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "token 256 (<base>) ends an answer: tokenizer.ggml.eos_token_id" in done.stderr
    assert "token 257 (<|im_end|>) ends an answer: its spelling" in done.stderr


def test_ids_that_a_gguf_file_declares(tiny: Tiny, tmp_path: Path) -> None:
    path = gguf(tiny, tmp_path, "<a>", "<b>", "<c>", eot=257, eom=258, fim_pad=259)
    with LLM(path, kv_cache_memory="1MiB") as llm:
        assert [end.id for end in llm.end_tokens] == [256, 257, 258, 259]


@pytest.mark.parametrize(
    ("tokens", "ends"),
    [
        # A part of a message ends with <|end|> where the message ends otherwise.
        (["<|return|>", "<|call|>", "<|end|>"], ["<|return|>", "<|call|>"]),
        (["<|calls|>", "<|flush|>", "<|end|>"], ["<|calls|>", "<|flush|>"]),
        (["<|return|>", "<|end|>"], ["<|return|>", "<|end|>"]),
        (["<|tool_response>", "</s>"], ["<|tool_response>"]),
    ],
)
def test_exceptions_of_llama_cpp(tiny: Tiny, tmp_path: Path, tokens: list[str], ends: list[str]) -> None:
    with LLM(gguf(tiny, tmp_path, *tokens), kv_cache_memory="1MiB") as llm:
        assert [end.token for end in llm.end_tokens[1:]] == ends


@pytest.mark.parametrize("name", ["eos", "eot", "eom", "bos", "unknown", "padding", "seperator", "mask", "fim_pad"])
@pytest.mark.parametrize("value", [512, 2**32 - 1])
def test_gguf_ids_outside_the_vocabulary_are_warned_of(
    tiny: Tiny, tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str, value: int
) -> None:
    path = gguf(tiny, tmp_path, "<|im_end|>", **{name: value})
    with caplog.at_level(logging.WARNING, "pagedcore"), LLM(path, kv_cache_memory="1MiB") as llm:
        assert answer(llm, 257).finish_reason == "stop"
        assert answer(llm, 300).finish_reason == "length"  # nothing is said about stop_token_ids
    (line,) = [record.getMessage() for record in caplog.records if f"{name}_token_id" in record.getMessage()]
    assert str(path) in line and str(value) in line and "ignored" in line


def test_gguf_ids_that_are_no_numbers_are_one_error(tmp_path: Path) -> None:
    for name in ("bos", "eot", "padding"):
        with pytest.raises(Corrupt, match=f"tokenizer.ggml.{name}_token_id"):
            Tokenizer.from_gguf(metadata(**{name: "x"}))  # type: ignore[arg-type]


def directory(tiny: Tiny, tmp_path: Path, added: list[AddedToken], **files: dict[str, Any] | None) -> Path:
    folder = tmp_path / "model"
    shutil.copytree(tiny("llama", vocab_size=512)[0], folder)
    backend = Backend(BPE(vocab={char: i for i, char in enumerate(ALPHABET)}, merges=[]))
    backend.pre_tokenizer = ByteLevel(add_prefix_space=False)
    backend.add_tokens(added)
    backend.save(str(folder / "tokenizer.json"))
    for name in ("config", "generation_config", "tokenizer_config"):
        path = folder / f"{name}.json"
        values = json.loads(path.read_text()) if path.exists() else {}
        for field in ("eos_token_id", "bos_token_id", "pad_token_id"):
            values.pop(field, None)
        path.write_text(json.dumps(values | (files.get(name) or {})))
    return folder


TOKENS = [AddedToken(text, special=True) for text in ("<a>", "<b>", "<c>", "<|im_end|>")]  # 256, ...


@pytest.mark.parametrize(
    ("files", "ends"),
    [
        ({}, {259: "spelling"}),
        ({"tokenizer_config": {"eos_token": "<b>"}}, {257: "tokenizer", 259: "spelling"}),
        (
            {"config": {"eos_token_id": 256}, "tokenizer_config": {"eos_token": "<b>"}},
            {256: "config.json", 257: "token"},
        ),
        (
            {"config": {"eos_token_id": 256}, "generation_config": {"eos_token_id": [257, 258]}},
            {256: "", 257: "", 258: ""},
        ),
        ({"generation_config": {"eos_token_id": [259]}}, {259: "generation_config.json"}),
        ({"tokenizer_config": {"eos_token": "not a token"}}, {260: "tokenizer"}),  # as AutoTokenizer, which adds it
    ],
)
def test_what_ends_a_turn_in_a_directory(
    tiny: Tiny, tmp_path: Path, files: dict[str, dict[str, Any]], ends: dict[int, str]
) -> None:
    with LLM(directory(tiny, tmp_path, TOKENS, **files), kv_cache_memory="1MiB") as llm:
        why = {end.id: end.why for end in llm.end_tokens}
        assert why.keys() == ends.keys() | {259}
        for token, source in ends.items():
            assert source in why[token]
            assert answer(llm, token).finish_reason == "stop"


@pytest.mark.parametrize("value", [512, -1, [256, 600], 10**20])
@pytest.mark.parametrize("file", ["config", "generation_config"])
def test_ids_outside_the_vocabulary_of_a_directory(
    tiny: Tiny, tmp_path: Path, caplog: pytest.LogCaptureFixture, file: str, value: Any
) -> None:
    folder = directory(tiny, tmp_path, TOKENS, **{file: {"eos_token_id": value}})
    with caplog.at_level(logging.WARNING, "pagedcore"), LLM(folder, kv_cache_memory="1MiB") as llm:
        kept = {256} if isinstance(value, list) else set()
        assert {end.id for end in llm.end_tokens} == kept | {259}
        assert answer(llm, 300).finish_reason == "length"
    (line,) = [record.getMessage() for record in caplog.records if "eos_token_id" in record.getMessage()]
    assert f"{file}.json" in line and "ignored" in line


def test_declared_ids_are_read_without_the_tokenizer(tiny: Tiny, tmp_path: Path) -> None:
    folder = directory(tiny, tmp_path, TOKENS, config={"eos_token_id": 3}, generation_config={"eos_token_id": [4, 3]})
    assert load_checkpoint(folder).eos_token_ids == [3, 4]
