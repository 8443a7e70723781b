"""/v1/messages and /v1/messages/count_tokens."""

from __future__ import annotations

import json
import uuid
from collections.abc import AsyncIterator
from dataclasses import replace
from functools import partial
from typing import Any

from starlette.responses import Response

from ... import _core
from ...outputs import CompletionOutput
from ..answer import Arguments, Begun, Content, Piece, Thought
from ..call import Call
from ..chat import Chat, Sample, conversation_prompt, has_channels
from ..errors import anthropic_error, api_error
from ..fields import Fields
from ..http import Json, answered, event, in_thread_if, unless_left
from ..openai.common import raise_failure
from ..openai.conversation import ToolUse, conversation, tool_use
from ..sampling import refuse_unsupported, request_options, sampling_params
from ..structured import format_of
from .conversation import as_openai

__all__ = ["count_tokens", "messages"]

_IN_A_THREAD = 4096  # characters
_UNSUPPORTED = {
    "container": "tools here are the caller's own",
    "context_management": "leave it out",
    "mcp_servers": "tools here are the caller's own",
}


async def messages(call: Call) -> Response:
    asked = await _Messages.read(call)
    return await answered(call.request, asked, call.fields.flag("stream"), _failed_stream)


async def count_tokens(call: Call) -> Response:
    call.model()
    prompt, _, _ = await _prompt(call)
    encode = partial(call.llm.tokenize, str(prompt), add_special_tokens=False)
    ids = await in_thread_if(len(prompt) > _IN_A_THREAD, encode)
    return Json({"input_tokens": len(ids)})


async def _prompt(call: Call) -> tuple[Any, ToolUse, str]:
    """The prompt of a conversation, what is said of tools, and the template's text."""
    theirs = as_openai(call.fields)
    options = call.served.template_options()
    template = call.served.template(chosen=options.get("chat_template"), tools="tools" in theirs)
    spoken = conversation(theirs, template)
    tools = tool_use(theirs, call.served.tool_format(template), call.served.llm.tokenizer)
    if tools.tools:
        options["tools"] = tools.tools
    if spoken[-1]["role"] == "assistant" and not spoken[-1].get("tool_calls"):
        options["continue_final_message"] = True
    thinking = call.fields.within("thinking").choice("type", ("enabled", "disabled", "adaptive"), "disabled")
    config = call.fields.within("output_config")
    effort = config.text("effort")
    options["template_variables"] = {"enable_thinking": thinking != "disabled"} | (
        {} if effort is None else {"reasoning_effort": effort}
    )
    prompt = await unless_left(call.request, conversation_prompt(call, spoken, options, tools.begun))
    return prompt, tools, template


class _Messages:
    def __init__(self, call: Call, chat: Chat) -> None:
        self._call = call
        self._chat = chat
        self._id = f"msg_{uuid.uuid4().hex}"
        self._model = call.model()

    @classmethod
    async def read(cls, call: Call) -> _Messages:
        fields, llm = call.fields, call.llm
        call.model()
        refuse_unsupported(fields, _UNSUPPORTED)
        fields.required("max_tokens")
        names = {option.name for option in _core.options_of("SamplingParams")} - {"n"}
        params = sampling_params(
            Fields({name: fields.raw(name) for name in names} | {"stop": fields.texts("stop_sequences")}),
            llm.default_sampling_params(chat=True),
            llm.tokenizer,
            max_tokens=fields.integer("max_tokens", 1),
        )
        prompt, tools, template = await _prompt(call)
        if tools.format is not None or has_channels(template):
            params = replace(params, skip_special_tokens=False)
        form = fields.within("output_config").within("format") if "output_config" in fields else None
        held = tools.held or format_of(form or fields.within("output_format"))
        params = replace(params, structured_outputs=held)
        return cls(call, Chat(call, prompt, params, request_options(fields), tools, template))

    async def answer(self) -> dict[str, Any]:
        output = await self._chat.output()
        raise_failure(output.outputs)
        (sample,) = output.outputs
        parsed = self._chat.sample(0)
        blocks: list[dict[str, Any]] = []
        for piece in parsed.take(sample):
            block = blocks[-1] if blocks else None
            if isinstance(piece, Arguments):
                blocks[-1]["input"] += piece.text
            elif block is None or isinstance(piece, Begun) or block["type"] != _kind(piece):
                blocks.append(_block(piece))
            if not isinstance(piece, (Arguments, Begun)):
                blocks[-1][_field(piece)] += piece.text
        for block in blocks:
            if block["type"] == "tool_use":
                block["input"] = _object(block["input"])
        return self._message(blocks, **self._end(parsed, sample), usage=self._usage())

    async def events(self) -> AsyncIterator[bytes]:
        parsed = self._chat.sample(0)
        open_kind: str | None = None
        at = -1
        begun = False
        async for output in self._chat.news():
            raise_failure(output.outputs)
            chunks: list[bytes] = []
            if not begun:
                begun = True
                start = self._message(
                    [], stop_reason=None, stop_sequence=None, usage={**self._usage(), "output_tokens": 0}
                )
                chunks.append(_event("message_start", message=start))
            (sample,) = output.outputs
            for piece in parsed.take(sample):
                if not isinstance(piece, Arguments) and (isinstance(piece, Begun) or open_kind != _kind(piece)):
                    if open_kind is not None:
                        chunks.append(_event("content_block_stop", index=at))
                    at, open_kind = at + 1, _kind(piece)
                    block = _block(piece)
                    if block["type"] == "tool_use":
                        block["input"] = {}
                    chunks.append(_event("content_block_start", index=at, content_block=block))
                if not isinstance(piece, Begun):
                    chunks.append(_event("content_block_delta", index=at, delta=_delta(piece)))
            if sample.finished:
                if open_kind is not None:
                    chunks.append(_event("content_block_stop", index=at))
                chunks.append(_event("message_delta", delta=self._end(parsed, sample), usage=self._usage()))
                chunks.append(_event("message_stop"))
            if chunks:
                yield b"".join(chunks)

    def _message(self, content: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
        head = {"id": self._id, "type": "message", "role": "assistant", "model": self._model}
        return {**head, "content": content, **more}

    @staticmethod
    def _end(parsed: Sample, sample: CompletionOutput) -> dict[str, Any]:
        if sample.finish_reason == "length":
            return {"stop_reason": "max_tokens", "stop_sequence": None}
        if isinstance(sample.stop_reason, str):
            return {"stop_reason": "stop_sequence", "stop_sequence": sample.stop_reason}
        return {"stop_reason": "tool_use" if parsed.calls else "end_turn", "stop_sequence": None}

    def _usage(self) -> dict[str, Any]:
        tally = self._call.tally
        return {
            "input_tokens": tally.prompt_tokens - tally.cached_tokens,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": tally.cached_tokens,
            "output_tokens": tally.completion_tokens,
        }


def _event(kind: str, **values: Any) -> bytes:
    return event({"type": kind, **values}, kind)


def _failed_stream(error: Exception) -> bytes:
    return event(anthropic_error(api_error(error)), "error")


def _kind(piece: Piece) -> str:
    return "thinking" if isinstance(piece, Thought) else "text" if isinstance(piece, Content) else "tool_use"


def _field(piece: Piece) -> str:
    return "thinking" if isinstance(piece, Thought) else "text"


def _block(piece: Piece) -> dict[str, Any]:
    """An empty one."""
    if isinstance(piece, Thought):
        return {"type": "thinking", "thinking": "", "signature": ""}
    if isinstance(piece, Begun):
        return {"type": "tool_use", "id": f"toolu_{uuid.uuid4().hex[:24]}", "name": piece.name, "input": ""}
    return {"type": "text", "text": ""}


def _delta(piece: Thought | Content | Arguments) -> dict[str, Any]:
    if isinstance(piece, Thought):
        return {"type": "thinking_delta", "thinking": piece.text}
    if isinstance(piece, Arguments):
        return {"type": "input_json_delta", "partial_json": piece.text}
    return {"type": "text_delta", "text": piece.text}


def _object(arguments: str) -> dict[str, Any]:
    """What a call was given; nothing where it was cut or is no object."""
    try:
        values = json.loads(arguments)
    except ValueError:
        return {}
    return values if isinstance(values, dict) else {}
