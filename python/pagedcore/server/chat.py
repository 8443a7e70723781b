"""A conversation that is answered: what the dialects that have conversations share."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from ..history import ChatPrompt
from ..outputs import CompletionOutput, RequestOutput
from ..sampling_params import SamplingParams
from .answer import AnswerParser, Arguments, Begun, Content, Piece
from .call import Call
from .fields import Fields
from .http import in_thread_if
from .openai.conversation import ToolUse
from .openai.received import Received
from .running import Running

__all__ = ["Chat", "Sample", "conversation_prompt", "has_channels"]

_IN_A_THREAD = 16384  # characters of a conversation, from which on others are served while its template runs


class Sample:
    """One answer as it comes, taken apart."""

    def __init__(self, index: int, parser: AnswerParser, *, parallel: bool) -> None:
        self.index = index
        self.calls: list[tuple[str, list[str]]] = []
        self.content: list[str] = []
        self.thoughts: list[str] = []
        self._parser = parser
        self._parallel = parallel
        self._dropping = False  # calls after the first, where only one is wanted

    def take(self, news: CompletionOutput) -> list[Piece]:
        """What is new; the last news brings what was held back."""
        pieces = self._parser.push(news.text)
        if news.finished:
            pieces += self._parser.finish()
        return [piece for piece in pieces if self._keep(piece)]

    def _keep(self, piece: Piece) -> bool:
        if isinstance(piece, Begun):
            self._dropping = bool(self.calls) and not self._parallel
            if not self._dropping:
                self.calls.append((piece.name, []))
        elif isinstance(piece, Arguments):
            if not self._dropping:
                self.calls[-1][1].append(piece.text)
        else:
            (self.content if isinstance(piece, Content) else self.thoughts).append(piece.text)
            return bool(piece.text)
        return not self._dropping


def has_channels(template: str) -> bool:
    """Whether a model with this chat template writes messages in channels, whose marks are special tokens."""
    return "<|channel|>" in template


class Chat:
    """The requests of one conversation."""

    def __init__(
        self, call: Call, prompt: ChatPrompt, params: Any, options: Mapping[str, Any], tools: ToolUse, template: str
    ) -> None:
        """``prompt``: ends with what the answer is made to begin with. ``template``: the text of the chat template."""
        self._tools = tools
        self._prompt = str(prompt)
        self._thinks = "</think>" in template
        self._channels = has_channels(template)
        self._running = Running(call, [prompt], params, options)
        self._params = params
        self._form = params if isinstance(params, SamplingParams) else SamplingParams()
        self._tokenizer = call.llm.tokenizer
        self.num_samples = params.n if isinstance(params, SamplingParams) else params.beam_width

    def resumed(self, fields: Fields, *, stream: bool) -> tuple[bool, Received]:
        """Whether the caller counts tokens to go on where a connection breaks, and what it has already."""
        plain = self.num_samples == 1 and isinstance(self._params, SamplingParams)
        count = Received.read(fields, stream=stream, plain=plain)
        return count is not None, Received(count or 0, self._form, self._tokenizer)

    def sample(self, index: int) -> Sample:
        begun = self._tools.begun
        answered = self._prompt[: len(self._prompt) - len(begun)] if begun else self._prompt
        parser = AnswerParser(
            thinks=self._thinks and not begun,
            prompt=answered,
            format=self._tools.format,
            tools=self._tools.schemas,
            begun=begun,
            channels=self._channels,
        )
        return Sample(index, parser, parallel=self._tools.parallel)

    async def output(self) -> RequestOutput:
        """The whole, with its samples."""
        (output,) = await self._running.outputs()
        return output

    async def news(self) -> AsyncIterator[RequestOutput]:
        async with self._running as running:
            async for _, output in running:
                yield output


async def conversation_prompt(
    call: Call, messages: Sequence[dict[str, Any]], template: Mapping[str, Any], begun: str
) -> ChatPrompt:
    """What the chat template makes of a conversation, and what the answer is to begin with."""

    def render() -> ChatPrompt:
        text = call.llm.chat_prompt(messages, **template) + begun
        return ChatPrompt(text, (text,))

    size = sum(len(str(message.get("content"))) for message in messages)
    return await in_thread_if(size > _IN_A_THREAD, render)
