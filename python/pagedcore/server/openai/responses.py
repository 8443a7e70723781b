"""/v1/responses, without a memory of earlier ones: a conversation is sent whole."""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from typing import Any

from starlette.responses import Response

from ...outputs import CompletionOutput
from ..answer import Arguments, Begun, Piece, Thought
from ..call import Call
from ..chat import Chat, conversation_prompt, has_channels
from ..errors import api_error, openai_error
from ..http import answered, event, unless_left
from ..sampling import refuse_unsupported, request_options, sampling_params
from ..structured import format_of
from .chat import new_call_id
from .common import raise_failure
from .conversation import ToolUse, conversation, tool_use
from .response_items import as_chat, item_of, part_of

__all__ = ["responses"]

_MEMORY = "nothing is stored here: send the whole conversation as input"
_UNSUPPORTED = {
    "background": "wait for the answer, or stream it",
    "conversation": _MEMORY,
    "max_tool_calls": "tools here are the caller's own",
    "moderation": "leave it out",
    "previous_response_id": _MEMORY,
    "prompt": "send the prompt itself as input",
    "top_logprobs": "/v1/chat/completions has log-probabilities",
}


async def responses(call: Call) -> Response:
    asked = await _Answer.read(call)
    return await answered(call.request, asked, call.fields.flag("stream"), _failed_stream)


class _Answer:
    def __init__(self, call: Call, chat: Chat, tools: ToolUse, params: Any) -> None:
        self._call = call
        self._chat = chat
        self._tools = tools
        self._params = params
        self._id = f"resp_{uuid.uuid4().hex}"
        self._created = int(time.time())
        self._items: list[dict[str, Any]] = []
        self._number = -1

    @classmethod
    async def read(cls, call: Call) -> _Answer:
        fields, served = call.fields, call.served
        call.model()
        refuse_unsupported(fields, _UNSUPPORTED)
        theirs = as_chat(fields)
        options = served.template_options()
        template = served.template(chosen=options.get("chat_template"), tools="tools" in theirs)
        tools = tool_use(theirs, served.tool_format(template), served.llm.tokenizer)
        if tools.tools:
            options["tools"] = tools.tools
        effort = fields.within("reasoning").text("effort")
        if effort is not None:
            options["template_variables"] = {"reasoning_effort": effort, "enable_thinking": effort != "none"}
        held = tools.held or format_of(fields.within("text").within("format"))
        ours: dict[str, Any] = {"max_tokens": fields.integer("max_output_tokens", 1), "structured_outputs": held}
        params = sampling_params(fields, served.llm.default_sampling_params(chat=True), served.llm.tokenizer, **ours)
        params = replace(
            params, n=1, best_of=None, skip_special_tokens=tools.format is None and not has_channels(template)
        )
        spoken = conversation(theirs, template)
        prompt = await unless_left(call.request, conversation_prompt(call, spoken, options, tools.begun))
        return cls(call, Chat(call, prompt, params, request_options(fields), tools, template), tools, params)

    async def answer(self) -> dict[str, Any]:
        output = await self._chat.output()
        raise_failure(output.outputs)
        (sample,) = output.outputs
        for _ in self._taken(self._chat.sample(0).take(sample), sample):
            pass
        return self._response(sample)

    async def events(self) -> AsyncIterator[bytes]:
        parsed = self._chat.sample(0)
        begun = False
        async for output in self._chat.news():
            raise_failure(output.outputs)
            chunks: list[bytes] = []
            if not begun:
                begun = True
                for kind in ("response.created", "response.in_progress"):
                    chunks.append(self._event(kind, response=self._response(None)))
            (sample,) = output.outputs
            chunks += self._taken(parsed.take(sample), sample)
            if sample.finished:
                whole = self._response(sample)
                chunks.append(self._event(f"response.{whole['status']}", response=whole))
            if chunks:
                yield b"".join(chunks)

    def _taken(self, pieces: list[Piece], sample: CompletionOutput) -> Iterator[bytes]:
        """The events of what is new; the items grow."""
        for piece in pieces:
            item = self._items[-1] if self._items else None
            if not isinstance(piece, Arguments) and (
                item is None or isinstance(piece, Begun) or not _goes_on(item, piece)
            ):
                yield from self._closed("completed")
                yield from self._opened(piece)
            if not isinstance(piece, Begun):
                yield from self._grown(piece)
        if sample.finished:
            yield from self._closed("incomplete" if sample.finish_reason == "length" else "completed")

    def _opened(self, piece: Piece) -> Iterator[bytes]:
        length = self._tools.format.id_length if self._tools.format is not None else 29
        item = item_of(piece, new_call_id(length))
        yield self._event("response.output_item.added", output_index=len(self._items), item=dict(item))
        self._items.append(item)
        if not isinstance(piece, (Begun, Arguments)):
            part = part_of(piece)
            yield self._event("response.content_part.added", **self._place(), content_index=0, part=dict(part))
            item["content"] = [part]

    def _grown(self, piece: Piece) -> Iterator[bytes]:
        item = self._items[-1]
        if isinstance(piece, Arguments):
            item["arguments"] += piece.text
            yield self._event("response.function_call_arguments.delta", **self._place(), delta=piece.text)
        elif not isinstance(piece, Begun):
            item["content"][0]["text"] += piece.text
            name = "reasoning_text" if isinstance(piece, Thought) else "output_text"
            more: dict[str, Any] = {} if isinstance(piece, Thought) else {"logprobs": []}
            yield self._event(f"response.{name}.delta", **self._place(), content_index=0, delta=piece.text, **more)

    def _closed(self, status: str) -> Iterator[bytes]:
        if not self._items or self._items[-1]["status"] != "in_progress":
            return
        item = self._items[-1]
        item["status"] = status
        if item["type"] == "function_call":
            done = {"arguments": item["arguments"], "name": item["name"]}
            yield self._event("response.function_call_arguments.done", **self._place(), **done)
        else:
            (part,) = item["content"]
            name = "reasoning_text" if item["type"] == "reasoning" else "output_text"
            more: dict[str, Any] = {} if item["type"] == "reasoning" else {"logprobs": []}
            yield self._event(f"response.{name}.done", **self._place(), content_index=0, text=part["text"], **more)
            yield self._event("response.content_part.done", **self._place(), content_index=0, part=dict(part))
        yield self._event("response.output_item.done", output_index=len(self._items) - 1, item=item)

    def _place(self) -> dict[str, Any]:
        return {"item_id": self._items[-1]["id"], "output_index": len(self._items) - 1}

    def _event(self, kind: str, **values: Any) -> bytes:
        self._number += 1
        return event({"type": kind, "sequence_number": self._number, **values}, kind)

    def _response(self, sample: CompletionOutput | None) -> dict[str, Any]:
        """None: it is under way."""
        fields, tally = self._call.fields, self._call.tally
        cut = sample is not None and sample.finish_reason == "length"
        usage = {
            "input_tokens": tally.prompt_tokens,
            "input_tokens_details": {"cached_tokens": tally.cached_tokens, "cache_write_tokens": 0},
            "output_tokens": tally.completion_tokens,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": tally.prompt_tokens + tally.completion_tokens,
        }
        return {
            "id": self._id,
            "object": "response",
            "created_at": self._created,
            "status": "in_progress" if sample is None else "incomplete" if cut else "completed",
            "error": None,
            "incomplete_details": {"reason": "max_output_tokens"} if cut else None,
            "instructions": fields.raw("instructions"),
            "max_output_tokens": fields.raw("max_output_tokens"),
            "metadata": fields.raw("metadata") or {},
            "model": self._call.tally.model,
            "output": list(self._items) if sample is not None else [],
            "parallel_tool_calls": self._tools.parallel,
            "previous_response_id": None,
            "reasoning": {"effort": fields.within("reasoning").raw("effort"), "summary": None},
            "store": False,
            "temperature": self._params.temperature,
            "text": {"format": fields.within("text").raw("format") or {"type": "text"}},
            "tool_choice": fields.raw("tool_choice") or "auto",
            "tools": fields.raw("tools") or [],
            "top_p": self._params.top_p,
            "truncation": "disabled",
            "usage": None if sample is None else usage,
        }


def _goes_on(item: dict[str, Any], piece: Piece) -> bool:
    return bool(item["type"] == ("reasoning" if isinstance(piece, Thought) else "message"))


def _failed_stream(error: Exception) -> bytes:
    told = openai_error(api_error(error))["error"]
    values = {"type": "error", "sequence_number": 0, "code": told["code"], "message": told["message"], "param": None}
    return event(values, "error")
