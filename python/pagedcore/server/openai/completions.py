"""/v1/completions: texts or token ids go on."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from typing import Any

from starlette.responses import Response

from ...history import ChatPrompt
from ...outputs import CompletionOutput, RequestOutput
from ...prompts import Prompt
from ...sampling_params import SamplingParams
from ..call import Call
from ..errors import ApiError
from ..fields import MOST, Fields, are_token_ids, wrong
from ..http import answered, event
from ..running import Running
from ..sampling import MOST_CHOICES, beam_params, refuse_unsupported, request_options, sampling_params
from .common import DONE, Head, StreamOptions, failed_stream, raise_failure, usage_of
from .logprobs import MOST_LOGPROBS, TextLogprobs, prompt_logprobs
from .received import Received

__all__ = ["completions"]

_UNSUPPORTED = {
    "prompt_embeds": "give a prompt",
    "suffix": "models here continue a text, and do not fill in",
}


async def completions(call: Call) -> Response:
    asked = _Completions(call)
    return await answered(call.request, asked, asked.streamed.stream, failed_stream)


class _Completions:
    def __init__(self, call: Call) -> None:
        fields, llm = call.fields, call.llm
        refuse_unsupported(fields, _UNSUPPORTED)
        self.streamed = StreamOptions.read(fields)
        self._head = Head.new("cmpl", call.model(), call.state.fingerprint)
        self._call = call
        self._prompts = _prompts(fields)
        self._echo = fields.flag("echo")
        self._logprobs = fields.integer("logprobs", 0, MOST_LOGPROBS)
        self._as_ids = fields.flag("return_tokens_as_token_ids")
        self._with_ids = fields.flag("return_token_ids")
        self._prompt_logprobs = fields.integer("prompt_logprobs", 0, MOST_LOGPROBS)
        defaults = llm.default_sampling_params()
        self._beams = fields.flag("use_beam_search")
        max_tokens = fields.integer("max_tokens", 0)
        if self._beams:
            chosen = defaults.max_tokens if max_tokens is None else max_tokens
            self._params: Any = beam_params(fields, chosen or 1, defaults)
            self._form = SamplingParams(n=self._params.beam_width)
        else:
            self._params = self._form = sampling_params(
                fields,
                defaults,
                llm.tokenizer,
                max_tokens=max_tokens,
                logprobs=self._logprobs,
                prompt_logprobs=self._wanted_of_prompt(),
            )
        if len(self._prompts) * self._form.num_samples > MOST_CHOICES:
            most = f"{MOST_CHOICES} are allowed"
            raise ApiError(
                400, f"{len(self._prompts)} prompts of n={self._form.num_samples} samples: {most}", param="n"
            )
        if self._logprobs is not None and llm.tokenizer is None:
            raise ApiError(400, "log-probabilities need a tokenizer, and the model has none", param="logprobs")
        add = fields.flag("add_special_tokens", True)
        if not add:
            self._prompts = [ChatPrompt(p, (p,)) if isinstance(p, str) else p for p in self._prompts]
        self._options = request_options(fields)
        plain = len(self._prompts) == 1 and self._form.num_samples == 1 and not self._beams
        count = Received.read(fields, stream=self.streamed.stream, plain=plain)
        self._received = Received(count or 0, self._form, llm.tokenizer)

    def _wanted_of_prompt(self) -> int | None:
        wanted = [self._prompt_logprobs, self._logprobs if self._echo else None]
        return max((count for count in wanted if count is not None), default=None)

    def _running(self) -> Running:
        return Running(self._call, self._prompts, self._params, self._options)

    async def answer(self) -> dict[str, Any]:
        choices = []
        for at, output in enumerate(await self._running().outputs()):
            raise_failure(output.outputs)
            for sample in output.outputs:
                choice = _Choice(self, at, sample.index, output)
                choices.append(choice.first(output) | choice.values(sample, output) | choice.end(sample))
        return self._head.of("text_completion", choices, usage=usage_of(self._call.tally))

    async def events(self) -> AsyncIterator[bytes]:
        choices: dict[tuple[int, int], _Choice] = {}
        async with self._running() as running:
            async for at, output in running:
                raise_failure(output.outputs)
                for sample in output.outputs:
                    key = at, sample.index
                    new = key not in choices
                    if new:
                        choices[key] = _Choice(self, at, sample.index, output)
                    choice = choices[key]
                    for had, news in self._split(sample):
                        if had:
                            choice.values(news, output)
                            continue
                        first = choice.first(output) if new else {}
                        told = news.token_ids and (self._logprobs is not None or self._with_ids)
                        if first or news.text or told or (new and self._echo):
                            values = first | choice.values(news, output)
                            yield self._chunk(values | {"finish_reason": None, "stop_reason": None})
                        if news.finished:
                            yield self._chunk(choice.ended() | choice.end(news))
        if self.streamed.usage:
            yield event(self._head.of("text_completion", [], usage=usage_of(self._call.tally)))
        yield DONE

    def _split(self, sample: CompletionOutput) -> Iterable[tuple[bool, CompletionOutput]]:
        return self._received.split(sample)

    def _chunk(self, choice: dict[str, Any]) -> bytes:
        return event(self._head.of("text_completion", [choice], **self.streamed.on_chunk(self._call.tally)))


class _Choice:
    """One sample of one prompt."""

    def __init__(self, asked: _Completions, prompt: int, sample: int, output: RequestOutput) -> None:
        self._asked = asked
        self._index = prompt * asked._form.n + sample
        self._echo = asked._echo
        self._prompt = ""
        llm = asked._call.llm
        if self._echo:
            ids = output.prompt_token_ids
            self._prompt = output.prompt if output.prompt is not None else llm.detokenize(ids)
        self._logprobs: TextLogprobs | None = None
        if asked._logprobs is not None and llm.tokenizer is not None:
            skip = asked._form.skip_special_tokens
            self._logprobs = TextLogprobs(
                llm.tokenizer, asked._logprobs, skip_special_tokens=skip, as_ids=asked._as_ids
            )

    def first(self, output: RequestOutput) -> dict[str, Any]:
        """What only the first chunk has."""
        first: dict[str, Any] = {}
        if self._asked._with_ids:
            first["prompt_token_ids"] = output.prompt_token_ids
        if self._asked._prompt_logprobs is not None and output.prompt_logprobs is not None:
            first["prompt_logprobs"] = prompt_logprobs(output.prompt_logprobs)
        return first

    def values(self, sample: CompletionOutput, output: RequestOutput) -> dict[str, Any]:
        """What is new, or everything; the prompt comes before it once."""
        text, logprobs = sample.text, None
        if self._logprobs is not None and sample.logprobs is not None:
            ids: list[int] = sample.token_ids
            positions: Iterable[Any] = sample.logprobs
            if self._echo:
                ids, positions = [*output.prompt_token_ids, *ids], [*(output.prompt_logprobs or ()), *positions]
            logprobs = self._logprobs.add(ids, positions)
        if self._echo:
            text = self._prompt + text
            self._echo = False
        values: dict[str, Any] = {"index": self._index, "text": text, "logprobs": logprobs}
        if self._asked._with_ids:
            values["token_ids"] = sample.token_ids
        return values

    def ended(self) -> dict[str, Any]:
        return {"index": self._index, "text": "", "logprobs": None}

    @staticmethod
    def end(sample: CompletionOutput) -> dict[str, Any]:
        return {"finish_reason": sample.finish_reason, "stop_reason": sample.stop_reason}


def _prompts(fields: Fields) -> list[Prompt]:
    """A text, token ids, or a list of such."""
    given = fields.required("prompt")
    if isinstance(given, str):
        return [given]
    if not isinstance(given, list) or not given:
        raise wrong("prompt", given, "a text, a list of token ids, or a list of such")
    if are_token_ids(given):
        return [given]
    if len(given) > MOST["prompt"]:
        raise ApiError(400, f"{len(given)} prompts: {MOST['prompt']} are allowed", param="prompt")
    for at, prompt in enumerate(given):
        if not isinstance(prompt, str) and not (isinstance(prompt, list) and are_token_ids(prompt)):
            raise wrong(f"prompt[{at}]", prompt, "a text or a list of token ids")
    return given
