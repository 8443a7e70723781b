"""What operators ask: is it alive, does it take calls, how much does it do, what is it."""

from __future__ import annotations

from starlette.responses import Response

from ..errors import Aborted
from .call import Call
from .errors import ApiError
from .http import Json
from .metrics import CONTENT_TYPE, Observed, exposition

__all__ = ["health", "load", "metrics", "ready", "version"]


async def health(call: Call) -> Response:
    """Whether the engines work; also while calls are refused."""
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
            "requests_running": int(sum(each["requests_running"] for each in stats)),
            "requests_waiting": int(sum(each["requests_waiting"] for each in stats)),
        }
    )


async def metrics(call: Call) -> Response:
    models = [
        Observed(model.names[0], stats, model.metrics, model.llm.engine.memory_plan.block_size)
        for model, stats in zip(call.state.models, _stats(call), strict=True)
    ]
    return Response(exposition(models, call.state.answered), media_type=CONTENT_TYPE)


def _stats(call: Call) -> list[dict[str, float]]:
    """Of each model's engine."""
    try:
        return [model.llm.stats() for model in call.state.models]
    except Aborted as error:
        raise ApiError(503, str(error), code="engine_failed") from None
