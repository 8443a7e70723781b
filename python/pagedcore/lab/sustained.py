"""The rate of requests that a system sustains at a latency."""

from __future__ import annotations

import math
from collections.abc import Callable

__all__ = ["LATENCY_GOAL", "sustained_rate"]

LATENCY_GOAL = 0.2
"""Seconds per token at which sustained rates are compared."""


def sustained_rate(latency: Callable[[float], float], guess: float, *, goal: float = LATENCY_GOAL) -> float:
    """The rate at which a latency that grows with it reaches the goal: brackets of 2 %, then along the logarithms.
    0 when even a ten-thousandth of the guess is too much; infinity when ten thousand times as much is not."""
    low = high = guess
    below = above = latency(guess)
    while below >= goal:
        high, above = low, below
        low /= 1.3
        if low < guess / 1e4:
            return 0.0
        below = latency(low)
    while not above >= goal:
        low, below = high, above
        high *= 1.3
        if high > guess * 1e4:
            return math.inf
        above = latency(high)
    while high / low > 1.02:
        middle = math.sqrt(low * high)
        found = latency(middle)
        if found >= goal:
            high, above = middle, found
        else:
            low, below = middle, found
    return low * math.pow(high / low, math.log(goal / below) / math.log(above / below))
