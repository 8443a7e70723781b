"""The turns of a chat find each other in the prefix cache.

Reported: in a chat of two turns the second found 51 cached tokens where 161 are there. Greedy answers need not be what
encoding makes of their text, so a message may carry its output's ``token_ids``.
"""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Any

import pytest

from pagedcore import LLM, InvalidArgument, SamplingParams
from pagedcore.cli import main
from pagedcore.history import chat_prompt

QUESTIONS = ["List three rivers, numbered.", "And their lengths in km?", "Which is the longest?"]
BLOCK = 16


@pytest.fixture(scope="module")
def chat_llm(gguf: Path) -> Any:
    with LLM(gguf, kv_cache_memory="96MiB", block_size=BLOCK, enable_prefix_caching=True) as llm:
        yield llm


@pytest.mark.parametrize(
    "params", [{"temperature": 0.0}, {"temperature": 1.0, "seed": 3}, {"temperature": 1.5, "seed": 8}]
)
def test_three_turns_find_every_full_block_of_their_history(chat_llm: LLM, params: dict[str, Any]) -> None:
    """Each prompt begins with the previous one and its answer, of which the last token was never computed: every full
    block before that is in the cache. Sampled answers are hardly ever canonical."""
    messages: list[dict[str, Any]] = [{"role": "system", "content": f"Answer briefly. {params}"}]
    history: list[int] = []
    for question in QUESTIONS:
        messages.append({"role": "user", "content": question})
        (output,) = chat_llm.chat(messages, SamplingParams(max_tokens=70, **params))
        answer = output.outputs[0]
        assert output.prompt_token_ids[: len(history)] == history
        computed = max(len(history) - 1, 0)
        assert output.num_cached_tokens >= computed // BLOCK * BLOCK
        assert output.prompt == chat_llm.chat_prompt(messages)  # the text is the template's, ids or no ids
        ends = answer.finish_reason == "stop"  # the template writes the end of the turn itself
        history = output.prompt_token_ids + answer.token_ids[: -1 if ends else None]
        messages.append({"role": "assistant", "content": answer.text, "token_ids": answer.token_ids})


def test_canonical_answers_are_found_without_ids_too(chat_llm: LLM) -> None:
    """Digits after white space were what the greedy answer and its encoding differed in."""
    assert chat_llm.tokenizer is not None
    ids = chat_llm.tokenizer.encode("The rivers are:\n\n1. Nile\n2. Amazon\n\n3. Yangtze  12")
    messages = [
        {"role": "user", "content": "Rivers?"},
        {"role": "assistant", "content": chat_llm.tokenizer.decode(ids)},
        {"role": "user", "content": "Thanks."},
    ]
    carried = [messages[0], {**messages[1], "token_ids": ids}, messages[2]]
    params = SamplingParams(max_tokens=1)
    plain, with_ids = (chat_llm.chat(m, params)[0] for m in (messages, carried))
    assert plain.prompt_token_ids == with_ids.prompt_token_ids


@pytest.fixture
def answer(llm_bf16: LLM) -> dict[str, Any]:
    """ "Hi" as two tokens, where encoding makes one of it."""
    tokenizer = llm_bf16.tokenizer
    assert tokenizer is not None
    ids = [tokenizer.token_to_id("H"), tokenizer.token_to_id("i")]
    assert tokenizer.encode("Hi") != ids
    return {"role": "assistant", "content": "Hi", "token_ids": ids}


def _tokens(llm: LLM, messages: list[dict[str, Any]], **options: Any) -> list[int]:
    return llm.chat(messages, SamplingParams(max_tokens=1), **options)[0].prompt_token_ids


def _contains(ids: list[int], part: list[int]) -> bool:
    return any(ids[at : at + len(part)] == part for at in range(len(ids)))


def test_ids_are_used_where_the_template_renders_the_text_unchanged(llm_bf16: LLM, answer: dict[str, Any]) -> None:
    messages = [{"role": "user", "content": "A"}, answer, {"role": "user", "content": "B"}, answer]
    ids = _tokens(llm_bf16, [*messages, {"role": "user", "content": "C"}])
    pair = answer["token_ids"]
    assert sum(ids[at : at + 2] == pair for at in range(len(ids))) == 2
    # A template that changes texts, one that leaves answers out, one that shows them twice: their text counts.
    for part in (
        "{{ m.content | upper }}",
        "{% if m.role == 'user' %}{{ m.content }}{% endif %}",
        "{{ m.content * 2 }}",
    ):
        template = "{% for m in messages %}" + part + "{% endfor %}"
        tokenizer = llm_bf16.tokenizer
        assert tokenizer is not None
        text = llm_bf16.chat_prompt(messages, chat_template=template)
        assert _tokens(llm_bf16, messages, chat_template=template) == tokenizer.encode(text, add_special_tokens=False)
    # One that changes the first answer only: the second one's ids are used.
    template = "{% for m in messages %}{{ m.content | upper if loop.index == 2 else m.content }}.{% endfor %}"
    ids = _tokens(llm_bf16, messages, chat_template=template)
    assert sum(ids[at : at + 2] == pair for at in range(len(ids))) == 1


def test_the_text_counts_where_the_ids_say_something_else(llm_bf16: LLM, answer: dict[str, Any]) -> None:
    messages = [{"role": "user", "content": "A"}, {**answer, "content": "Ho"}, {"role": "user", "content": "B"}]
    without = [{k: v for k, v in message.items() if k != "token_ids"} for message in messages]
    assert _tokens(llm_bf16, messages) == _tokens(llm_bf16, without)
    # A user's message has no output.
    other = [{"role": "user", "content": "Hi", "token_ids": answer["token_ids"]}]
    assert not _contains(_tokens(llm_bf16, other), answer["token_ids"])


@pytest.mark.parametrize("ids", [["H"], [True], [1.5], 7.5, [2**31], [-1], 5, "12", b"ab", {1}, {1: 2}])
def test_what_are_no_ids_is_said(llm_bf16: LLM, ids: Any) -> None:
    messages = [{"role": "user", "content": "A"}, {"role": "assistant", "content": "", "token_ids": ids}]
    with pytest.raises(InvalidArgument, match=r"message 1 .* token_ids"):
        _tokens(llm_bf16, messages)
    with pytest.raises(InvalidArgument, match=r"message 1 .* token_ids"):
        chat_prompt(lambda plain: "text", messages, None)  # without a tokenizer too


def test_the_template_never_sees_ids() -> None:
    seen: list[Any] = []

    def render(messages: Any) -> str:
        seen.extend(messages)
        return "text"

    assert chat_prompt(render, [{"role": "assistant", "content": "a", "token_ids": [1]}], None).pieces == ("text",)
    assert seen == [{"role": "assistant", "content": "a"}]


def test_the_chat_of_the_command_line_carries_ids(
    gguf: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    prompts: list[list[int]] = []
    stream_chat = LLM.stream_chat

    def watched(self: LLM, messages: Any, *args: Any, **options: Any) -> Any:
        prompts.append([len(m.get("token_ids", ())) for m in messages if m["role"] == "assistant"])
        return stream_chat(self, messages, *args, **options)

    monkeypatch.setattr(LLM, "stream_chat", watched)
    monkeypatch.setattr(sys, "stdin", io.StringIO("Hi\nAgain\n"))
    main(["chat", "--model", str(gguf), "--max-tokens", "4", "--kv-cache-memory", "32MiB"])
    capsys.readouterr()
    assert prompts == [[], [4]]
