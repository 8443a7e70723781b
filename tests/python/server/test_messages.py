"""/v1/messages by Anthropic's client: what LLM.chat gives, and answers whose text is given."""

from __future__ import annotations

import asyncio
from typing import Any

import anthropic
import pytest

from pagedcore import LLM, SamplingParams

from .conftest import MODEL, Server
from .test_tools import _ARGUMENTS, ONE, TWO

ASKED: Any = {"system": "You are brief.", "messages": [{"role": "user", "content": "Name a colour."}]}
GREEDY = {"temperature": 0}
TEMPLATED: Any = [{"role": "system", "content": "You are brief."}, {"role": "user", "content": "Name a colour."}]
TOOLS: Any = [
    {
        "name": name,
        "description": "Tells something.",
        "input_schema": {"type": "object", "properties": {"q": {"type": "string"}}},
    }
    for name in ("look_up", "weather")
]


@pytest.mark.parametrize(
    "params",
    [{"temperature": 0, "max_tokens": 9}, {"temperature": 0, "max_tokens": 200}, {"top_k": 3, "max_tokens": 9}],
)
def test_answers_are_llms(server: Server, llm_bf16: LLM, params: dict[str, Any]) -> None:
    (expected,) = llm_bf16.chat(TEMPLATED, SamplingParams(**params, seed=5))
    most, more = params["max_tokens"], {name: value for name, value in params.items() if name != "max_tokens"}
    answer = server.anthropic().messages.create(model=MODEL, max_tokens=most, **ASKED, extra_body={"seed": 5, **more})
    assert [block.type for block in answer.content] == ["text"]
    assert answer.content[0].text == expected.outputs[0].text  # type: ignore[union-attr]
    ends = {"length": "max_tokens", "stop": "end_turn"}
    assert answer.stop_reason == ends[str(expected.outputs[0].finish_reason)]
    usage = answer.usage
    assert usage.input_tokens + (usage.cache_read_input_tokens or 0) == len(expected.prompt_token_ids)
    assert usage.output_tokens == len(expected.outputs[0].token_ids)
    counted = server.anthropic().messages.count_tokens(model=MODEL, **ASKED)
    assert counted.input_tokens == len(expected.prompt_token_ids)


def test_a_stream_is_the_whole(server: Server) -> None:
    client = server.anthropic()
    params: Any = {"model": MODEL, "max_tokens": 12, "extra_body": GREEDY, **ASKED}
    whole = client.messages.create(**params)
    with client.messages.stream(**params) as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()
    assert text == whole.content[0].text  # type: ignore[union-attr]
    assert (final.content[0].text, final.stop_reason) == (text, whole.stop_reason)  # type: ignore[union-attr]
    assert final.usage.output_tokens == whole.usage.output_tokens
    kinds = [event.type for event in client.messages.create(**params, stream=True)]
    assert kinds[:2] == ["message_start", "content_block_start"]
    assert kinds[-3:] == ["content_block_stop", "message_delta", "message_stop"]
    assert set(kinds[2:-3]) == {"content_block_delta"}


def test_asynchronous_client(server: Server) -> None:
    async def run() -> tuple[Any, Any]:
        async with server.anthropic_async() as client:
            params: Any = {"model": MODEL, "max_tokens": 12, "extra_body": GREEDY, **ASKED}
            whole = await client.messages.create(**params)
            async with client.messages.stream(**params) as stream:
                return whole.content[0].text, (await stream.get_final_message()).content[0].text  # type: ignore[union-attr]

    whole, final = asyncio.run(run())
    assert whole == final


def test_stop_sequences_and_prefills(server: Server, llm_bf16: LLM) -> None:
    begun: Any = [*TEMPLATED, {"role": "assistant", "content": "My colour is"}]
    params = SamplingParams(temperature=0, max_tokens=30, stop=["."])
    (expected,) = llm_bf16.chat(begun, params, continue_final_message=True)
    answer = server.anthropic().messages.create(
        model=MODEL, system=ASKED["system"], messages=begun[1:], extra_body=GREEDY, max_tokens=30, stop_sequences=["."]
    )
    assert answer.content[0].text == expected.outputs[0].text  # type: ignore[union-attr]
    assert (answer.stop_reason, answer.stop_sequence) == ("stop_sequence", ".")


@pytest.mark.parametrize("stream", [False, True])
def test_thoughts_and_tools(scripted: Server, stream: bool) -> None:
    def ask(text: str, **more: Any) -> Any:
        client = scripted.anthropic()
        params: Any = {"model": "scripted", "max_tokens": 1000, "tools": TOOLS, **more}
        params["messages"] = [{"role": "user", "content": [{"type": "text", "text": text}]}]
        if not stream:
            return client.messages.create(**params)
        with client.messages.stream(**params) as events:
            return events.get_final_message()

    answer = ask(f"<think>Hm.</think>{TWO}", thinking={"type": "enabled", "budget_tokens": 1024})
    assert [block.type for block in answer.content] == ["thinking", "text", "tool_use", "tool_use"]
    thought, text, first, second = answer.content
    assert (thought.thinking, text.text) == ("Hm.", "Let me see.")
    assert (first.name, first.input, second.name, second.input) == ("look_up", _ARGUMENTS, "weather", {"q": "Oslo"})
    assert answer.stop_reason == "tool_use" and first.id != second.id
    answer = ask(TWO, tool_choice={"type": "auto", "disable_parallel_tool_use": True})
    assert [block.type for block in answer.content] == ["text", "tool_use"]
    answer = ask('{"q": "Oslo"}}</tool_call>', tool_choice={"type": "tool", "name": "weather"})
    assert [(block.name, block.input) for block in answer.content] == [("weather", {"q": "Oslo"})]
    answer = ask(ONE, max_tokens=5)
    assert answer.stop_reason == "max_tokens"
    answer = ask(ONE, tool_choice={"type": "none"})
    assert [block.type for block in answer.content] == ["text"] and answer.stop_reason == "end_turn"


def test_results_of_tools_go_into_the_prompt(scripted: Server) -> None:
    messages: Any = [
        {"role": "user", "content": "Weather?"},
        {"role": "assistant", "content": [{"type": "tool_use", "id": "t1", "name": "weather", "input": {"q": "Oslo"}}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t1", "content": "It rains."}]},
    ]
    client = scripted.anthropic()
    answer = client.messages.create(model="scripted", max_tokens=50, messages=messages, tools=TOOLS)
    assert answer.content[0].text == "It rains."  # type: ignore[union-attr]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    "wrong",
    [
        {"messages": []},
        {"messages": "Hi"},
        {"messages": [{"role": "system", "content": "Hi"}]},
        {"messages": [{"role": "user", "content": [{"type": "image", "source": {}}]}]},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": 5}]}]},
        {"messages": [{"role": "user", "content": "x " * 9000}]},
        {"max_tokens": 0},
        {"extra_body": {"temperature": "x"}},
        {"system": 7},
        {"system": [{"type": "image"}]},
        {"tools": [{"name": "f", "input_schema": {}}]},
        {"tools": [{"type": "bash_20250124", "name": "bash"}]},
        {"tool_choice": {"type": "maybe"}},
        {"thinking": {"type": "deep"}},
        {"stop_sequences": [5]},
        {"extra_body": {"mcp_servers": [{"url": "x"}]}},
    ],
)
def test_errors_have_their_shape(server: Server, wrong: dict[str, Any], stream: bool) -> None:
    with pytest.raises(anthropic.BadRequestError) as caught:
        server.anthropic().messages.create(**{"model": MODEL, "max_tokens": 5, **ASKED, "stream": stream, **wrong})
    body: Any = caught.value.body
    assert body["type"] == "error" and body["error"]["type"] == "invalid_request_error" and body["error"]["message"]


def test_other_errors(server: Server) -> None:
    with pytest.raises(anthropic.NotFoundError) as caught:
        server.anthropic().messages.create(model="claude", max_tokens=5, **ASKED)
    assert caught.value.body["error"]["type"] == "not_found_error"  # type: ignore[index]
    reply = server.send("POST", "/v1/messages", b"{")
    assert reply.status == 400 and reply.json["type"] == "error"
