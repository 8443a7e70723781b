"""One request: its checked parameters on the way in, and its samples' text and log-probabilities on the way out."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from . import _core
from .arguments import shown
from .checks import native_record
from .detokenizer import Detokenizer, StopIndex, StopStrings
from .errors import InvalidArgument
from .logprobs import Logprobs
from .names import unknown_name
from .outputs import CompletionOutput, RequestMetrics, RequestOutput
from .sampling_params import SamplingParams

if TYPE_CHECKING:
    from .tokenizer import Tokenizer

__all__ = ["Request", "check_prefix_name", "derived_seed", "native_arguments", "request_options"]


def request_options(options: Mapping[str, Any]) -> _core.RequestOptions:
    """What a call says of how its requests are served. Raises TypeError for a keyword that there is not."""
    known = [info.name for info in _core.options_of("RequestOptions")]
    for name in options:
        if name not in known:
            raise unknown_name("a request", name, known)
    return native_record(_core.RequestOptions, options)


def check_prefix_name(name: object, salt: object) -> None:
    """That a request could name the prefix so."""
    if not isinstance(name, str):
        raise InvalidArgument(f"the name of a prefix is a text, not {shown(name)}")
    native_record(_core.RequestOptions, {"prefix": name, "salt": salt})


def derived_seed(seed: int, number: int) -> int:
    """The seed of a request that names none: SplitMix64 (Steele et al., OOPSLA 2014) of the two."""
    mask = 2**64 - 1
    z = (seed + (number + 1) * 0x9E3779B97F4A7C15) & mask
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
    return z ^ (z >> 31)


@dataclass
class Request:
    """Not thread-safe: belongs to the call that made it."""

    prompt: str | None
    token_ids: list[int]
    params: SamplingParams
    """For a beam search: what concerns the form of its outputs."""
    native: _core.SamplingParams | _core.BeamSearchParams | _core.EmbeddingParams
    options: _core.RequestOptions
    tokenizer: Tokenizer | None
    constraint: _core.Constraint | None = None
    hidden: int = 0
    """Tokens of the prompt that are not shown: those of a shared prefix."""
    clock: float = 0.0
    """What the monotonic clock showed when the engine's began."""
    id: int = -1
    _samples: list[_Sample] = field(default_factory=list)
    _prompt_logprobs: Logprobs | None = None
    _cached_tokens: int = 0
    _unfinished: int = 0
    _metrics: RequestMetrics = field(default_factory=lambda: RequestMetrics(time.monotonic()))

    def __post_init__(self) -> None:
        self._unfinished = self.params.num_samples

    @property
    def name(self) -> int | str:
        """The caller's name for it, or the engine's number."""
        return self.options.request_id or self.id

    @property
    def finished(self) -> bool:
        return self._unfinished == 0

    @property
    def is_beam_search(self) -> bool:
        return isinstance(self.native, _core.BeamSearchParams)

    @property
    def needs_every_token(self) -> bool:
        """Whether the engine must report token by token even if the caller wants the whole only."""
        return bool(self.params.stop)

    @property
    def most_tokens(self) -> int:
        """How many it may generate."""
        native = self.native
        if isinstance(native, _core.SamplingParams):
            return native.max_tokens * native.n
        return native.max_tokens if isinstance(native, _core.BeamSearchParams) else 0

    @property
    def spared_tokens(self) -> int:
        """How many of those it has not; known when it is finished."""
        return self.most_tokens - sum(len(sample.total.token_ids) for sample in self._samples)

    def started(self, request_id: int) -> None:
        """It is accepted. Before that it holds nothing for its samples: what asks for too many is refused by
        arithmetic."""
        self.id = request_id
        stop = StopIndex(self.params.stop)
        self._samples = [_Sample(index, self.params, self.tokenizer, stop) for index in range(self._unfinished)]

    def take(self, news: _core.EngineOutput) -> CompletionOutput | None:
        """Takes in news of one sample and returns what is new; None after the sample ended."""
        self._note_times(news)
        self._cached_tokens = max(self._cached_tokens, news.cached_tokens)
        prompt_logprobs = news.prompt_logprobs
        if self.params.prompt_logprobs is not None and len(prompt_logprobs) > 0:
            self._prompt_logprobs = Logprobs(_text_of(self.tokenizer), len(self.token_ids) - len(prompt_logprobs))
            self._prompt_logprobs.add(prompt_logprobs, len(prompt_logprobs))
        delta = self._samples[news.sample].take(news)
        if delta is not None and delta.finished:
            self._unfinished -= 1
            if self.is_beam_search:
                delta.score = self._samples[news.sample].total.score = news.score
        if news.last and not self.finished:  # a search may end with fewer hypotheses than asked for
            self._samples = [sample for sample in self._samples if sample.total.finished]
            self._unfinished = 0
        if self.finished:
            self._metrics.finished_time = time.monotonic()
        return delta

    def _note_times(self, news: _core.EngineOutput) -> None:
        metrics, begin = self._metrics, self.clock
        metrics.queued_time = begin + news.queued_time
        if news.scheduled_time:
            metrics.scheduled_time = begin + news.scheduled_time
        if news.prefilled_time:
            metrics.prefilled_time = begin + news.prefilled_time
        if news.first_token_time:
            metrics.first_token_time = min(metrics.first_token_time or math.inf, begin + news.first_token_time)
            metrics.last_token_time = max(metrics.last_token_time or 0.0, begin + news.last_token_time)

    def output(self, samples: Sequence[CompletionOutput] | None = None) -> RequestOutput:
        """Everything so far, or the given news."""
        prompt_logprobs = self._prompt_logprobs
        if self.params.prompt_logprobs is not None and prompt_logprobs is None and len(self.token_ids) == 1:
            prompt_logprobs = Logprobs(None, 1)
        return RequestOutput(
            request_id=self.name,
            prompt=self.prompt,
            prompt_token_ids=self.token_ids[self.hidden :] if self.hidden else self.token_ids,
            outputs=self._best() if samples is None else list(samples),
            finished=self.finished,
            prompt_logprobs=prompt_logprobs.without_first(self.hidden) if prompt_logprobs is not None else None,
            num_cached_tokens=max(self._cached_tokens - self.hidden, 0),
            metrics=self._metrics,
        )

    def _best(self) -> list[CompletionOutput]:
        """Every sample, or the n best ones of best_of."""
        if not self.params.ranks:
            return [sample.total for sample in self._samples]
        ranked = sorted(self._samples, key=lambda sample: -sample.logprob)[: self.params.n]
        return [replace(sample.total, index=index) for index, sample in enumerate(ranked)]


def native_arguments(
    requests: Sequence[Request], every_token: bool, queue: int = 0
) -> tuple[
    list[list[int]],
    list[_core.SamplingParams | _core.BeamSearchParams | _core.EmbeddingParams],
    list[_core.RequestOptions],
    list[bool],
    int,
    list[_core.Constraint | None],
]:
    """What an engine's ``submit_all`` takes."""
    return (
        [request.token_ids for request in requests],
        [request.native for request in requests],
        [request.options for request in requests],
        [every_token or request.needs_every_token for request in requests],
        queue,
        [request.constraint for request in requests],
    )


class _Sample:
    def __init__(self, index: int, params: SamplingParams, tokenizer: Tokenizer | None, stop: StopIndex) -> None:
        self.total = CompletionOutput(index)
        self.logprob = 0.0
        """Sum over all tokens so far; of use when they come with log-probabilities."""
        self._params = params
        self._tokenizer = tokenizer
        self._text: Detokenizer | None = None
        if tokenizer is not None and params.detokenize:
            self._text = Detokenizer(tokenizer, skip_special_tokens=params.skip_special_tokens)
        self._stop = StopStrings(stop, include=params.include_stop_str_in_output)
        if params.reports_logprobs:
            self.total.logprobs = Logprobs(_text_of(tokenizer))
            self.total.cumulative_logprob = 0.0

    def take(self, news: _core.EngineOutput) -> CompletionOutput | None:
        if self.total.finished:
            return None  # tokens that the engine computed before it heard of our stop string
        delta = CompletionOutput(self.total.index)
        tokens = news.tokens
        text = []
        for position, token in enumerate(tokens):
            delta.token_ids.append(token)
            ends_sample = news.finish == "stop" and position == len(tokens) - 1
            if not ends_sample or self._params.include_stop_str_in_output:
                text.append(self._push(token, len(self.total.token_ids) + position + 1))
            if self._stop.matched is not None:
                break
        if self._stop.matched is not None:
            delta.finish_reason, delta.stop_reason = "stop", self._stop.matched
        elif news.finish != "none":
            text.append(self._finish())
            delta.finish_reason, delta.stop_reason = news.finish, self._stop_reason(news, tokens)
            delta.error = news.error or None
        delta.text = "".join(text)
        self._add_logprobs(delta, news)
        self.total.append(delta)
        return delta

    def _push(self, token: int, count: int) -> str:
        if self._text is None:
            return ""
        return self._stop.push(self._text.push(token), searching=count > self._params.min_tokens)

    def _finish(self) -> str:
        rest = self._text.finish() if self._text is not None else ""
        return self._stop.finish() + rest

    def _stop_reason(self, news: _core.EngineOutput, tokens: Sequence[int]) -> int | str | None:
        if news.finish == "stop" and tokens and tokens[-1] in self._params.stop_token_ids:
            return tokens[-1]
        return None

    def _add_logprobs(self, delta: CompletionOutput, news: _core.EngineOutput) -> None:
        native = news.logprobs
        logprobs = Logprobs(_text_of(self._tokenizer))
        self.logprob += logprobs.add(native, min(len(native), len(delta.token_ids)))
        if self._params.reports_logprobs:
            delta.logprobs, delta.cumulative_logprob = logprobs, self.logprob


def _text_of(tokenizer: Tokenizer | None) -> Callable[[int], str] | None:
    return None if tokenizer is None else tokenizer.token_text
