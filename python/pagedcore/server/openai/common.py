"""What the endpoints of this dialect have in common."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterable
from typing import Any, NamedTuple

from ...outputs import CompletionOutput
from ..errors import ApiError, api_error, openai_error
from ..fields import Fields
from ..http import event
from ..tally import Tally

__all__ = ["DONE", "Head", "StreamOptions", "failed_stream", "raise_failure", "usage_of"]

DONE = b"data: [DONE]\n\n"


class Head(NamedTuple):
    """What every chunk of a stream, and the whole answer, begin with."""

    id: str
    created: int
    model: str
    fingerprint: str

    @classmethod
    def new(cls, prefix: str, model: str, fingerprint: str) -> Head:
        return cls(f"{prefix}-{uuid.uuid4().hex}", int(time.time()), model, fingerprint)

    def of(self, kind: str, choices: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
        """An object of this kind, such as ``chat.completion.chunk``."""
        return {
            "id": self.id,
            "object": kind,
            "created": self.created,
            "model": self.model,
            "system_fingerprint": self.fingerprint,
            "choices": choices,
            **more,
        }


def usage_of(tally: Tally) -> dict[str, Any]:
    return {
        "prompt_tokens": tally.prompt_tokens,
        "completion_tokens": tally.completion_tokens,
        "total_tokens": tally.prompt_tokens + tally.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": tally.cached_tokens},
    }


class StreamOptions(NamedTuple):
    stream: bool
    usage: bool
    """A last chunk without choices says what was used."""
    running_usage: bool
    """Every chunk says what has been used so far."""

    @classmethod
    def read(cls, fields: Fields) -> StreamOptions:
        stream = fields.flag("stream")
        if not stream and fields.mapping("stream_options"):
            raise ApiError(400, "stream_options needs stream=true", param="stream_options")
        options = fields.within("stream_options")
        options.flag("include_obfuscation")  # taken, and nothing is padded
        usage = options.flag("include_usage")
        return cls(stream, usage, usage and options.flag("continuous_usage_stats"))

    def on_chunk(self, tally: Tally) -> dict[str, Any]:
        """The field ``usage`` of a chunk that is not the last one."""
        return {"usage": usage_of(tally) if self.running_usage else None} if self.usage else {}


def raise_failure(outputs: Iterable[CompletionOutput]) -> None:
    """Raises where a sample was not generated to its end."""
    for output in outputs:
        if output.finish_reason == "error":
            raise ApiError(500, output.error or "the request failed", code="request_failed")
        if output.finish_reason == "deadline":
            raise ApiError(504, "the answer was not complete within --request-timeout", code="deadline_exceeded")
        if output.finish_reason == "abort":
            raise ApiError(503, output.error or "the request was ended by the server", code="aborted", retry_after=1)


def failed_stream(error: Exception) -> bytes:
    """What ends a stream that fails on its way."""
    return event(openai_error(api_error(error))) + DONE
