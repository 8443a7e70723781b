"""The page at ``/``: files of ours, and nothing from elsewhere. It holds no data and needs no key: it asks
``/snapshot`` for what it shows, with the key that its reader gives it."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from importlib.resources import files
from typing import Any

from starlette.responses import Response

from .call import Call

__all__ = ["PAGE"]

_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; base-uri 'none'; "
)
_HEADERS = {
    "content-security-policy": _POLICY + "form-action 'none'; frame-ancestors 'none'",
    "cache-control": "no-cache",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}


def _file(name: str, media_type: str) -> Callable[[Call], Coroutine[Any, Any, Response]]:
    content = files(__package__).joinpath("static").joinpath(name).read_bytes()

    async def answer(call: Call) -> Response:
        return Response(content, media_type=media_type, headers=_HEADERS)

    return answer


PAGE = (
    ("/", _file("page.html", "text/html")),
    ("/page/page.css", _file("page.css", "text/css")),
    ("/page/page.js", _file("page.js", "text/javascript")),
    ("/page/memory.js", _file("memory.js", "text/javascript")),
    ("/page/numbers.js", _file("numbers.js", "text/javascript")),
)
"""Paths and what they answer."""
