"""/v1/chat/completions by OpenAI's client: what LLM.chat gives, in every form that the client reads."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import openai
import pytest

from pagedcore import LLM, SamplingParams

from .conftest import MODEL, Server

MESSAGES: Any = [{"role": "system", "content": "You are brief."}, {"role": "user", "content": "Name a colour."}]


@pytest.mark.parametrize(
    "params",
    [
        {"temperature": 0, "max_tokens": 12},
        {"temperature": 0},
        {"temperature": 0.8, "seed": 4, "n": 3, "max_tokens": 8},
        {"temperature": 0, "stop": "e", "max_tokens": 12},
    ],
)
def test_answers_are_llms(server: Server, llm_bf16: LLM, params: dict[str, Any]) -> None:
    (expected,) = llm_bf16.chat(MESSAGES, SamplingParams(**{"max_tokens": None, **params}))
    answer = server.openai().chat.completions.create(model=MODEL, messages=MESSAGES, **params)
    assert [choice.message.content for choice in answer.choices] == [sample.text for sample in expected.outputs]
    assert [choice.finish_reason for choice in answer.choices] == [s.finish_reason for s in expected.outputs]
    assert answer.usage is not None
    assert answer.usage.prompt_tokens == len(expected.prompt_token_ids)
    assert answer.usage.completion_tokens == sum(len(sample.token_ids) for sample in expected.outputs)
    assert all(choice.message.role == "assistant" and choice.message.tool_calls is None for choice in answer.choices)


def test_max_completion_tokens_counts_before_max_tokens(server: Server) -> None:
    answer = server.openai().chat.completions.create(
        model=MODEL, messages=MESSAGES, max_tokens=9, max_completion_tokens=3, temperature=0
    )
    assert answer.usage is not None and answer.usage.completion_tokens == 3
    assert answer.choices[0].finish_reason == "length"


def test_log_probabilities_and_bytes(server: Server, llm_bf16: LLM) -> None:
    (expected,) = llm_bf16.chat(MESSAGES, SamplingParams(temperature=0, max_tokens=6, logprobs=2))[0].outputs
    assert llm_bf16.tokenizer is not None and expected.logprobs is not None
    for top in (None, 0, 2):
        more = {} if top is None else {"top_logprobs": top}
        answer = server.openai().chat.completions.create(
            model=MODEL, messages=MESSAGES, temperature=0, max_tokens=6, logprobs=True, **more
        )
        found = answer.choices[0].logprobs
        assert found is not None and found.content is not None
        assert [e.logprob for e in found.content] == [
            position[token].logprob for token, position in zip(expected.token_ids, expected.logprobs, strict=True)
        ]
        assert [bytes(e.bytes or []) for e in found.content] == [
            llm_bf16.tokenizer.token_bytes(token) for token in expected.token_ids
        ]
        for entry, position in zip(found.content, expected.logprobs, strict=True):
            ranked = sorted(position.values(), key=lambda e: e.rank)[: top or 0]
            assert [(e.token, e.logprob) for e in entry.top_logprobs] == [(e.decoded_token, e.logprob) for e in ranked]


def test_half_characters_are_bytes_and_never_half_texts(server: Server) -> None:
    """Forced to spell an emoji by its tokens: chunks hold whole characters, log-probabilities the tokens' own bytes."""
    client = server.openai()
    ids = json.loads(server.post("/tokenize", {"prompt": "\U0001f9d9", "add_special_tokens": False}).body)["tokens"]
    assert len(ids) > 1
    chunks = list(
        client.chat.completions.create(
            model=MODEL,
            messages=MESSAGES,
            stream=True,
            logprobs=True,
            max_tokens=1,
            temperature=0,
            extra_body={"allowed_token_ids": ids[:1]},
        )
    )
    entries = [e for c in chunks if c.choices[0].logprobs for e in c.choices[0].logprobs.content or []]
    assert bytes(entries[0].bytes or []) == "\U0001f9d9".encode()[: len(entries[0].bytes or [])]
    assert "".join(c.choices[0].delta.content or "" for c in chunks) == "\ufffd"


def test_a_stream_is_the_whole_in_pieces(server: Server) -> None:
    params: dict[str, Any] = {
        "n": 2,
        "temperature": 0.8,
        "seed": 6,
        "max_tokens": 20,
        "logprobs": True,
        "top_logprobs": 1,
    }
    client = server.openai()
    whole = client.chat.completions.create(model=MODEL, messages=MESSAGES, **params)
    *chunks, last = client.chat.completions.create(
        model=MODEL, messages=MESSAGES, stream=True, stream_options={"include_usage": True}, **params
    )
    assert last.choices == [] and last.usage == whole.usage.model_copy(  # type: ignore[union-attr]
        update={"prompt_tokens_details": last.usage.prompt_tokens_details}  # type: ignore[union-attr]
    )
    assert [(c.choices[0].index, c.choices[0].delta.role) for c in chunks[:2]] == [(0, "assistant"), (1, "assistant")]
    assert all(c.choices[0].delta.role is None and c.usage is None for c in chunks[2:])
    for choice in whole.choices:
        mine = [c.choices[0] for c in chunks if c.choices[0].index == choice.index]
        assert "".join(c.delta.content or "" for c in mine) == choice.message.content
        assert [c.finish_reason for c in mine] == [None] * (len(mine) - 1) + [choice.finish_reason]
        assert mine[-1].delta.content is None
        assert choice.logprobs is not None
        joined = [entry for c in mine if c.logprobs for entry in c.logprobs.content or []]
        assert joined == choice.logprobs.content


def test_the_clients_own_accumulator(server: Server) -> None:
    params: dict[str, Any] = {"n": 2, "temperature": 0}
    client = server.openai()
    whole = client.chat.completions.create(model=MODEL, messages=MESSAGES, **params)
    with client.chat.completions.stream(model=MODEL, messages=MESSAGES, **params) as stream:
        kinds = {event.type for event in stream}
        final = stream.get_final_completion()
    assert {"chunk", "content.delta", "content.done"} <= kinds
    assert [c.message.content for c in final.choices] == [c.message.content for c in whole.choices]
    parsed = client.chat.completions.parse(model=MODEL, messages=MESSAGES, **params)
    assert [c.message.content for c in parsed.choices] == [c.message.content for c in whole.choices]
    with pytest.raises(openai.LengthFinishReasonError):
        client.chat.completions.parse(model=MODEL, messages=MESSAGES, max_tokens=1)


def test_asynchronous_client(server: Server) -> None:
    async def run() -> tuple[Any, Any]:
        async with server.openai_async() as client:
            whole = await client.chat.completions.create(model=MODEL, messages=MESSAGES, temperature=0)
            async with client.chat.completions.stream(model=MODEL, messages=MESSAGES, temperature=0) as stream:
                final = await stream.get_final_completion()
            return whole.choices[0].message.content, final.choices[0].message.content

    whole, final = asyncio.run(run())
    assert whole == final


def test_content_in_parts_and_developers(server: Server) -> None:
    parts: Any = [
        {"role": "developer", "content": [{"type": "text", "text": "You are brief."}]},
        {"role": "user", "content": [{"type": "text", "text": "Name "}, {"type": "text", "text": "a colour."}]},
    ]
    client = server.openai()
    one, two = (client.chat.completions.create(model=MODEL, messages=m, temperature=0) for m in (MESSAGES, parts))
    assert one.choices[0].message.content == two.choices[0].message.content


def test_an_answer_goes_on(server: Server, llm_bf16: LLM) -> None:
    begun: Any = [*MESSAGES, {"role": "assistant", "content": "My favourite colour is"}]
    (expected,) = llm_bf16.chat(begun, SamplingParams(temperature=0, max_tokens=5), continue_final_message=True)
    answer = server.openai().chat.completions.create(
        model=MODEL,
        messages=begun,
        temperature=0,
        max_tokens=5,
        extra_body={"continue_final_message": True, "add_generation_prompt": False},
    )
    assert answer.choices[0].message.content == expected.outputs[0].text


def test_a_template_of_the_call(server: Server, llm_bf16: LLM) -> None:
    template = "{{ greeting }} {{ messages[-1].content }}"
    (expected,) = llm_bf16.chat(
        MESSAGES,
        SamplingParams(temperature=0, max_tokens=5),
        chat_template=template,
        template_variables={"greeting": "Hello."},
    )
    answer = server.openai().chat.completions.create(
        model=MODEL,
        messages=MESSAGES,
        temperature=0,
        max_tokens=5,
        extra_body={
            "chat_template": template,
            "chat_template_kwargs": {"greeting": "Hello."},
            "return_token_ids": True,
        },
    )
    assert answer.choices[0].message.content == expected.outputs[0].text
    assert answer.prompt_token_ids == expected.prompt_token_ids  # type: ignore[attr-defined]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"messages": "Hi"}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": [5]}, r"messages\[0\]"),
        ({"messages": [{"role": "pirate", "content": "Hi"}]}, "role"),
        ({"messages": [{"role": "user"}]}, "content"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]}, "image_url"),
        ({"messages": [{"role": "assistant", "content": None}]}, "neither content nor tool_calls"),
        ({"messages": [{"role": "user", "content": "x " * 9000}]}, "context"),
        ({"messages": MESSAGES * 1025}, "2048 are allowed"),
        ({"top_logprobs": 2}, "top_logprobs needs logprobs"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "shows no tools"),
        ({"tool_choice": "required"}, "no tools"),
        ({"functions": [{"name": "f"}]}, "functions"),
        ({"response_format": {"type": "yaml"}}, "response_format.type"),
        ({"response_format": {"type": "json_schema", "json_schema": {"name": "x"}}}, "schema is missing"),
        ({"response_format": {"type": "json_schema", "json_schema": {"schema": {"uniqueItems": True}}}}, "uniqueItems"),
        ({"response_format": {"type": "json_object"}, "extra_body": {"guided_regex": "a"}}, "held to one of them"),
        ({"extra_body": {"structured_outputs": {"regex": "(a"}}}, "unclosed group"),
        ({"modalities": ["text", "audio"]}, "modalities"),
        ({"store": True}, "store"),
        ({"stream_options": 5}, "stream_options"),
        ({"extra_body": {"chat_template": "{{ 1 / 0 }}"}}, "chat template"),
        ({"extra_body": {"chat_template": "{% for i in range(10**9) %}{% endfor %}"}}, "chat template"),
        ({"extra_body": {"chat_template_kwargs": {"messages": []}}}, "messages"),
    ],
)
def test_what_is_wrong_is_told_before_the_headers(
    server: Server, wrong: dict[str, Any], said: str, stream: bool
) -> None:
    with pytest.raises(openai.BadRequestError, match=said):
        server.openai().chat.completions.create(**{"model": MODEL, "messages": MESSAGES, "stream": stream, **wrong})


@pytest.mark.parametrize(
    "harmless",
    [
        {"response_format": {"type": "text"}},
        {"store": False},
        {"modalities": ["text"]},
        {"tools": []},
        {"tool_choice": "none", "tools": [{"type": "function", "function": {"name": "f"}}]},
        {"user": "somebody", "metadata": {"a": "b"}, "service_tier": "auto"},
        {"extra_body": {"guided_json": None, "some_day": 1, "functions": []}},
        {"logit_bias": {}},
        {"stop": None},
    ],
)
def test_what_asks_for_nothing_else_is_taken(server: Server, harmless: dict[str, Any]) -> None:
    answer = server.openai().chat.completions.create(model=MODEL, messages=MESSAGES, max_tokens=1, **harmless)
    assert answer.choices[0].finish_reason == "length"


def test_tokenize_is_what_is_computed(server: Server, llm_bf16: LLM) -> None:
    (expected,) = llm_bf16.chat(MESSAGES, SamplingParams(max_tokens=1))
    found = server.post("/tokenize", {"messages": MESSAGES}).json
    assert found["tokens"] == expected.prompt_token_ids
    assert found["count"] == len(found["tokens"]) and found["max_model_len"] == llm_bf16.max_context
    text = "Zwölf Boxkämpfer 🥊 jagen Viktor"
    found = server.post("/tokenize", {"prompt": text, "return_token_strs": True}).json
    assert llm_bf16.tokenizer is not None
    assert found["tokens"] == llm_bf16.tokenizer.encode(text)
    assert server.post("/detokenize", {"tokens": found["tokens"]}).json == {"prompt": text}
    for wrong in ([-1], [10**6], ["a"], "abc", [2**70], [True]):
        assert server.post("/detokenize", {"tokens": wrong}).status == 400
