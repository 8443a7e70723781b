"""Token ids and texts against transformers, and tokenizers built from GGUF metadata against independent references."""

from __future__ import annotations

import random
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from pagedcore import LLM, Corrupt, InvalidArgument, Io, Unsupported
from pagedcore.tokenizer import Tokenizer
from texts import varied_texts

TEXTS = varied_texts(500)


@pytest.fixture(scope="module")
def tokenizer(llm_bf16: LLM) -> Tokenizer:
    assert llm_bf16.tokenizer is not None
    return llm_bf16.tokenizer


def test_ids_and_texts_equal_those_of_transformers(tokenizer: Tokenizer, reference_tokenizer: Any) -> None:
    for text in TEXTS:
        ids = tokenizer.encode(text)
        assert ids == reference_tokenizer.encode(text), repr(text)
        assert tokenizer.decode(ids) == text
        skipped = reference_tokenizer.decode(ids, skip_special_tokens=True)
        assert tokenizer.decode(ids, skip_special_tokens=True) == skipped


def test_special_tokens_are_single_tokens(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("<|im_start|>user<|im_end|>")
    assert (ids[0], ids[-1]) == (1, 2)
    assert tokenizer.is_special(1)
    assert not tokenizer.is_special(ids[1])
    assert tokenizer.special_tokens["eos_token"] == "<|im_end|>"
    assert tokenizer.id_to_token(1) == "<|im_start|>"
    assert tokenizer.token_to_id("<|im_start|>") == 1
    assert tokenizer.token_to_id("no such token") is None


def test_a_directory_and_the_gguf_file_agree(tokenizer: Tokenizer, reference_tokenizer: Any, tmp_path: Path) -> None:
    reference_tokenizer.save_pretrained(tmp_path)
    other = Tokenizer.from_path(tmp_path)
    assert other.special_tokens == tokenizer.special_tokens
    for text in TEXTS[:100]:
        assert other.encode(text) == tokenizer.encode(text)


def test_building_from_gguf_metadata_is_quick(gguf: Path) -> None:
    from pagedcore.loading import load_description

    times = []
    for _ in range(3):
        source = load_description(gguf).tokenizer
        assert source is not None and source.metadata is not None
        start = time.process_time()  # others may use the machine
        Tokenizer.from_gguf(source.metadata)
        times.append(time.process_time() - start)
    assert min(times) < 0.25


def test_text_that_is_no_text_is_refused(tokenizer: Tokenizer) -> None:
    with pytest.raises(InvalidArgument, match="must be a str"):
        tokenizer.encode(b"bytes")  # type: ignore[arg-type]
    with pytest.raises(InvalidArgument, match="not valid Unicode"):
        tokenizer.encode("lone surrogate \ud800")


def test_a_missing_or_broken_tokenizer_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(Io, match=r"tokenizer\.json"):
        Tokenizer.from_path(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{not json")
    with pytest.raises(Corrupt, match=r"tokenizer\.json"):
        Tokenizer.from_path(tmp_path)


# Byte-level vocabularies of other families


def _byte_level(**changes: Any) -> dict[str, Any]:
    from pagedcore.tokenizer.byte_level import BYTE_TO_CHAR

    alphabet = [BYTE_TO_CHAR[byte] for byte in range(256)]
    merges = ["1 2", "12 3", "123 4", "Ġ a", "a b", "h i", "hi hi"]
    tokens = [*alphabet, *(merge.replace(" ", "") for merge in merges), "<s>", "</s>", "<tool>"]
    values = {
        "general.architecture": "llama",
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "llama-bpe",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.merges": merges,
        "tokenizer.ggml.token_type": [1] * (len(tokens) - 3) + [3, 3, 4],
        "tokenizer.ggml.bos_token_id": len(tokens) - 3,
        "tokenizer.ggml.eos_token_id": len(tokens) - 2,
    }
    return {key: value for key, value in (values | changes).items() if value is not None}


def _pieces(metadata: dict[str, Any], text: str) -> list[str]:
    tokens = metadata["tokenizer.ggml.tokens"]
    return [tokens[i] for i in Tokenizer.from_gguf(metadata).encode(text, add_special_tokens=False)]


@pytest.mark.parametrize(
    ("pre", "pieces"),
    [
        ("llama-bpe", ["123", "4"]),  # digits by threes
        ("qwen2", ["1", "2", "3", "4"]),  # digits apart
        ("gpt-2", ["1234"]),
        ("starcoder", ["1", "2", "3", "4"]),
    ],
)
def test_pre_tokenizers_cut_digits_as_the_models_were_trained(pre: str, pieces: list[str]) -> None:
    assert _pieces(_byte_level(**{"tokenizer.ggml.pre": pre}), "1234") == pieces


@pytest.mark.parametrize(
    ("architecture", "token", "pre", "pieces"),
    [
        ("llama", "<|begin_of_text|>", None, ["123", "4"]),  # Llama 3, as converted before files named their cut
        ("qwen2", None, None, ["1", "2", "3", "4"]),
        ("gpt2", None, "", ["1234"]),
        ("starcoder2", None, None, ["1", "2", "3", "4"]),
        ("llama", None, None, ["123", "4"]),  # llama.cpp's default: threes of digits
    ],
)
def test_a_cut_that_is_not_named_goes_by_marks_and_architecture(
    architecture: str, token: str | None, pre: str | None, pieces: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    metadata = _byte_level(**{"tokenizer.ggml.pre": pre, "general.architecture": architecture})
    if token is not None:
        metadata["tokenizer.ggml.tokens"][-1] = token
    assert _pieces(metadata, "1234") == pieces
    (record,) = caplog.records
    assert "tokenizer.ggml.pre is missing" in record.getMessage()


def test_beginning_and_end_of_sequence_follow_the_flags() -> None:
    metadata = _byte_level()
    bos, eos = metadata["tokenizer.ggml.bos_token_id"], metadata["tokenizer.ggml.eos_token_id"]
    assert Tokenizer.from_gguf(metadata).encode("x")[0] == bos  # the default of the family
    plain = Tokenizer.from_gguf(metadata | {"tokenizer.ggml.add_bos_token": False})
    assert plain.encode("x") == plain.encode("x", add_special_tokens=False)
    both = Tokenizer.from_gguf(metadata | {"tokenizer.ggml.add_eos_token": True})
    assert (both.encode("x")[0], both.encode("x")[-1]) == (bos, eos)


def test_user_defined_tokens_are_matched_whole_but_are_text() -> None:
    tokenizer = Tokenizer.from_gguf(_byte_level())
    ids = tokenizer.encode("a<tool></s>", add_special_tokens=False)
    assert tokenizer.decode(ids, skip_special_tokens=True) == "a<tool>"


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"tokenizer.ggml.model": "rwkv"}, Unsupported, "'rwkv'"),
        ({"tokenizer.ggml.pre": "no-such-split"}, Unsupported, "'no-such-split'"),
        ({"tokenizer.ggml.tokens": None}, Corrupt, "no vocabulary"),
        ({"tokenizer.ggml.merges": ["a zzz"]}, Corrupt, "'a zzz'"),
        ({"tokenizer.ggml.merges": None}, Corrupt, "no merges"),
    ],
)
def test_metadata_that_cannot_be_served_is_named(changes: dict[str, Any], error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        Tokenizer.from_gguf(_byte_level(**changes))


# SentencePiece


def _sentencepiece(**changes: Any) -> dict[str, Any]:
    words = ["th", "the", "in", "ing", "an", "and", "er", "\u2581t", "\u2581the", "\u2581a", "\u2581an", "\u2581and"]
    letters = ["\u2581", *"abcdefghijklmnopqrstuvwxyz.,"]
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *words, *letters]
    scores = [0.0] * 259 + [-float(rank) for rank in range(len(words))] + [-100.0 - i for i in range(len(letters))]
    return {
        "general.architecture": "llama",
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.scores": scores,
        "tokenizer.ggml.token_type": [2, 3, 3] + [6] * 256 + [1] * (len(words) + len(letters)),
        "tokenizer.ggml.unknown_token_id": 0,
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
    } | changes


def _sentencepiece_reference(metadata: dict[str, Any], text: str) -> list[str]:
    """The algorithm itself: join the neighbours whose union scores best, the leftmost first, until none is a token."""
    scores = dict(zip(metadata["tokenizer.ggml.tokens"], metadata["tokenizer.ggml.scores"], strict=True))
    symbols = list(("\u2581" + text).replace(" ", "\u2581"))
    while True:
        joined = [(-scores[a + b], i) for i, (a, b) in enumerate(pairwise(symbols)) if a + b in scores]
        if not joined:
            break
        _, at = min(joined)
        symbols[at : at + 2] = [symbols[at] + symbols[at + 1]]
    out: list[str] = []
    for symbol in symbols:
        out += [symbol] if symbol in scores else [f"<0x{byte:02X}>" for byte in symbol.encode()]
    return out


def test_sentencepiece_equals_its_algorithm() -> None:
    metadata = _sentencepiece()
    tokenizer = Tokenizer.from_gguf(metadata)
    rng = random.Random(1)
    words = ["the", "thing", "and", "another", "an", "in", "er", "é", "猫", "t", "ing.", " ", "  ", "bathe,"]
    for _ in range(300):
        text = " ".join(rng.choices(words, k=rng.randrange(1, 9))).lstrip() or "the"
        ids = tokenizer.encode(text, add_special_tokens=False)
        assert [metadata["tokenizer.ggml.tokens"][i] for i in ids] == _sentencepiece_reference(metadata, text)
        assert tokenizer.decode(ids) == text
        assert tokenizer.encode(text) == [1, *ids]


def test_sentencepiece_equals_transformers() -> None:
    """With the normalizer of Llama 2's published tokenizer.json: SentencePiece's add_dummy_prefix puts a space before
    any text. transformers 5 puts none before one that begins with a space."""
    from tokenizers import normalizers, pre_tokenizers
    from transformers import LlamaTokenizer
    from transformers.tokenization_utils_base import generate_merges

    metadata = _sentencepiece()
    tokens = metadata["tokenizer.ggml.tokens"]
    vocab = {token: index for index, token in enumerate(tokens)}
    scores = dict(zip(tokens, metadata["tokenizer.ggml.scores"], strict=True))
    reference = LlamaTokenizer(vocab=vocab, merges=generate_merges(vocab, scores), add_bos_token=True)
    backend = reference.backend_tokenizer
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
    backend.pre_tokenizer = pre_tokenizers.Sequence([])
    tokenizer = Tokenizer.from_gguf(metadata)
    for text in TEXTS:
        ids = tokenizer.encode(text)
        assert ids == reference.encode(text), repr(text)
        assert tokenizer.decode(ids) == reference.decode(ids)


def test_sentencepiece_without_prefix_space() -> None:
    tokenizer = Tokenizer.from_gguf(_sentencepiece(**{"tokenizer.ggml.add_space_prefix": False}))
    assert tokenizer.decode(tokenizer.encode(" the", add_special_tokens=False)) == " the"
    assert tokenizer.encode("the", add_special_tokens=False) != tokenizer.encode(" the", add_special_tokens=False)


def test_sentencepiece_needs_scores() -> None:
    metadata = _sentencepiece()
    del metadata["tokenizer.ggml.scores"]
    with pytest.raises(Corrupt, match="score"):
        Tokenizer.from_gguf(metadata)
