"""Long texts are refused by their length, and encoded while other threads run.

Reported: a text of some MB held the GIL for 1.7 s a MB before it was refused as too long.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
import tokenizers
from tokenizers import models, normalizers, pre_tokenizers

from pagedcore import LLM, InvalidArgument
from pagedcore.families import SPLITS
from pagedcore.tokenizer import Tokenizer, pieces
from texts import tokenizer_texts

TEXTS = tokenizer_texts(1500)


def _documents(rng: random.Random, count: int) -> list[str]:
    return ["".join(rng.choices(TEXTS, k=150)) for _ in range(count)]


@pytest.fixture
def small_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces, "_WINDOW", 500)


@pytest.mark.usefixtures("small_windows")
def test_pieces_add_up_to_the_whole(llm_bf16: LLM) -> None:
    """The library's encoding of the whole text is what the pieces must give."""
    tokenizer = llm_bf16.tokenizer
    assert tokenizer is not None
    for text in _documents(random.Random(1), 25):
        assert tokenizer.encode(text) == tokenizer.backend.encode(text).ids


_SHAPES: dict[str, Callable[[random.Random], str]] = {
    "one word": lambda rng: "a" * 9000,
    "digits": lambda rng: "1234567" * 1500,
    "spaces, then a word": lambda rng: " " * 7000 + "a" * 10,
    "lines without end": lambda rng: "\n" * 6000 + "x",
    "no spaces": lambda rng: "".join(rng.choices("日本語文字漢字、。", k=8000)),
    "marks": lambda rng: "e\u0301a\u0308" * 3000,
    "numbers": lambda rng: "".join(rng.choices(["1", "23", "4567", "123456", " ", "½", "x", ".", "\n", "aa"], k=5000)),
    "special tokens": lambda rng: "<|im_start|>a<|im_end|>" * 500,
    "alternating": lambda rng: "".join(rng.choices([" ", "  ", "a", "\n", "1", "."], k=9000)),
    "special tokens and spaces": lambda rng: "".join(rng.choices(["<s>", " ", "  ", " w", "w", "\n"], k=6000)),
}


def _backend(kind: str) -> tokenizers.Tokenizer:
    """A vocabulary of all joins of a few characters, under what models have before it."""
    from pagedcore.tokenizer.byte_level import BYTE_TO_CHAR

    if kind.startswith("sentencepiece"):
        chars = ["\u2581", *"abxw.1\n"]
        joins = [
            ("\u2581", "\u2581"),
            ("\u2581", "a"),
            ("\u2581", "w"),
            ("a", "a"),
            ("w", "w"),
            ("\u2581\u2581", "\u2581\u2581"),
        ]
        vocab = {f"<0x{byte:02X}>": byte for byte in range(256)}
        model = {"byte_fallback": True}
    else:
        chars = list(BYTE_TO_CHAR.values())
        joins = [("Ġ", "Ġ"), ("Ġ", "a"), ("a", "a"), ("1", "2"), ("Ċ", "Ċ"), ("12", "3"), ("ĠĠ", "ĠĠ"), ("aa", "aa")]
        vocab = {}
        model = {}
    for token in [*chars, *(left + right for left, right in joins)]:
        vocab[token] = len(vocab)
    backend = tokenizers.Tokenizer(models.BPE(vocab=vocab, merges=joins, **model))
    backend.add_special_tokens(["<s>", "<|im_start|>", "<|im_end|>"])
    if kind.startswith("sentencepiece"):
        spelled = normalizers.Replace(" ", "\u2581")
        prepended = normalizers.Sequence([normalizers.Prepend("\u2581"), spelled])
        backend.normalizer = prepended if kind == "sentencepiece" else spelled
    elif kind in SPLITS:
        cut = SPLITS[kind]
        behaviors = cut.behaviors or ["isolated"] * len(cut.patterns)
        cuts = [
            pre_tokenizers.Split(tokenizers.Regex(pattern), behavior=behavior)
            for pattern, behavior in zip(cut.patterns, behaviors, strict=True)
        ]
        backend.pre_tokenizer = pre_tokenizers.Sequence(
            [*cuts, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
        )
    else:
        pattern = {
            "llama": r"\p{N}{1,3}|\s*[\r\n]+|\s+(?!\S)|\s+|\p{L}+|[^\s\p{L}\p{N}]+",
            "gpt2": r"\p{N}",
            "looks far": r"\p{N}{1,3}(?=(?:\p{N}{3})*(?!\p{N}))",  # right to left: no window can tell
        }[kind]
        split = pre_tokenizers.Split(tokenizers.Regex(pattern), behavior="isolated")
        backend.pre_tokenizer = pre_tokenizers.Sequence(
            [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=kind == "gpt2")]
        )
        backend.normalizer = normalizers.NFC()
    return backend


@pytest.mark.usefixtures("small_windows")
@pytest.mark.parametrize("shape", _SHAPES)
@pytest.mark.parametrize(
    "kind",
    ["llama", "gpt2", "tiny_aya", "superbpe", "looks far", "sentencepiece", "sentencepiece without prefix"],
)
def test_pieces_of_difficult_texts(kind: str, shape: str) -> None:
    backend = _backend(kind)
    tokenizer = Tokenizer(backend)
    for seed in range(2):
        text = _SHAPES[shape](random.Random(seed))
        assert tokenizer.encode(text) == backend.encode(text).ids


@pytest.mark.parametrize("kind", ["tiny_aya", "superbpe"])
def test_a_long_number_takes_time_in_proportion(kind: str) -> None:
    """By the models' own expressions each of its digits would be compared with all that follow: 10^10 steps."""
    text = "7" * 100_000 + " 1"
    backend = _backend(kind)
    tokenizer = Tokenizer(backend)
    start = time.process_time()
    ids = tokenizer.encode(text)
    assert time.process_time() - start < 20
    assert ids == backend.encode(text).ids
    assert 0 < tokenizer.least_tokens(text) <= len(ids)


def test_a_text_that_goes_on_gets_no_space_before_it() -> None:
    tokenizer = Tokenizer(_backend("sentencepiece"))
    first, second = tokenizer.encode("a a"), tokenizer.encode("w a", continues=True)
    assert [tokenizer.id_to_token(i) for i in first] == ["\u2581a", "\u2581a"]
    assert [tokenizer.id_to_token(i) for i in second] == ["w", "\u2581a"]


def test_other_threads_run_while_a_long_text_is_encoded(llm_bf16: LLM) -> None:
    """A thread that wants the GIL every millisecond gets it again and again: once if the whole text were one call."""
    tokenizer = llm_bf16.tokenizer
    assert tokenizer is not None
    text = "hello world, this is text 1 of 20\n" * 30_000
    turns = 0
    done = threading.Event()

    def tick() -> None:
        nonlocal turns
        while not done.is_set():
            time.sleep(0.001)
            turns += 1

    thread = threading.Thread(target=tick)
    thread.start()
    try:
        ids = tokenizer.encode(text)
    finally:
        done.set()
        thread.join()
    assert len(ids) == 390_000
    assert turns > 20


@pytest.mark.parametrize(
    "use",
    [
        lambda llm, text: llm.generate(text),
        lambda llm, text: llm.chat([{"role": "user", "content": text}]),
        lambda llm, text: llm.stream(text),
        lambda llm, text: llm.score(text),
        lambda llm, text: llm.beam_search(text),
        lambda llm, text: llm.register_prefix("long", text),
    ],
)
@pytest.mark.parametrize("what", ["a" * 20_000_000, "hello 1 " * 2_000_000, "日本 " * 5_000_000])
def test_a_text_that_cannot_fit_is_refused_at_once(llm_bf16: LLM, use: Any, what: str) -> None:
    """By its length over that of the longest token: no MB of these 20 takes part in the encoding, which would need half
    a minute."""
    start = time.process_time()
    with pytest.raises(InvalidArgument, match=r"characters has at least \d+ tokens.* context of .* tokens"):
        use(llm_bf16, what)
    assert time.process_time() - start < 2


def test_what_turns_out_too_long_is_not_encoded_to_its_end(llm_bf16: LLM) -> None:
    text = "1 " * 100_000  # 200,000 characters could be 2,470 tokens of 81, and are 200,000
    assert llm_bf16.tokenizer is not None
    assert 0 < llm_bf16.tokenizer.least_tokens(text) <= llm_bf16.max_context
    assert llm_bf16.max_context < len(llm_bf16.tokenizer.encode(text, at_most=llm_bf16.max_context)) < 20_000
    with pytest.raises(InvalidArgument, match="no room"):
        llm_bf16.generate(text)


def test_the_least_number_of_tokens_is_no_more_than_there_are(llm_bf16: LLM) -> None:
    """Also where a vocabulary leaves characters out: SmolLM2's has no byte 0x04."""
    tokenizer = llm_bf16.tokenizer
    assert tokenizer is not None
    assert tokenizer.encode("\x04" * 100) == []
    for text in [*TEXTS, "\x04" * 100, " " * 500, "e\u0301" * 50, "\U00080000" * 90, "<|im_start|>" * 20]:
        assert tokenizer.least_tokens(text) <= len(tokenizer.encode(text))
