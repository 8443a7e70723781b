"""A body: read within bounds of size and time, and made into a JSON object."""

from __future__ import annotations

import asyncio
import json
from functools import partial
from typing import Any, NoReturn

from starlette.requests import ClientDisconnect, Request

from .errors import ApiError
from .fields import Fields
from .http import in_thread_if

__all__ = ["read_body", "read_fields"]

_MOST_VALUES = 1_000_000  # each takes some tens of bytes of memory, however few it has in the body
_DEEPEST = 64
_DISCARDED = 8  # times the limit: what is read of a body that is too large
_IN_A_THREAD = 65536  # bytes, from which on others are served while it is parsed


async def read_fields(request: Request, most_bytes: int, seconds: float) -> Fields:
    """The object in the body. Raises ApiError where there is none, or where it is too large or takes too long."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json" and not kind.endswith("+json"):
        # Any other type can be sent by a page of the web to a server that only its user reaches.
        raise ApiError(415, f"content-type is {kind[:64] or 'missing'!r}: bodies are application/json")
    data = await read_body(request, most_bytes, seconds)
    values = await in_thread_if(len(data) > _IN_A_THREAD, partial(_parsed, data))
    if not isinstance(values, dict):
        raise ApiError(400, "the body must be a JSON object")
    return Fields(values)


async def read_body(request: Request, most_bytes: int, seconds: float) -> bytes:
    """As it came. Raises ApiError where it is too large or takes too long."""
    length = request.headers.get("content-length", "")
    declared = int(length[:20]) if length.isdecimal() else 0
    if declared > _DISCARDED * most_bytes or (declared > most_bytes and "expect" in request.headers):
        _refuse_size(most_bytes)
    try:
        return await asyncio.wait_for(_read(request, most_bytes), seconds)
    except asyncio.TimeoutError:
        raise ApiError(408, f"the body did not come within {seconds:g} s", headers={"connection": "close"}) from None


async def _read(request: Request, most_bytes: int) -> bytes:
    """Reads on where there is too much, for a while: a connection that is closed with data unread is reset, and its
    client may lose the answer that says why."""
    pieces, size = [], 0
    try:
        async for piece in request.stream():
            size += len(piece)
            if size <= most_bytes:
                pieces.append(piece)
            elif size > _DISCARDED * most_bytes:
                break
    except ClientDisconnect:
        raise ApiError(400, "the client left before the body was complete") from None
    if size > most_bytes:
        _refuse_size(most_bytes)
    return b"".join(pieces)


def _refuse_size(most_bytes: int) -> NoReturn:
    # The rest of the body may be unread: the connection cannot serve another call.
    raise ApiError(413, f"the body is larger than {most_bytes} bytes", headers={"connection": "close"})


def _parsed(data: bytes) -> Any:
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ApiError(400, f"the body is not UTF-8: byte {error.start} is {data[error.start]:#04x}") from None
    if sum(map(text.count, ",[{")) > _MOST_VALUES:
        raise ApiError(400, f"the body holds more than {_MOST_VALUES} values")
    try:
        values = json.loads(text, parse_constant=_refuse_constant)
    except RecursionError:
        raise ApiError(400, f"the body nests values more than {_DEEPEST} deep") from None
    except ValueError as error:  # no JSON; a number of more digits than Python reads
        raise ApiError(400, f"the body is not JSON: {str(error)[:200]}") from None
    if _nesting(values) > _DEEPEST:
        raise ApiError(400, f"the body nests values more than {_DEEPEST} deep")
    if "\\u" in text:
        try:
            json.dumps(values, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise ApiError(400, "the body is not valid Unicode: it holds half of a surrogate pair") from None
    return values


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number in JSON")


def _nesting(value: Any) -> int:
    depth, level = 0, [value]
    while level := [item for item in level if isinstance(item, (dict, list))]:
        depth += 1
        if depth > _DEEPEST:
            break
        level = [inner for item in level for inner in (item.values() if isinstance(item, dict) else item)]
    return depth
