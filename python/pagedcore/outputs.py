"""What comes back from a request."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

from .logprobs import Logprob, Logprobs

__all__ = ["CompletionOutput", "FinishReason", "Logprob", "Logprobs", "RequestMetrics", "RequestOutput", "Score"]

FinishReason = Literal["stop", "length", "abort", "error", "deadline"]


@dataclass
class CompletionOutput:
    """One sample, or one hypothesis of a beam search. From a stream it holds what is new since the last one; otherwise
    everything."""

    index: int
    text: str = ""
    token_ids: list[int] = field(default_factory=list)
    cumulative_logprob: float | None = None
    """Sum over all tokens so far, when log-probabilities were asked for."""
    logprobs: Logprobs | None = None
    """For each token: the chosen token first, then the most likely ones, then those of ``logprob_token_ids``."""
    finish_reason: FinishReason | None = None
    stop_reason: int | str | None = None
    """The stop string or the entry of ``stop_token_ids`` that ended the sample; None for an end-of-sequence token."""
    error: str | None = None
    """Why, when finish_reason is "error"."""
    score: float | None = None
    """For a finished hypothesis of a beam search: the sum of its log-probabilities, with the length penalty applied."""

    @property
    def finished(self) -> bool:
        return self.finish_reason is not None

    def append(self, delta: CompletionOutput) -> None:
        """What came after this."""
        self.text += delta.text
        self.token_ids += delta.token_ids
        if delta.logprobs is not None and self.logprobs is not None:
            self.logprobs.extend(delta.logprobs)
            self.cumulative_logprob = delta.cumulative_logprob
        self.finish_reason, self.stop_reason, self.error = delta.finish_reason, delta.stop_reason, delta.error
        self.score = delta.score

    def copy(self) -> CompletionOutput:
        """One that does not grow with this."""
        logprobs = None if self.logprobs is None else self.logprobs.without_first(0)
        return replace(self, token_ids=list(self.token_ids), logprobs=logprobs)


@dataclass
class RequestMetrics:
    """Seconds on this process's monotonic clock; None: not yet."""

    arrival_time: float
    """When the call was made."""
    first_token_time: float | None = None
    """Of the sample that was first, in the engine, as the next four."""
    finished_time: float | None = None
    """When the caller's side had taken in the last output."""
    queued_time: float | None = None
    scheduled_time: float | None = None
    """When the first step that computes something of it began."""
    prefilled_time: float | None = None
    """When its whole prompt had been computed."""
    last_token_time: float | None = None

    @property
    def time_to_first_token(self) -> float | None:
        return None if self.first_token_time is None else self.first_token_time - self.arrival_time

    @property
    def latency(self) -> float | None:
        return None if self.finished_time is None else self.finished_time - self.arrival_time


@dataclass
class RequestOutput:
    """A request's samples so far. From ``stream`` only those with news, and only their news."""

    request_id: int | str
    """The caller's name for it, or the engine's number."""
    prompt: str | None
    """None when the prompt was given as token ids."""
    prompt_token_ids: list[int]
    """Without those of a shared prefix."""
    outputs: list[CompletionOutput]
    finished: bool
    prompt_logprobs: Logprobs | None = None
    """One per entry of ``prompt_token_ids``; None for the first of a prompt, since nothing predicts it, and for those
    before ``prompt_logprob_start``."""
    num_cached_tokens: int = 0
    """How many of ``prompt_token_ids`` have KV that came from the prefix cache or a registered prefix. Those of a
    shared prefix, which are not among them, are not counted."""
    metrics: RequestMetrics | None = None

    @property
    def error(self) -> str | None:
        """The first sample's error, if any failed."""
        return next((output.error for output in self.outputs if output.error is not None), None)


@dataclass
class Score:
    """How likely a model finds a text."""

    token_ids: list[int]
    logprobs: list[float]
    """``logprobs[i]`` is of ``token_ids[start + i]`` given the tokens before it."""
    start: int = 1
    """The first token that was scored; nothing predicts the very first of a prompt."""

    @property
    def logprob(self) -> float:
        """Log-probability of the text from token `start` on: the sum of `logprobs`."""
        return sum(self.logprobs)

    @property
    def perplexity(self) -> float:
        from math import exp, nan

        return exp(-self.logprob / len(self.logprobs)) if self.logprobs else nan
