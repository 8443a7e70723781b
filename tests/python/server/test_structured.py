"""Answers that are held to a form, as the official clients ask for them, from a real model. Valid by jsonschema."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import openai
import pytest
from pydantic import BaseModel, Field

from .conftest import MODEL, Server

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "minLength": 1, "maxLength": 8},
        "size": {"enum": ["small", "large"]},
        "legs": {"type": "integer", "minimum": 0, "maximum": 9},
    },
    "required": ["name", "size", "legs"],
    "additionalProperties": False,
}
MESSAGES: Any = [{"role": "user", "content": "Name an animal."}]
TOOLS: Any = [
    {"type": "function", "function": {"name": name, "parameters": schema}}
    for name, schema in (
        ("describe", SCHEMA),
        (
            "count",
            {"type": "object", "properties": {"n": {"type": "integer", "maximum": 9, "minimum": 0}}, "required": ["n"]},
        ),
    )
]
TEMPLATE = (
    "{% if tools %}<tool_call> {{ tools | tojson }}{% endif %}"
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "<|im_start|>assistant\n"
)
LIMIT: Any = {"model": MODEL, "messages": MESSAGES, "max_tokens": 120, "temperature": 0.7, "seed": 1}


class Animal(BaseModel):
    name: str = Field(max_length=8)
    legs: int = Field(ge=0, le=9)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    template: Path = tmp_path_factory.mktemp("template") / "tools.jinja"
    template.write_text(TEMPLATE)
    running = Server.start(
        *("--port", "0", "--served-model-name", MODEL, "--kv-cache-memory", "64MiB"), "--chat-template", str(template)
    )
    yield running
    running.stop()


@pytest.mark.parametrize("stream", [False, True])
def test_a_schema_holds_an_answer(server: Server, stream: bool) -> None:
    form: Any = {"type": "json_schema", "json_schema": {"name": "animal", "schema": SCHEMA, "strict": True}}
    answer = server.openai().chat.completions.create(**LIMIT, response_format=form, stream=stream)
    if stream:
        chunks = [chunk.choices[0] for chunk in answer if chunk.choices]
        text, end = "".join(chunk.delta.content or "" for chunk in chunks), chunks[-1].finish_reason
    else:
        text, end = answer.choices[0].message.content, answer.choices[0].finish_reason
    assert end == "stop"
    jsonschema.validate(json.loads(text), SCHEMA)


def test_the_clients_parse(server: Server) -> None:
    parsed = server.openai().chat.completions.parse(**LIMIT, response_format=Animal).choices[0].message.parsed
    assert isinstance(parsed, Animal) and 0 <= parsed.legs <= 9
    found = server.openai().responses.parse(
        model=MODEL, input="Name an animal.", text_format=Animal, max_output_tokens=120, temperature=0.7
    )
    assert isinstance(found.output_parsed, Animal)


def test_fields_of_vllm_and_llama_cpp(server: Server) -> None:
    def ask(**extra: Any) -> str:
        answer = server.openai().chat.completions.create(**LIMIT, extra_body=extra)
        assert answer.choices[0].finish_reason == "stop"
        return answer.choices[0].message.content or ""

    assert re.fullmatch("[0-9]{2}-x", ask(guided_regex="[0-9]{2}-x"))
    assert ask(guided_choice=["yes", "no"]) in ("yes", "no")
    assert ask(structured_outputs={"choice": ["up", "down"]}) in ("up", "down")
    assert ask(guided_grammar='root ::= "a" | "b"') in ("a", "b")
    assert ask(grammar='root ::= "c" | "d"') in ("c", "d")
    jsonschema.validate(json.loads(ask(guided_json=SCHEMA)), SCHEMA)
    jsonschema.validate(json.loads(ask(json_schema=SCHEMA)), SCHEMA)
    text = server.openai().completions.create(
        model=MODEL,
        prompt="An animal:",
        max_tokens=120,
        extra_body={"response_format": {"type": "json_object", "schema": SCHEMA}},
    )
    jsonschema.validate(json.loads(text.choices[0].text), SCHEMA)


def test_anthropic_output_format(server: Server) -> None:
    answer = server.anthropic().messages.create(
        model=MODEL,
        max_tokens=120,
        messages=MESSAGES,
        extra_body={"output_config": {"format": {"type": "json_schema", "schema": SCHEMA}}, "seed": 2},
    )
    assert answer.stop_reason == "end_turn"
    jsonschema.validate(json.loads(answer.content[0].text), SCHEMA)


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "describe"}}], ids=str)
def test_a_forced_call_has_arguments_of_its_schema(server: Server, choice: Any) -> None:
    answer = server.openai().chat.completions.create(
        **LIMIT, tools=TOOLS, tool_choice=choice, parallel_tool_calls=False
    )
    assert answer.choices[0].finish_reason == "tool_calls"
    (call,) = answer.choices[0].message.tool_calls
    schemas = {tool["function"]["name"]: tool["function"]["parameters"] for tool in TOOLS}
    assert choice == "required" or call.function.name == "describe"
    jsonschema.validate(json.loads(call.function.arguments), schemas[call.function.name])


def test_anthropic_forced_call(server: Server) -> None:
    answer = server.anthropic().messages.create(
        model=MODEL,
        max_tokens=120,
        messages=MESSAGES,
        tools=[{"name": "describe", "input_schema": SCHEMA}],
        tool_choice={"type": "tool", "name": "describe"},
    )
    assert answer.stop_reason == "tool_use"
    (block,) = [block for block in answer.content if block.type == "tool_use"]
    jsonschema.validate(block.input, SCHEMA)


def test_a_strict_tool_is_held_or_refused(server: Server) -> None:
    strict = [{"type": "function", "function": {"name": "f", "strict": True, "parameters": {"not": {}}}}]
    with pytest.raises(openai.BadRequestError, match="where tool_choice requires one"):
        server.openai().chat.completions.create(**LIMIT, tools=strict)
    with pytest.raises(openai.BadRequestError, match='"not"'):
        server.openai().chat.completions.create(**LIMIT, tools=strict, tool_choice="required")
