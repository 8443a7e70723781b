"""The routes."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from . import probes, rerank, score, tokens
from .anthropic import messages
from .call import Call
from .endpoint import Endpoint
from .errors import ApiError, anthropic_error, openai_error
from .http import Json
from .openai import chat, completions, embeddings, models, responses
from .openapi import openapi
from .page import PAGE
from .snapshot import snapshot
from .state import State

__all__ = ["application"]


def application(state: State) -> ASGIApp:
    post = (
        ("/v1/completions", completions.completions),
        ("/v1/chat/completions", chat.chat_completions),
        ("/v1/responses", responses.responses),
        ("/v1/embeddings", embeddings.embeddings),
        ("/v1/rerank", rerank.rerank),
        ("/rerank", rerank.rerank),
        ("/v1/score", score.score),
        ("/score", score.score),
        ("/tokenize", tokens.tokenize),
        ("/detokenize", tokens.detokenize),
    )
    theirs = (
        ("/v1/messages", messages.messages),
        ("/v1/messages/count_tokens", messages.count_tokens),
    )
    get = (
        ("/v1/models", models.models),
        ("/v1/models/{model:path}", models.model),
        ("/tokenizer_info", tokens.tokenizer_info),
        ("/version", probes.version),
        ("/load", probes.load),
        ("/metrics", probes.metrics),
        ("/openapi.json", openapi),
    )
    routes = [Route(path, Endpoint(state, work, path=path), methods=["POST"]) for path, work in post]
    routes += [
        Route(path, Endpoint(state, work, path=path, shape=anthropic_error), methods=["POST"]) for path, work in theirs
    ]
    routes += [Route(path, Endpoint(state, work, path=path, body=False), methods=["GET"]) for path, work in get]
    open_to_all: list[tuple[str, Callable[[Call], Coroutine[Any, Any, Response]]]] = []
    open_to_all += (("/health", probes.health), ("/ready", probes.ready))
    if state.settings.page:
        seen = Endpoint(state, snapshot, path="/snapshot", body=False, quiet=True)
        routes.append(Route("/snapshot", seen, methods=["GET"]))
        open_to_all += PAGE
    for path, work in open_to_all:
        routes.append(Route(path, Endpoint(state, work, path=path, body=False, open_to_all=True), methods=["GET"]))
    middleware = []
    if state.settings.cors_origins:
        middleware.append(
            Middleware(
                CORSMiddleware,
                allow_origins=list(state.settings.cors_origins),
                allow_methods=["GET", "POST"],
                allow_headers=["*"],
                expose_headers=["x-request-id", "retry-after"],
            )
        )
    app = Starlette(routes=routes, middleware=middleware, exception_handlers={HTTPException: _not_there})
    app.router.redirect_slashes = False
    return app


async def _not_there(request: Request, error: Exception) -> Response:
    """No such path, or not by this method."""
    assert isinstance(error, HTTPException)
    path, method = request.url.path[:128], request.method
    what = f"there is no {path}" if error.status_code == 404 else f"{path} does not take {method}"
    return Json(openai_error(ApiError(error.status_code, what)), error.status_code, error.headers)
