"""/v1/models."""

from __future__ import annotations

from typing import Any

from starlette.responses import Response

from ..call import Call
from ..errors import ApiError
from ..http import Json

__all__ = ["model", "models"]


async def models(call: Call) -> Response:
    return Json({"object": "list", "data": [_card(call, name) for name in call.state.by_name]})


async def model(call: Call) -> Response:
    name = call.request.path_params["model"]
    if name not in call.state.by_name:
        known = ", ".join(call.state.by_name)
        raise ApiError(404, f"there is no model {name[:128]!r} here: {known}", param="model", code="model_not_found")
    return Json(_card(call, name))


def _card(call: Call, name: str) -> dict[str, Any]:
    model = call.state.by_name[name]
    return {
        "id": name,
        "object": "model",
        "created": call.state.created,
        "owned_by": "pagedcore",
        "root": model.names[0],
        "parent": None,
        "max_model_len": model.llm.max_context,
    }
