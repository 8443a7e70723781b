"""Requests of one call, run to their ends."""

from __future__ import annotations

from collections.abc import Sequence

from .dispatch import Dispatcher
from .outputs import RequestOutput
from .progress import Progress
from .request import Request

__all__ = ["run_all"]


def run_all(dispatcher: Dispatcher, requests: Sequence[Request], progress: bool | None) -> list[RequestOutput]:
    """Their outputs, in order. The bar counts tokens; while nobody looks at one, the engine reports whole samples."""
    inbox = dispatcher.inbox()
    running: dict[int, Request] = {}
    with Progress(sum(request.most_tokens for request in requests), "tokens", enabled=progress) as bar:
        try:
            numbers = dispatcher.submit_all(requests, inbox, every_token=bar.enabled)
            for request, number in zip(requests, numbers, strict=True):
                request.started(number)
                running[number] = request
            while running:
                news = dispatcher.next(inbox)
                taker = running.get(news.request)
                if taker is None:
                    continue  # ended by a stop string before the engine knew
                delta = taker.take(news)
                if taker.finished:
                    del running[news.request]
                    if not news.last:
                        dispatcher.abort([news.request])
                bar.add(len(delta.token_ids) if delta else 0, less=taker.spared_tokens if taker.finished else 0)
        finally:
            if running:  # Ctrl-C, a closed engine, a refused request
                dispatcher.abort_and_drain(list(running), inbox)
    return [request.output() for request in requests]
