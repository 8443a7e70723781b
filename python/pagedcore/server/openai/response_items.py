"""Items of /v1/responses: those of a call's input as messages, and those of an answer."""

from __future__ import annotations

import json
import uuid
from typing import Any

from ..answer import Begun, Content, Piece, Thought
from ..errors import ApiError, not_supported
from ..fields import Fields, wrong

__all__ = ["as_chat", "item_of", "part_of"]


def as_chat(fields: Fields) -> Fields:
    """Input, instructions and tools in the words of /v1/chat/completions."""
    messages: list[dict[str, Any]] = []
    instructions = fields.text("instructions", most=None)
    if instructions:
        messages.append({"role": "system", "content": instructions})
    given = fields.required("input")
    if isinstance(given, str):
        messages.append({"role": "user", "content": given})
    elif isinstance(given, list) and given:
        for at, item in enumerate(fields.listed("input")):
            _add(messages, f"input[{at}]", item)
    else:
        raise wrong("input", given, "a text or a list of items")
    values: dict[str, Any] = {"messages": messages, "parallel_tool_calls": fields.raw("parallel_tool_calls")}
    tools = [_tool(at, tool) for at, tool in enumerate(fields.listed("tools"))]
    if tools:
        values["tools"] = tools
    values["tool_choice"] = fields.raw("tool_choice")
    return Fields(values)


def _add(messages: list[dict[str, Any]], name: str, item: Any) -> None:
    """What the assistant thought, said and called in a row is one message."""
    if not isinstance(item, dict):
        raise wrong(name, item, "an item such as {'role': 'user', 'content': ...}")
    kind = item.get("type", "message")
    if kind == "message":
        if item.get("role") != "assistant" or not _open(messages) or messages[-1].get("content"):
            messages.append({"role": item.get("role"), "content": item.get("content")})
        else:
            messages[-1]["content"] = item.get("content")
    elif kind == "function_call":
        if not _open(messages):
            messages.append({"role": "assistant", "content": None})
        function = {"name": item.get("name"), "arguments": item.get("arguments", "{}")}
        messages[-1].setdefault("tool_calls", []).append(
            {"id": item.get("call_id"), "type": "function", "function": function}
        )
    elif kind == "function_call_output":
        output = item.get("output")
        content = output if isinstance(output, (str, list)) else json.dumps(output)
        messages.append({"role": "tool", "tool_call_id": item.get("call_id"), "content": content})
    elif kind == "reasoning":
        parts = item.get("content") or item.get("summary") or []
        texts = [part.get("text", "") for part in parts if isinstance(part, dict)] if isinstance(parts, list) else []
        messages.append({"role": "assistant", "content": None, "reasoning_content": "".join(map(str, texts)) or " "})
    else:
        raise ApiError(400, f"{name} is of the type {str(kind)[:64]!r}, which is not read here", param=name)


def _open(messages: list[dict[str, Any]]) -> bool:
    return bool(messages) and messages[-1].get("role") == "assistant"


def _tool(at: int, tool: Any) -> dict[str, Any]:
    """Flat here, and nested there."""
    name = f"tools[{at}]"
    if not isinstance(tool, dict):
        raise wrong(name, tool, "a function with its name and parameters")
    if tool.get("type") != "function":
        raise not_supported(f"{name}.type", "tools here are functions of the caller's own")
    function = {key: tool[key] for key in ("name", "description", "parameters") if tool.get(key) is not None}
    return {"type": "function", "function": function}


def item_of(piece: Piece, call_id: str) -> dict[str, Any]:
    """An empty one, that this piece begins."""
    if isinstance(piece, Thought):
        return {"id": _new("rs"), "type": "reasoning", "summary": [], "content": [], "status": "in_progress"}
    if isinstance(piece, Begun):
        head = {"id": _new("fc"), "type": "function_call", "status": "in_progress"}
        return {**head, "call_id": call_id, "name": piece.name, "arguments": ""}
    return {"id": _new("msg"), "type": "message", "status": "in_progress", "role": "assistant", "content": []}


def part_of(piece: Thought | Content) -> dict[str, Any]:
    """An empty one of such an item."""
    if isinstance(piece, Thought):
        return {"type": "reasoning_text", "text": ""}
    return {"type": "output_text", "text": "", "annotations": [], "logprobs": []}


def _new(prefix: str) -> str:
    return f"{prefix}_{uuid.uuid4().hex}"
