"""Tool calls and thoughts as OpenAI's client reads them, from answers whose text is given."""

from __future__ import annotations

import json
from typing import Any

import pytest

from .conftest import Server

TOOLS: Any = [
    {
        "type": "function",
        "function": {
            "name": name,
            "description": "Tells something.",
            "parameters": {"type": "object", "properties": {"q": {"type": "string"}}, "required": ["q"]},
        },
    }
    for name in ("look_up", "weather")
]
ONE = 'Let me see.\n<tool_call>\n{"name": "look_up", "arguments": {"q": "a \\"}{\\" 🧙 b", "n": [1, 2]}}\n</tool_call>'
TWO = ONE + '\n<tool_call>\n{"name": "weather", "arguments": {"q": "Oslo"}}\n</tool_call>'
_ARGUMENTS = {"q": 'a "}{" 🧙 b', "n": [1, 2]}


def _ask(server: Server, text: str, *, stream: bool, **more: Any) -> Any:
    """The message and how it ended, from a whole answer or put together by the client from a stream."""
    client = server.openai()
    messages: Any = [{"role": "user", "content": text}]
    if not stream:
        choice = client.chat.completions.create(model="scripted", messages=messages, **more).choices[0]
        return choice.message, choice.finish_reason
    with client.chat.completions.stream(model="scripted", messages=messages, **more) as events:
        for _ in events:
            pass
        snapshot = events.current_completion_snapshot
    return snapshot.choices[0].message, snapshot.choices[0].finish_reason


def _calls(message: Any) -> list[tuple[str, Any]]:
    return [(call.function.name, json.loads(call.function.arguments)) for call in message.tool_calls or []]


@pytest.mark.parametrize("stream", [False, True])
def test_calls(scripted: Server, stream: bool) -> None:
    message, end = _ask(scripted, TWO, stream=stream, tools=TOOLS)
    assert message.content == "Let me see."
    assert _calls(message) == [("look_up", _ARGUMENTS), ("weather", {"q": "Oslo"})]
    assert end == "tool_calls"
    ids = [call.id for call in message.tool_calls]
    assert len(set(ids)) == 2 and all(name.startswith("call_") for name in ids)


@pytest.mark.parametrize("stream", [False, True])
def test_one_call_where_they_are_not_to_be_parallel(scripted: Server, stream: bool) -> None:
    message, end = _ask(scripted, TWO, stream=stream, tools=TOOLS, parallel_tool_calls=False)
    assert _calls(message) == [("look_up", _ARGUMENTS)] and end == "tool_calls"


@pytest.mark.parametrize("stream", [False, True])
def test_a_call_that_is_cut_says_length(scripted: Server, stream: bool) -> None:
    message, end = _ask(scripted, ONE, stream=stream, tools=TOOLS, max_tokens=25)
    assert end == "length"
    (call,) = message.tool_calls
    assert call.function.name == "look_up"
    assert json.dumps(_ARGUMENTS, ensure_ascii=False).startswith(call.function.arguments)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("text", ["No call.", 'a <tool_call> {"b": 1} c', "<tool_call", '{"name": "look_up"}'])
def test_what_is_no_call_is_content(scripted: Server, text: str, stream: bool) -> None:
    message, end = _ask(scripted, text, stream=stream, tools=TOOLS)
    assert message.content == text and not message.tool_calls and end == "stop"


@pytest.mark.parametrize("more", [{}, {"tools": TOOLS, "tool_choice": "none"}])
def test_without_tools_a_call_is_content(scripted: Server, more: Any) -> None:
    message, end = _ask(scripted, ONE, stream=False, **more)
    assert message.content == ONE and not message.tool_calls and end == "stop"


@pytest.mark.parametrize("stream", [False, True])
def test_a_named_function_and_a_required_one_begin_the_answer(scripted: Server, stream: bool) -> None:
    chosen: Any = {"type": "function", "function": {"name": "weather"}}
    message, _ = _ask(scripted, '{"q": "Oslo"}}\n</tool_call>', stream=stream, tools=TOOLS, tool_choice=chosen)
    assert _calls(message) == [("weather", {"q": "Oslo"})] and not message.content
    text = '{"name": "weather", "arguments": {"q": "Oslo"}}\n</tool_call>'
    message, _ = _ask(scripted, text, stream=stream, tools=TOOLS, tool_choice="required")
    assert _calls(message) == [("weather", {"q": "Oslo"})]


def test_a_streams_call_has_its_id_and_name_once(scripted: Server) -> None:
    chunks = scripted.openai().chat.completions.create(
        model="scripted", messages=[{"role": "user", "content": TWO}], tools=TOOLS, stream=True
    )
    deltas = [call for chunk in chunks for call in chunk.choices[0].delta.tool_calls or []]
    named = [call for call in deltas if call.id is not None or (call.function and call.function.name is not None)]
    assert [call.index for call in named] == [0, 1]
    assert all(call.id and call.function and call.function.name and call.type == "function" for call in named)
    assert sorted({call.index for call in deltas}) == [0, 1]
    assert len(deltas) > 6, "the arguments come as they are written"


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("thinking", [False, True])
def test_thoughts_are_told_apart(scripted: Server, stream: bool, thinking: bool) -> None:
    text = ("" if thinking else "<think>\n") + "Is it <tool_call>? No.\n</think>\n\n" + ONE
    more: Any = {"tools": TOOLS, "extra_body": {"chat_template_kwargs": {"thinking": thinking}}}
    message, end = _ask(scripted, text, stream=stream, **more)
    assert message.reasoning_content == "Is it <tool_call>? No."
    assert message.content == "Let me see."
    assert _calls(message) == [("look_up", _ARGUMENTS)] and end == "tool_calls"
    more["extra_body"]["include_reasoning"] = False
    message, _ = _ask(scripted, text, stream=stream, **more)
    assert not hasattr(message, "reasoning_content") and message.content == "Let me see."


def test_the_answer_to_a_call_goes_into_the_prompt(scripted: Server) -> None:
    messages: Any = [
        {"role": "user", "content": "Weather?"},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"q": "Oslo"}'}}
            ],
        },
        {"role": "tool", "tool_call_id": "call_1", "content": "It rains."},
    ]
    client = scripted.openai()
    answer = client.chat.completions.create(model="scripted", messages=messages, tools=TOOLS)
    assert answer.choices[0].message.content == "It rains."
    found = scripted.post("/tokenize", {"messages": messages, "tools": TOOLS}).json
    text = scripted.post("/detokenize", {"tokens": found["tokens"]}).json["prompt"]
    assert '"arguments": {"q": "Oslo"}' in text, "the template gets the object, not its text"
    assert '"name": "look_up"' in text


@pytest.mark.parametrize(
    "wrong",
    [
        {"tools": "f"},
        {"tools": [5]},
        {"tools": [{"type": "function"}]},
        {"tools": [{"type": "function", "function": {"name": ""}}]},
        {"tools": [{"type": "function", "function": {"name": "f", "parameters": "x"}}]},
        {"tools": [{"type": "function", "function": {"name": "f", "strict": True}}]},
        {"tools": [{"type": "retrieval"}]},
        {"tools": TOOLS, "tool_choice": "always"},
        {"tools": TOOLS, "tool_choice": {"type": "function", "function": {"name": "nobody"}}},
        {"tools": TOOLS, "tool_choice": {"type": "allowed_tools"}},
        {"tools": TOOLS * 65},
        {"messages": [{"role": "assistant", "content": "", "tool_calls": [{}]}]},
        {"messages": [{"role": "assistant", "content": "", "tool_calls": 7}]},
    ],
)
def test_wrong_tools_are_refused(scripted: Server, wrong: Any) -> None:
    body = {"model": "scripted", "messages": [{"role": "user", "content": "Hi"}], **wrong}
    reply = scripted.post("/v1/chat/completions", body)
    assert reply.status == 400 and reply.error["type"] == "invalid_request_error"
