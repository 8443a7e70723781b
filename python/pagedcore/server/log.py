"""A line of JSON for each call. It never holds what was asked or answered, nor a key."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from .tally import Tally

__all__ = ["log", "log_call"]


def log(event: str, values: Mapping[str, Any]) -> None:
    now = time.time()
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)) + f".{int(now % 1 * 1000):03}Z"
    line = json.dumps({"time": stamp, "event": event, **values})
    with suppress(OSError, ValueError):  # nobody reads stderr any more: calls are served all the same
        print(line + "\n", end="", file=sys.stderr, flush=True)  # as one: nothing comes between, all or none is dropped


def log_call(request_id: str, method: str, path: str, status: int, tally: Tally, seconds: float) -> None:
    """``status`` 499: the client has left."""
    values: dict[str, Any] = {"request_id": request_id, "method": method, "path": path, "status": status}
    values["seconds"] = round(seconds, 6)
    if tally.model is not None:
        values["model"] = tally.model
    if tally.prompt_tokens:
        first = tally.seconds_to(tally.first_token)
        values |= {
            "prompt_tokens": tally.prompt_tokens,
            "cached_tokens": tally.cached_tokens,
            "completion_tokens": tally.completion_tokens,
            "finish_reasons": tally.finish_reasons[:8],
            "first_token_seconds": None if first is None else round(first, 6),
        }
    log("call", values)
