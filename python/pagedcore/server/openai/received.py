"""Answers that go on behind what the caller has: ``received_tokens``.

The same request has the same tokens. So a caller whose connection broke asks again and says how many tokens it has; the
answer is computed anew, and what it has is left out: those tokens, and the text that was shown with them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from ...detokenizer import Detokenizer, StopIndex, StopStrings
from ...outputs import CompletionOutput
from ...sampling_params import SamplingParams
from ...tokenizer import Tokenizer
from ..errors import ApiError
from ..fields import Fields

__all__ = ["Received"]

_MOST = 1 << 31


class Received:
    """Of one sample. Takes its news and leaves out what the caller has."""

    def __init__(self, count: int, params: SamplingParams, tokenizer: Tokenizer | None) -> None:
        self._left = count
        self._count = count
        self._params = params
        self._tokens = 0
        self._text: Detokenizer | None = None
        if tokenizer is not None and params.detokenize:
            self._text = Detokenizer(tokenizer, skip_special_tokens=params.skip_special_tokens)
        self._stop = StopStrings(StopIndex(params.stop), include=params.include_stop_str_in_output)

    @classmethod
    def read(cls, fields: Fields, *, stream: bool, plain: bool) -> int | None:
        """None where the field is not there. ``plain``: one sample of one prompt. Raises ApiError where an answer
        cannot go on."""
        count = fields.integer("received_tokens", 0, _MOST - 1)
        if count is None:
            return None
        if not stream:
            raise ApiError(400, "received_tokens needs stream=true", param="received_tokens")
        if not plain or fields.flag("echo"):
            raise ApiError(
                400, "received_tokens is of one choice of one prompt, without beams and echo", param="received_tokens"
            )
        if count and "seed" not in fields and fields.raw("temperature") != 0:
            raise ApiError(
                400,
                f"received_tokens={count} without a seed: another call would draw other tokens. Give the seed of the "
                "first call, or temperature=0",
                param="received_tokens",
            )
        return count

    def split(self, news: CompletionOutput) -> Iterator[tuple[bool, CompletionOutput]]:
        """(whether the caller has it, news) of what comes: one of them, or both."""
        if not self._left:
            yield False, news
            return
        had = min(self._left, len(news.token_ids))
        self._left -= had
        rest = len(news.token_ids) - had
        if self._left and news.finished:
            raise ApiError(
                409,
                f"received_tokens={self._count}, but the answer has {self._count - self._left} tokens: it is another "
                "one",
                param="received_tokens",
                headers={"x-should-retry": "false"},
            )
        if not rest and (self._left or not news.finished):
            for token in news.token_ids:
                self._shown(token)
            yield True, news
            return
        # With the last token of an answer came all of its text.
        shown = len(news.text) if not rest else sum(self._shown(token) for token in news.token_ids[:had])
        first, later = _parts(news, had, shown)
        yield True, first
        yield False, later

    def _shown(self, token: int) -> int:
        """Characters."""
        self._tokens += 1
        if self._text is None:
            return 0
        return len(self._stop.push(self._text.push(token), searching=self._tokens > self._params.min_tokens))


def _parts(news: CompletionOutput, tokens: int, characters: int) -> tuple[CompletionOutput, CompletionOutput]:
    logprobs = news.logprobs
    first = replace(
        news,
        token_ids=news.token_ids[:tokens],
        text=news.text[:characters],
        logprobs=None if logprobs is None else logprobs[:tokens],  # type: ignore[arg-type]
        finish_reason=None,
        stop_reason=None,
    )
    later = replace(
        news,
        token_ids=news.token_ids[tokens:],
        text=news.text[characters:],
        logprobs=None if logprobs is None else logprobs.without_first(tokens),
    )
    return first, later
