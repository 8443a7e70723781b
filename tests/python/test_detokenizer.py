"""Incremental text equals the text of all tokens at once, and stop strings are found wherever they lie."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pagedcore import LLM
from pagedcore.detokenizer import Detokenizer, StopIndex, StopStrings
from pagedcore.tokenizer import Tokenizer
from texts import varied_texts


@pytest.fixture(scope="module")
def tokenizer(llm_bf16: LLM) -> Tokenizer:
    assert llm_bf16.tokenizer is not None
    return llm_bf16.tokenizer


def _incremental(tokenizer: Tokenizer, ids: list[int], *, skip: bool) -> str:
    text = Detokenizer(tokenizer, skip_special_tokens=skip)
    return "".join(map(text.push, ids)) + text.finish()


@pytest.mark.parametrize("skip", [False, True])
def test_equals_the_text_of_all_tokens(tokenizer: Tokenizer, skip: bool) -> None:
    for text in varied_texts(200):
        ids = tokenizer.encode(text)
        assert _incremental(tokenizer, ids, skip=skip) == tokenizer.decode(ids, skip_special_tokens=skip)


def test_random_tokens_with_broken_characters(tokenizer: Tokenizer) -> None:
    rng = random.Random(7)
    for _ in range(200):
        ids = rng.choices(range(tokenizer.vocab_size), k=40)
        assert _incremental(tokenizer, ids, skip=False) == tokenizer.decode(ids)


def test_a_character_in_several_tokens_is_held_back(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("\U0001f3f4")
    assert len(ids) > 1
    text = Detokenizer(tokenizer)
    assert [text.push(i) for i in ids[:-1]] == [""] * (len(ids) - 1)
    assert text.push(ids[-1]) == "\U0001f3f4"
    assert text.finish() == ""


def test_an_unfinished_character_is_replaced_at_the_end(tokenizer: Tokenizer) -> None:
    text = Detokenizer(tokenizer)
    assert text.push(tokenizer.encode("\U0001f3f4")[0]) == ""
    assert text.finish() == "\ufffd"


def test_an_output_keeps_its_first_space_in_sentencepiece_vocabularies() -> None:
    metadata = {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": ["<unk>", "<0xC3>", "<0xA9>", "\u2581", "a", "\u2581a"],
        "tokenizer.ggml.scores": [0.0, 0.0, 0.0, -2.0, -3.0, -1.0],
        "tokenizer.ggml.token_type": [2, 6, 6, 1, 1, 1],
        "tokenizer.ggml.unknown_token_id": 0,
    }
    tokenizer = Tokenizer.from_gguf(metadata)
    assert tokenizer.decode([5, 5]) == "a a"  # the start of a text
    text = Detokenizer(tokenizer)
    assert [text.push(i) for i in (5, 4, 1, 2)] == [" a", "a", "", "é"]


def _cut(text: str, sizes: list[int]) -> list[str]:
    pieces = []
    while text:
        size = sizes[len(pieces) % len(sizes)]
        pieces.append(text[:size])
        text = text[size:]
    return pieces


@given(
    text=st.text("abc", max_size=40),
    stop=st.lists(st.text("abc", min_size=1, max_size=5), max_size=3),
    sizes=st.lists(st.integers(1, 4), min_size=1, max_size=5),
    include=st.booleans(),
)
def test_stop_strings_in_any_cut(text: str, stop: list[str], sizes: list[int], include: bool) -> None:
    search = StopStrings(StopIndex(stop), include=include)
    shown = ""
    for piece in _cut(text, sizes):
        shown += search.push(piece)
        if search.matched is not None:
            break
        # Nothing of a stop string that is still possible has been shown, and nothing is held back without need.
        held = text[len(shown) :][: len("".join(_cut(text, sizes))) - len(shown)]
        assert not any(string in shown for string in stop), held
    else:
        shown += search.finish()
    if search.matched is None:
        assert shown == text
        assert not any(string in text for string in stop)
    else:
        at = text.index(search.matched)
        assert shown == text[: at + len(search.matched) * include]


def test_text_that_cannot_begin_a_stop_string_is_shown_at_once() -> None:
    search = StopStrings(StopIndex(["</s>", "END"]))
    assert search.push("hello <") == "hello "
    assert search.push("b> E") == "<b> "
    assert search.push("ND of") == ""
    assert search.matched == "END"


def test_text_before_min_tokens_is_not_searched() -> None:
    search = StopStrings(StopIndex(["ab"]))
    assert search.push("ab a", searching=False) == "ab a"
    assert search.push("b") == "b"
    assert search.matched is None
    assert search.push(" xab") == " x"
    assert search.matched == "ab"
