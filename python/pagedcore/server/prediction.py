"""When a caller who was turned away should come again: the planner's model of a batch, with what was measured in place
of a device's costs.

Of n requests that run, n / (E[steps] step_seconds) end a second (Little; docs/planning.md, 3), and each that ends lets
one that waits begin, which makes room for one more to wait. Callers who were told a time are ahead of those who come
later: each is sent to an end of its own.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Mapping

from ..routing.load import ends_per_second

__all__ = ["Prediction"]

_LATELY = 60.0  # seconds that the length of a step is an average over
_MOST = 60  # seconds that anybody is told
_KEPT = 256


class Prediction:
    """Of the event loop."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, dict[str, float]]] = deque(maxlen=_KEPT)
        """When the steps were counted, how many there were, and the seconds that all had taken."""
        self._promised: deque[float] = deque(maxlen=4096)
        """Moments at which those who were turned away come again."""

    def retry_after(self, stats: Mapping[str, float], now: float | None = None) -> int:
        """Whole seconds until there is room for the caller, 1 or more, who is counted on to come then. ``stats``: the
        engine's, now."""
        moment = time.monotonic() if now is None else now
        while self._promised and self._promised[0] <= moment:
            self._promised.popleft()
        ends = self._ends_per_second(stats, moment)
        seconds = (len(self._promised) + 1) / ends if ends > 0 else 1.0
        told = min(max(math.ceil(seconds), 1), _MOST)
        self._promised.append(max(moment + told, self._promised[-1] if self._promised else 0.0))
        return told

    def _ends_per_second(self, stats: Mapping[str, float], moment: float) -> float:
        """0: nothing is known yet."""
        while len(self._seen) > 1 and self._seen[0][0] < moment - _LATELY:
            self._seen.popleft()
        before = self._seen[0][1] if self._seen else None
        self._seen.append((moment, {name: stats[name] for name in ("steps", "step_seconds_total")}))
        return ends_per_second(stats, before)
