"""What goes wrong with a call, as a status and in the shape of the caller's dialect."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ..errors import Aborted, Error, InvalidArgument, OutOfMemory, Overloaded, Unsupported

__all__ = ["ApiError", "anthropic_error", "api_error", "not_supported", "openai_error"]

_OPENAI_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
}
_ANTHROPIC_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
}
_RETRIED = (408, 409, 429)  # by the official clients, and every status from 500 on


class ApiError(Exception):
    """A call that is answered with an error."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        retry_after: int | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """``param``: the field of the body. ``retry_after``: seconds until it may be worth another try; None where the
        same call would fail again."""
        super().__init__(message)
        self.retry_after = retry_after
        self.status = status
        self.message = message
        self.param = param
        self.code = code
        self.headers = dict(headers or {})
        if retry_after is not None:
            self.headers["retry-after"] = str(retry_after)
        elif status in _RETRIED or status >= 500:
            self.headers["x-should-retry"] = "false"


def not_supported(name: str, remedy: str = "leave it out") -> ApiError:
    """Of a field that is known, and whose effect there is not: to ignore it would answer another question."""
    return ApiError(400, f"{name!r} is not supported: {remedy}", param=name, code="unsupported_parameter")


def api_error(error: BaseException) -> ApiError:
    """What a caller is told of an exception. Nothing of one that is not ours: it may hold anything."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, (InvalidArgument, Unsupported)):
        message = str(error)
        too_long = any(words in message for words in ("leaves no room in a context", "is too long to embed"))
        code = "context_length_exceeded" if too_long else None
        return ApiError(400, message, param=_named_first(message), code=code)
    if isinstance(error, Overloaded):
        return ApiError(429, str(error), code="overloaded", retry_after=1)
    if isinstance(error, OutOfMemory):
        return ApiError(429, str(error), code="out_of_memory", retry_after=1)
    if isinstance(error, Aborted):
        return ApiError(503, str(error), code="shutting_down", retry_after=5)
    if isinstance(error, Error):
        return ApiError(500, str(error))
    return ApiError(500, "the server failed on this request; its log says why")


def _named_first(message: str) -> str | None:
    """The field that a message begins with, as ours do: ``top_p=7 is ...``, ``sampling parameter top_p = 7 is ...``."""
    found = re.match(r"(?:(?:sampling|beam search) parameter )?(\w+) ?=", message)
    return found[1] if found else None


def openai_error(error: ApiError) -> dict[str, Any]:
    kind = _OPENAI_TYPES.get(error.status, "invalid_request_error" if error.status < 500 else "server_error")
    return {"error": {"message": error.message, "type": kind, "param": error.param, "code": error.code}}


def anthropic_error(error: ApiError) -> dict[str, Any]:
    kind = _ANTHROPIC_TYPES.get(error.status, "invalid_request_error" if error.status < 500 else "api_error")
    return {"type": "error", "error": {"type": kind, "message": error.message}}
