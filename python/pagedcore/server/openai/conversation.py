"""Messages and tools of a body, as a chat template knows them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from ...grammar import is_available
from ...grammar.library import library
from ...structured_outputs import StructuredOutputs
from ..answer import ToolFormat, calls_grammar
from ..errors import ApiError, not_supported
from ..fields import Fields, wrong

if TYPE_CHECKING:
    from ...tokenizer import Tokenizer

__all__ = ["ToolUse", "conversation", "tool_use"]

_ROLES = ("system", "developer", "user", "assistant", "tool", "function")


def conversation(fields: Fields, template: str) -> list[dict[str, Any]]:
    """``template``: what a template does not know by its name is said in words that it does."""
    given = fields.required("messages")
    if not isinstance(given, list) or not given:
        raise wrong("messages", given, "a list of one message or more")
    return [_message(at, message, template) for at, message in enumerate(fields.listed("messages"))]


def _message(at: int, given: Any, template: str) -> dict[str, Any]:
    name = f"messages[{at}]"
    if not isinstance(given, dict):
        raise wrong(name, given, "an object with a role and content")
    message = dict(given)
    role = message.get("role")
    if not isinstance(role, str) or role not in _ROLES:
        raise wrong(f"{name}.role", role, f"one of {', '.join(_ROLES)}")
    if role == "developer" and "developer" not in template:
        message["role"] = "system"
    content = message.get("content")
    calls = message.get("tool_calls")
    if not (isinstance(content, (str, list)) or (content is None and role == "assistant")):
        raise wrong(f"{name}.content", content, "a text or a list of parts")
    for place, part in enumerate(content if isinstance(content, list) else ()):
        _check_part(f"{name}.content[{place}]", part)
    if content is None and not calls and not message.get("reasoning_content") and "function_call" not in message:
        raise ApiError(400, f"{name} has neither content nor tool_calls", param=name)
    if calls is not None:
        message["tool_calls"] = _calls(f"{name}.tool_calls", calls)
    return message


def _check_part(name: str, part: Any) -> None:
    if isinstance(part, str):
        return
    if not isinstance(part, dict):
        raise wrong(name, part, "a part such as {'type': 'text', 'text': ...}")
    kind = part.get("type", "text")
    if kind in ("text", "input_text", "output_text"):
        if not isinstance(part.get("text"), str):
            raise wrong(f"{name}.text", part.get("text"), "a text")
    elif kind == "refusal":
        part.update(type="text", text=str(part.get("refusal", "")))
    else:
        raise ApiError(400, f"{name} is of the type {str(kind)[:64]!r}: models here read text only", param=name)


def _calls(name: str, calls: Any) -> list[dict[str, Any]]:
    """Templates write the arguments themselves: they get the object and not its text."""
    if not isinstance(calls, list) or len(calls) > 128:
        raise wrong(name, calls, "a list of at most 128 calls")
    found = []
    for at, call in enumerate(calls):
        function = call.get("function") if isinstance(call, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise wrong(f"{name}[{at}]", call, "a call of a function, with its name and arguments")
        arguments = function.get("arguments", {})
        if isinstance(arguments, str):
            try:
                parsed = json.loads(arguments or "{}")
            except (ValueError, RecursionError):
                parsed = arguments
            arguments = parsed if isinstance(parsed, dict) else arguments
        found.append({**call, "function": {**function, "arguments": arguments}})
    return found


class ToolUse(NamedTuple):
    """What a call says of tools."""

    tools: list[dict[str, Any]]
    """For the template; empty: none."""
    format: ToolFormat | None
    """How calls are read; None: not at all."""
    begun: str
    """What the answer is made to begin with, so that it is a call."""
    parallel: bool
    held: StructuredOutputs | None = None
    """What the answer is held to behind that beginning."""

    @property
    def schemas(self) -> dict[str, Mapping[str, Any]]:
        return {tool["function"]["name"]: tool["function"].get("parameters") or {} for tool in self.tools}


def tool_use(fields: Fields, format: ToolFormat | None, tokenizer: Tokenizer | None) -> ToolUse:
    """``format``: how the model writes calls; None where its template shows no tools."""
    tools = [_tool(at, tool) for at, tool in enumerate(fields.listed("tools"))]
    names = [tool["function"]["name"] for tool in tools]
    choice = fields.raw("tool_choice")
    parallel = fields.flag("parallel_tool_calls", True)
    chosen: str | None = None
    if isinstance(choice, dict):
        named = choice.get("function", choice)
        chosen = named.get("name") if isinstance(named, dict) else None
        if choice.get("type", "function") != "function" or not isinstance(chosen, str):
            raise not_supported("tool_choice", "it is 'none', 'auto', 'required', or names a function")
        if chosen not in names:
            raise ApiError(400, f"tool_choice names {chosen[:64]!r}, which is not among the tools", param="tool_choice")
    elif choice not in (None, "none", "auto", "required"):
        raise wrong("tool_choice", choice, "'none', 'auto', 'required', or name a function")
    if choice == "required" and not tools:
        raise ApiError(400, "tool_choice is 'required', and there are no tools", param="tool_choice")
    if not tools or choice == "none":
        return ToolUse([], None, "", parallel)
    if format is None:
        raise ApiError(
            400,
            "the model's chat template shows no tools, or not in a form that is known: name a model that has them, or "
            "start the server with --chat-template and --tool-format",
            param="tools",
        )
    forced = choice == "required" or chosen is not None
    if not forced:
        for at, tool in enumerate(tools):
            if tool["function"].get("strict"):
                raise not_supported(
                    f"tools[{at}].function.strict", "calls are held to a schema where tool_choice requires one"
                )
        return ToolUse(tools, format, "", parallel)
    if format.body == "channels":
        raise not_supported("tool_choice", "a model that writes in channels chooses by itself whether it calls a tool")
    held = None
    if is_available():
        callable_ = [tool["function"] for tool in tools if chosen in (None, tool["function"]["name"])]
        several = parallel and chosen is None
        held = StructuredOutputs(grammar=calls_grammar(format, callable_, chosen, tokenizer, several=several))
    elif any(tool["function"].get("strict") for tool in tools):
        library()  # raises: it names the extra
    return ToolUse(tools, format, format.begin(chosen), parallel, held)


def _tool(at: int, tool: Any) -> dict[str, Any]:
    name = f"tools[{at}]"
    if not isinstance(tool, dict) or tool.get("type", "function") != "function":
        raise wrong(name, tool, "a function: {'type': 'function', 'function': {'name': ..., 'parameters': ...}}")
    function = tool.get("function")
    if not isinstance(function, dict) or not isinstance(function.get("name"), str) or not function["name"]:
        raise wrong(f"{name}.function", function, "an object with a name")
    if len(function["name"]) > 256:
        raise ApiError(400, f"{name}.function.name has more than 256 characters", param=name)
    parameters = function.get("parameters")
    if parameters is not None and not isinstance(parameters, dict):
        raise wrong(f"{name}.function.parameters", parameters, "a JSON schema")
    return tool
