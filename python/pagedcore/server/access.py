"""API keys."""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Iterable

from starlette.requests import Request

from ..config_files import read_given
from ..errors import InvalidArgument
from .errors import ApiError

__all__ = ["Keys", "read_keys"]

_VARIABLE = "PAGEDCORE_API_KEY"


def read_keys(file: str | None) -> tuple[str, ...]:
    """One a line of the file; without one those of the environment variable PAGEDCORE_API_KEY, by commas."""
    if file is not None:
        keys = [line.strip() for line in read_given(file).splitlines()]
        found = [key for key in keys if key and not key.startswith("#")]
        where = file
    else:
        found = [key.strip() for key in os.environ.get(_VARIABLE, "").split(",") if key.strip()]
        where = _VARIABLE
        if _VARIABLE not in os.environ:
            return ()
    if not found:
        raise InvalidArgument(f"{where} holds no API key: without one everybody could call")
    if not all(key.isascii() and key.isprintable() and " " not in key for key in found):
        raise InvalidArgument(f"{where} holds an API key with other characters than printable ASCII without spaces")
    return tuple(found)


class Keys:
    """Compares in a time that does not depend on how much of a key is right, or on which one it is."""

    def __init__(self, keys: Iterable[str]) -> None:
        self._digests = [_digest(key) for key in keys]

    def check(self, request: Request) -> None:
        """Raises ApiError unless the caller has a key, as ``Authorization: Bearer`` or ``x-api-key``."""
        if not self._digests:
            return
        scheme, _, bearer = request.headers.get("authorization", "").partition(" ")
        given = bearer.strip() if scheme.lower() == "bearer" else request.headers.get("x-api-key", "")
        digest = _digest(given)
        matches = [hmac.compare_digest(digest, known) for known in self._digests]
        if not any(matches):
            message = "the API key is wrong" if given else "no API key was given: send Authorization: Bearer KEY"
            raise ApiError(401, message, code="invalid_api_key", headers={"www-authenticate": "Bearer"})


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode(errors="replace")).digest()
