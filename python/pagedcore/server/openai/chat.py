"""/v1/chat/completions."""

from __future__ import annotations

import secrets
import string
from collections.abc import AsyncIterator, Mapping
from types import MappingProxyType
from typing import Any

from starlette.responses import Response

from ...outputs import CompletionOutput, RequestOutput
from ..answer import Arguments, Begun, Content, Piece, Thought
from ..call import Call
from ..chat import Chat, Sample, conversation_prompt, has_channels
from ..errors import ApiError
from ..http import Repeated, answered, event, unless_left
from ..sampling import beam_params, refuse_unsupported, request_options, sampling_params
from .common import DONE, Head, StreamOptions, failed_stream, raise_failure, usage_of
from .conversation import ToolUse, conversation, tool_use
from .logprobs import MOST_LOGPROBS, ChatLogprobs, prompt_logprobs

__all__ = ["chat_completions", "chat_options", "new_call_id"]

_UNSUPPORTED = {
    "echo": "the prompt is what was sent",
    "function_call": "use tool_choice",
    "functions": "use tools",
    "modalities": "models here write text only",
    "store": "nothing is stored here",
    "verbosity": "say in the prompt how long an answer is to be",
    "web_search_options": "models here read the prompt only",
}
_HARMLESS = {"modalities": (["text"],), "verbosity": ("medium",), "function_call": ("none",)}
_NOTHING: Mapping[str, Any] = MappingProxyType({})
_ALPHANUMERIC = string.ascii_letters + string.digits


def new_call_id(length: int) -> str:
    """Of a tool call. Templates of some families want nine letters and digits."""
    random = "".join(secrets.choice(_ALPHANUMERIC) for _ in range(min(length, 24)))
    return random if length < 24 else "call_" + random


async def chat_completions(call: Call) -> Response:
    asked = await _ChatCompletion.read(call)
    return await answered(call.request, asked, asked.streamed.stream, failed_stream)


def chat_options(call: Call) -> dict[str, Any]:
    """What a body says to the chat template."""
    fields = call.fields
    options: dict[str, Any] = call.served.template_options()
    if "add_generation_prompt" in fields:
        options["add_generation_prompt"] = fields.flag("add_generation_prompt")
    if fields.flag("continue_final_message"):
        options["continue_final_message"] = True
        if options.get("add_generation_prompt"):
            raise ApiError(400, "add_generation_prompt and continue_final_message contradict each other")
    if "chat_template" in fields:
        options["chat_template"] = fields.text("chat_template", most=100_000)
    variables = dict(fields.mapping("chat_template_kwargs"))
    if "reasoning_effort" in fields:
        variables.setdefault("reasoning_effort", fields.text("reasoning_effort"))
    if variables:
        options["template_variables"] = variables
    return options


class _ChatCompletion:
    def __init__(self, call: Call, chat: Chat, tools: ToolUse) -> None:
        fields = call.fields
        self.streamed = StreamOptions.read(fields)
        self._head = Head.new("chatcmpl", call.model(), call.state.fingerprint)
        self._call = call
        self._chat = chat
        self._tools = tools
        self._places: dict[int, int] = {}  # of each choice the call that its news is about
        self._repeated: dict[int, Repeated] = {}
        self._resumable, self._received = chat.resumed(fields, stream=self.streamed.stream)
        self._with_ids = fields.flag("return_token_ids")
        self._with_thoughts = fields.flag("include_reasoning", True)
        tokenizer = call.llm.tokenizer
        self._logprobs: ChatLogprobs | None = None
        if fields.flag("logprobs") and tokenizer is not None:
            as_ids = fields.flag("return_tokens_as_token_ids")
            self._logprobs = ChatLogprobs(
                tokenizer, fields.integer("top_logprobs", 0, MOST_LOGPROBS) or 0, as_ids=as_ids
            )

    @classmethod
    async def read(cls, call: Call) -> _ChatCompletion:
        fields, served = call.fields, call.served
        call.model()
        refuse_unsupported(fields, _UNSUPPORTED, _HARMLESS)
        StreamOptions.read(fields)
        top = fields.integer("top_logprobs", 0, MOST_LOGPROBS)
        if top is not None and not fields.flag("logprobs"):
            raise ApiError(400, "top_logprobs needs logprobs=true", param="top_logprobs")
        options = chat_options(call)
        template = served.template(chosen=options.get("chat_template"), tools="tools" in fields)
        messages = conversation(fields, template)
        tools = tool_use(fields, served.tool_format(template), served.llm.tokenizer)
        if tools.tools:
            options["tools"] = tools.tools
        defaults = served.llm.default_sampling_params(chat=True)
        most = fields.integer("max_tokens", 0)
        most = fields.integer("max_completion_tokens", 0, default=most)
        ours: dict[str, Any] = {"max_tokens": most, "logprobs": top or 0 if fields.flag("logprobs") else None}
        ours["prompt_logprobs"] = fields.integer("prompt_logprobs", 0, MOST_LOGPROBS)
        if tools.format is not None or has_channels(template):
            ours["skip_special_tokens"] = False  # the marks of a call may be special tokens
        if tools.held is not None:
            ours["structured_outputs"] = tools.held
        if fields.flag("use_beam_search"):
            params: Any = beam_params(fields, most or served.llm.max_context, defaults)
        else:
            params = sampling_params(fields, defaults, served.llm.tokenizer, **ours)
        prompt = await unless_left(call.request, conversation_prompt(call, messages, options, tools.begun))
        return cls(call, Chat(call, prompt, params, request_options(fields), tools, template), tools)

    async def answer(self) -> dict[str, Any]:
        output = await self._chat.output()
        raise_failure(output.outputs)
        choices = []
        for sample in output.outputs:
            parsed = self._chat.sample(sample.index)
            parsed.take(sample)
            message = self._message(parsed)
            logprobs = self._entries(sample)
            choice = {"index": sample.index, "message": message, "logprobs": logprobs, **self._end(parsed, sample)}
            choices.append(choice | ({"token_ids": sample.token_ids} if self._with_ids else {}))
        return self._head.of("chat.completion", choices, usage=usage_of(self._call.tally), **self._of_prompt(output))

    def _message(self, parsed: Sample) -> dict[str, Any]:
        content = "".join(parsed.content)
        message: dict[str, Any] = {"role": "assistant", "content": content, "refusal": None}
        if parsed.calls:
            message["content"] = content or None
            message["tool_calls"] = [
                {
                    "id": self._new_id(),
                    "type": "function",
                    "function": {"name": name, "arguments": "".join(arguments)},
                }
                for name, arguments in parsed.calls
            ]
        if parsed.thoughts and self._with_thoughts:
            message["reasoning_content"] = "".join(parsed.thoughts)
        return message

    async def events(self) -> AsyncIterator[bytes]:
        samples: dict[int, Sample] = {}
        async for output in self._chat.news():
            raise_failure(output.outputs)
            chunks: list[bytes] = []
            if not samples:
                # Of all choices, in order: clients begin a choice where they first hear of it.
                samples = {index: self._chat.sample(index) for index in range(self._chat.num_samples)}
                chunks += [
                    self._chunk(
                        index, {"role": "assistant", "content": ""}, **(self._of_prompt(output) if index == 0 else {})
                    )
                    for index in samples
                ]
            for sample in output.outputs:
                chunks += self._news(samples[sample.index], sample)
            if chunks:
                yield b"".join(chunks)
        if self.streamed.usage:
            yield event(self._head.of("chat.completion.chunk", [], usage=usage_of(self._call.tally)))
        yield DONE

    def _news(self, parsed: Sample, sample: CompletionOutput) -> list[bytes]:
        chunks = []
        for had, news in self._received.split(sample):
            if had:
                for piece in parsed.take(news):
                    self._delta(parsed, piece)  # counts calls
            else:
                chunks += self._told(parsed, news)
        return chunks

    def _told(self, parsed: Sample, sample: CompletionOutput) -> list[bytes]:
        pieces = parsed.take(sample)
        if len(pieces) == 1 and isinstance(pieces[0], Content) and not sample.finished and self._is_plain:
            return [self._plain(parsed.index).with_text(pieces[0].text)]
        deltas = [delta for piece in pieces if (delta := self._delta(parsed, piece))]
        logprobs = self._entries(sample) if sample.token_ids else None
        if not deltas and (logprobs or (self._with_ids and sample.token_ids)):
            deltas = [{"content": ""}]
        chunks = []
        # The first one has what belongs to the tokens; for those who count them to go on later, the last one has them.
        place = len(deltas) - 1 if self._resumable else 0
        for at, delta in enumerate(deltas):
            more = {"token_ids": sample.token_ids} if self._with_ids and at == place else {}
            chunks.append(self._chunk(parsed.index, delta, logprobs if at == 0 else None, choice=more))
        if sample.finished:
            chunks.append(self._chunk(parsed.index, {}, choice=self._end(parsed, sample)))
        return chunks

    @property
    def _is_plain(self) -> bool:
        """Whether a chunk of content has nothing else."""
        return self._logprobs is None and not self._with_ids and not self.streamed.running_usage

    def _plain(self, index: int) -> Repeated:
        if index not in self._repeated:
            self._repeated[index] = Repeated(self._chunk(index, {"content": ""}), "content")
        return self._repeated[index]

    def _delta(self, parsed: Sample, piece: Piece) -> dict[str, Any] | None:
        if isinstance(piece, Thought):
            return {"reasoning_content": piece.text} if self._with_thoughts else None
        if isinstance(piece, Begun):
            call: dict[str, Any] = {
                "id": self._new_id(),
                "type": "function",
                "function": {"name": piece.name, "arguments": ""},
            }
        elif isinstance(piece, Arguments):
            call = {"function": {"arguments": piece.text}}
        else:
            return {"content": piece.text}
        # Of several calls in one piece of news the later ones are counted already: each knows its own place.
        return {"tool_calls": [{"index": self._place(parsed, piece), **call}]}

    def _place(self, parsed: Sample, piece: Piece) -> int:
        place = self._places.get(parsed.index, -1) + isinstance(piece, Begun)
        self._places[parsed.index] = place
        return place

    def _chunk(
        self,
        index: int,
        delta: dict[str, Any],
        logprobs: Any = None,
        *,
        choice: Mapping[str, Any] = _NOTHING,
        **more: Any,
    ) -> bytes:
        whole = {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": None, **choice}
        return event(
            self._head.of("chat.completion.chunk", [whole], **more, **self.streamed.on_chunk(self._call.tally))
        )

    def _entries(self, sample: CompletionOutput) -> dict[str, Any] | None:
        if self._logprobs is None or sample.logprobs is None:
            return None
        return {"content": self._logprobs.entries(sample.token_ids, sample.logprobs), "refusal": None}

    def _end(self, parsed: Sample, sample: CompletionOutput) -> dict[str, Any]:
        called = bool(parsed.calls) and sample.finish_reason == "stop"
        return {"finish_reason": "tool_calls" if called else sample.finish_reason, "stop_reason": sample.stop_reason}

    def _of_prompt(self, output: RequestOutput) -> dict[str, Any]:
        more: dict[str, Any] = {"prompt_token_ids": output.prompt_token_ids} if self._with_ids else {}
        if "prompt_logprobs" in self._call.fields and output.prompt_logprobs is not None:
            more["prompt_logprobs"] = prompt_logprobs(output.prompt_logprobs)
        return more

    def _new_id(self) -> str:
        return new_call_id(self._tools.format.id_length if self._tools.format is not None else 29)
