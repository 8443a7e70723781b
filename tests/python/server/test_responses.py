"""/v1/responses by OpenAI's client, and /v1/score."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import openai
import pytest

from pagedcore import LLM, SamplingParams

from .conftest import MODEL, Server
from .test_tools import _ARGUMENTS, ONE, TOOLS, TWO

FLAT: Any = [{"type": "function", **tool["function"]} for tool in TOOLS]
TEMPLATED: Any = [{"role": "system", "content": "You are brief."}, {"role": "user", "content": "Name a colour."}]


@pytest.mark.parametrize("most", [6, None])
def test_answers_are_llms(server: Server, llm_bf16: LLM, most: int | None) -> None:
    (expected,) = llm_bf16.chat(TEMPLATED, SamplingParams(temperature=0, max_tokens=most))
    client = server.openai()
    asked: Any = {"model": MODEL, "instructions": "You are brief.", "temperature": 0, "max_output_tokens": most}
    given: Any
    for given in ("Name a colour.", [{"role": "user", "content": [{"type": "input_text", "text": "Name a colour."}]}]):
        answer = client.responses.create(input=given, **asked)
        assert answer.output_text == expected.outputs[0].text
        assert answer.status == ("incomplete" if most else "completed")
        assert answer.usage is not None
        assert answer.usage.input_tokens == len(expected.prompt_token_ids)
        assert answer.usage.output_tokens == len(expected.outputs[0].token_ids)
    if most:
        assert answer.incomplete_details is not None and answer.incomplete_details.reason == "max_output_tokens"
    with client.responses.stream(input="Name a colour.", **asked) as stream:
        events = list(stream)
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert "".join(e.delta for e in events if e.type == "response.output_text.delta") == answer.output_text
    assert events[-1].type == f"response.{answer.status}"
    assert events[-1].response.output_text == answer.output_text  # type: ignore[union-attr]


def test_asynchronous_client(server: Server) -> None:
    async def run() -> tuple[str, str]:
        async with server.openai_async() as client:
            asked: Any = {"model": MODEL, "input": "Name a colour.", "temperature": 0}
            whole = await client.responses.create(**asked)
            async with client.responses.stream(**asked) as stream:
                return whole.output_text, (await stream.get_final_response()).output_text

    whole, final = asyncio.run(run())
    assert whole == final


@pytest.mark.parametrize("stream", [False, True])
def test_thoughts_and_tools(scripted: Server, stream: bool) -> None:
    def ask(text: str, **more: Any) -> Any:
        client = scripted.openai()
        asked: Any = {"model": "scripted", "input": text, "tools": FLAT, **more}
        if not stream:
            return client.responses.create(**asked)
        with client.responses.stream(**asked) as events:
            return events.get_final_response()

    answer = ask(f"<think>Hm.</think>{TWO}")
    thought, message, first, second = answer.output
    assert thought.type == "reasoning" and thought.content[0].text == "Hm."
    assert message.content[0].text == "Let me see." and message.status == "completed"
    assert (first.name, json.loads(first.arguments)) == ("look_up", _ARGUMENTS)
    assert (second.name, json.loads(second.arguments)) == ("weather", {"q": "Oslo"})
    assert first.call_id != second.call_id
    answer = ask('{"q": "Oslo"}}</tool_call>', tool_choice={"type": "function", "name": "weather"})
    assert [(item.name, json.loads(item.arguments)) for item in answer.output] == [("weather", {"q": "Oslo"})]
    answer = ask(ONE, tool_choice="none")
    assert [item.type for item in answer.output] == ["message"] and answer.output_text == ONE


def test_a_conversation_is_sent_whole(scripted: Server) -> None:
    items: Any = [
        {"role": "user", "content": "Weather?"},
        {"type": "reasoning", "id": "rs_1", "summary": [], "content": [{"type": "reasoning_text", "text": "Hm."}]},
        {"type": "function_call", "call_id": "c1", "name": "weather", "arguments": '{"q": "Oslo"}'},
        {"type": "function_call_output", "call_id": "c1", "output": "It rains."},
    ]
    assert scripted.openai().responses.create(model="scripted", input=items, tools=FLAT).output_text == "It rains."


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    "wrong",
    [
        {"input": []},
        {"input": 5},
        {"input": [5]},
        {"input": [{"type": "item_reference", "id": "x"}]},
        {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}]},
        {"input": "x " * 9000},
        {"previous_response_id": "resp_1"},
        {"conversation": "conv_1"},
        {"background": True},
        {"tools": [{"type": "web_search"}]},
        {"tools": [{"type": "function"}]},
        {"text": {"format": {"type": "xml"}}},
        {"text": {"format": {"type": "json_schema", "name": "x", "schema": {"type": "nothing"}}}},
        {"max_output_tokens": 0},
        {"temperature": -1},
    ],
)
def test_what_is_wrong_is_told_before_the_headers(server: Server, wrong: dict[str, Any], stream: bool) -> None:
    with pytest.raises(openai.BadRequestError):
        server.openai().responses.create(**{"model": MODEL, "input": "Hi", "stream": stream, **wrong})


def test_scores_are_llms(server: Server, llm_bf16: LLM) -> None:
    question, answers = "The capital of France is", [" Paris", " Rome", " a cat"]
    found = server.post("/v1/score", {"text_1": question, "text_2": answers}).json["data"]
    for given, expected in zip(found, llm_bf16.score([question + a for a in answers], start=5), strict=True):
        assert given["logprobs"] == expected.logprobs and given["score"] == expected.logprob
    assert max(found, key=lambda entry: entry["score"])["index"] == 0
    for wrong in (
        {"text_1": "a"},
        {"text_1": "a", "text_2": ""},
        {"text_1": ["a", "b"], "text_2": ["a"]},
        {"text_2": 5},
    ):
        assert server.post("/v1/score", wrong).status == 400
