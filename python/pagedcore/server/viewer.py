"""How often the engine is looked at: a thousand viewers cost it what one does."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

__all__ = ["Viewer"]

_FRESH = 0.25  # seconds
_MOST = 4  # models and requests that viewers look into at the same time, and whose answers are kept


class Viewer:
    """Of the event loop. One picture is drawn at a time, and whoever asks for the same within a quarter of a second
    gets the same."""

    def __init__(self) -> None:
        self._one = asyncio.Lock()
        self._kept: dict[tuple[str, int], tuple[float, bytes]] = {}

    async def body(self, shown: tuple[str, int], draw: Callable[[], bytes]) -> bytes:
        """``shown``: the model, and the request that is looked into. ``draw``: called in a thread."""
        async with self._one:
            while True:
                now = time.monotonic()
                self._kept = {key: kept for key, kept in self._kept.items() if now - kept[0] < _FRESH}
                if shown in self._kept:
                    return self._kept[shown][1]
                if len(self._kept) < _MOST:
                    break
                await asyncio.sleep(_FRESH / _MOST)
            body = await asyncio.to_thread(draw)
            self._kept[shown] = time.monotonic(), body
            return body
