"""``/snapshot``: what the page at ``/`` and ``pagedcore top`` show, in one bounded answer without texts and tokens.

The engine's thread draws it between two steps (``viewer.py`` says how often).
"""

from __future__ import annotations

import base64
import time
from array import array

from starlette.responses import Response

from .. import _core
from ..errors import Aborted
from .call import Call
from .errors import ApiError
from .http import encoded
from .served import Served
from .state import State

__all__ = ["snapshot"]


async def snapshot(call: Call) -> Response:
    """``?model=NAME``: of this one; without it, of the first. ``?request=ID``: its block tables are there, whatever
    else there is no room for."""
    state, query = call.state, call.request.query_params
    asked, name = query.get("request", "0"), query.get("model") or next(iter(state.by_name))
    if not (asked.isascii() and asked.isdecimal() and len(asked) <= 20 and int(asked) < 2**64):
        raise ApiError(400, f"request={asked[:64]!r} must be the number of a request", param="request")
    if name not in state.by_name:
        known = ", ".join(state.by_name)
        raise ApiError(404, f"there is no model {name[:128]!r} here: {known}", param="model", code="model_not_found")
    model, request = state.by_name[name], int(asked)
    try:
        body = await state.viewer.body((model.names[0], request), lambda: _drawn(state, model, request))
    except Aborted as error:
        raise ApiError(503, str(error), code="engine_failed") from None
    return Response(body, media_type="application/json", headers={"cache-control": "no-store"})


def _drawn(state: State, model: Served, request: int) -> bytes:
    engine = model.llm.engine
    picture = engine.snapshot(_core.SnapshotLimits(first=request))
    latency = {
        name: {"bounds": histogram.bounds, "counts": list(histogram.counts)}
        for name, histogram in model.metrics.histograms.items()
        if name.endswith("_seconds")
    }
    return encoded(
        {
            "model": model.names[0],
            "models": [each.names[0] for each in state.models],
            "version": _core.version(),
            "time": picture.time,
            "uptime": time.time() - state.created,
            "ready": not state.draining,
            "calls": state.calls,
            "stats": engine.stats(),
            "latency": latency,
            "kv": {
                "blocks": picture.num_blocks,
                "block_size": picture.block_size,
                "layer_groups": picture.num_layer_groups,
                "blocks_per_cell": picture.blocks_per_cell,
                "cells": _base64(bytes(picture.cells)),
                "swap_slots": picture.num_swap_slots,
                "slots_per_cell": picture.slots_per_cell,
                "swap_cells": _base64(bytes(picture.swap_cells)),
            },
            "requests": [each.to_dict() for each in picture.requests],
            "requests_left_out": picture.requests_left_out,
            "tables": [each.to_dict() for each in picture.tables],
            "tables_left_out": picture.tables_left_out,
            "entries": _base64(array("I", picture.entries).tobytes()),
            "steps": [each.to_dict() for each in picture.steps],
        }
    )


def _base64(data: bytes) -> str:
    """Of bytes, or of 32-bit numbers, lowest byte first."""
    return base64.b64encode(data).decode()
