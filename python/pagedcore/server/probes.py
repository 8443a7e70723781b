"""What operators ask: is it alive, does it take calls, how much does it do, what is it."""

from __future__ import annotations

from starlette.responses import Response

from ..errors import Aborted
from .call import Call
from .errors import ApiError
from .http import Json
from .metrics import CONTENT_TYPE

__all__ = ["health", "load", "metrics", "ready", "version"]


async def health(call: Call) -> Response:
    """Whether the engine works; also while calls are refused."""
    _stats(call)
    return Json({"status": "ok"})


async def ready(call: Call) -> Response:
    """Whether calls are taken."""
    if call.state.draining:
        raise ApiError(503, "the server is shutting down", code="shutting_down", retry_after=5)
    _stats(call)
    return Json({"status": "ready"})


async def version(call: Call) -> Response:
    return Json({"version": call.state.fingerprint.removeprefix("pagedcore-")})


async def load(call: Call) -> Response:
    """``server_load``: calls under way, as vLLM has it."""
    stats = _stats(call)
    return Json(
        {
            "server_load": call.state.calls,
            "requests_running": int(stats["requests_running"]),
            "requests_waiting": int(stats["requests_waiting"]),
        }
    )


async def metrics(call: Call) -> Response:
    state = call.state
    text = state.metrics.text(_stats(call), state.names[0], state.llm.engine.memory_plan.block_size)
    return Response(text, media_type=CONTENT_TYPE)


def _stats(call: Call) -> dict[str, float]:
    try:
        return call.state.llm.stats()
    except Aborted as error:
        raise ApiError(503, str(error), code="engine_failed") from None
