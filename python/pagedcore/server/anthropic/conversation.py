"""Messages, system prompt and tools of this dialect, as a chat template knows them."""

from __future__ import annotations

import json
from typing import Any

from ..errors import ApiError, not_supported
from ..fields import Fields, wrong

__all__ = ["as_openai"]

_CHOICES = {"auto": "auto", "any": "required", "none": "none"}


def as_openai(fields: Fields) -> Fields:
    """The conversation and the tools in the words of the other dialect, which the rest of the server speaks."""
    given = fields.required("messages")
    if not isinstance(given, list) or not given:
        raise wrong("messages", given, "a list of one message or more")
    messages = _system(fields)
    for at, message in enumerate(fields.listed("messages")):
        messages += _message(f"messages[{at}]", message)
    values: dict[str, Any] = {"messages": messages}
    tools = [_tool(at, tool) for at, tool in enumerate(fields.listed("tools"))]
    if tools:
        values["tools"] = tools
    choice = fields.within("tool_choice")
    kind = choice.choice("type", ("auto", "any", "tool", "none"))
    if kind == "tool":
        values["tool_choice"] = {"type": "function", "function": {"name": choice.required("name")}}
    elif kind is not None:
        values["tool_choice"] = _CHOICES[kind]
    values["parallel_tool_calls"] = not choice.flag("disable_parallel_tool_use")
    return Fields(values)


def _system(fields: Fields) -> list[dict[str, Any]]:
    given = fields.raw("system")
    if given is None or given == []:
        return []
    return [{"role": "system", "content": _text("system", given)}]


def _message(name: str, given: Any) -> list[dict[str, Any]]:
    """The results of tools are messages of their own elsewhere."""
    if not isinstance(given, dict) or given.get("role") not in ("user", "assistant"):
        raise wrong(name, given, "a message with the role 'user' or 'assistant' and content")
    role, content = given["role"], given.get("content")
    if isinstance(content, str):
        return [{"role": role, "content": content}]
    if not isinstance(content, list):
        raise wrong(f"{name}.content", content, "a text or a list of blocks")
    found: list[dict[str, Any]] = []
    texts: list[str] = []
    calls: list[dict[str, Any]] = []
    thoughts: list[str] = []
    for at, block in enumerate(content):
        place = f"{name}.content[{at}]"
        kind = block.get("type") if isinstance(block, dict) else None
        if kind == "text":
            texts.append(_text(place, [block]))
        elif kind == "tool_use" and role == "assistant":
            calls.append(_call(place, block))
        elif kind == "tool_result" and role == "user":
            found.append(
                {"role": "tool", "tool_call_id": str(block.get("tool_use_id", "")), "content": _result(place, block)}
            )
        elif kind == "thinking" and role == "assistant":
            thoughts.append(str(block.get("thinking", "")))
        elif kind != "redacted_thinking":
            known = "text, tool_use, tool_result or thinking, each where it belongs"
            raise ApiError(400, f"{place} is of the type {str(kind)[:64]!r}: models here read {known}", param=place)
    if texts or calls or thoughts or not found:
        message: dict[str, Any] = {"role": role, "content": "".join(texts)}
        message |= {"tool_calls": calls} if calls else {}
        message |= {"reasoning_content": "".join(thoughts)} if thoughts else {}
        found.append(message)
    return found


def _text(name: str, given: Any) -> str:
    if isinstance(given, str):
        return given
    if not isinstance(given, list):
        raise wrong(name, given, "a text or a list of blocks")
    for block in given:
        if not isinstance(block, dict) or block.get("type") != "text" or not isinstance(block.get("text"), str):
            raise wrong(name, block, "a block such as {'type': 'text', 'text': ...}: models here read text only")
    return "".join(block["text"] for block in given)


def _result(name: str, block: dict[str, Any]) -> str:
    text = _text(f"{name}.content", block.get("content") or "")
    return f"Error: {text}" if block.get("is_error") is True else text


def _call(name: str, block: dict[str, Any]) -> dict[str, Any]:
    tool, given = block.get("name"), block.get("input", {})
    if not isinstance(tool, str) or not isinstance(given, dict):
        raise wrong(name, block, "a call with the name of a tool and its input")
    function = {"name": tool, "arguments": json.dumps(given, ensure_ascii=False)}
    return {"id": str(block.get("id", "")), "type": "function", "function": function}


def _tool(at: int, given: Any) -> dict[str, Any]:
    name = f"tools[{at}]"
    if not isinstance(given, dict):
        raise wrong(name, given, "a tool with name and input_schema")
    if given.get("type") not in (None, "custom"):
        raise not_supported(f"{name}.type", "tools here are the caller's own: give a name and an input_schema")
    function = {"name": given.get("name"), "parameters": given.get("input_schema")}
    if isinstance(given.get("description"), str):
        function["description"] = given["description"]
    return {"type": "function", "function": function}
