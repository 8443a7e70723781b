"""How long requests wait before they run."""

from __future__ import annotations

import math
from dataclasses import dataclass

from .demand import Array

__all__ = ["Waits", "random_waits"]


@dataclass(frozen=True)
class Waits:
    mean: float
    """Seconds."""
    per_token: float
    """Mean over requests of the wait by output tokens, in seconds."""
    p99: float
    share: float
    """Share of the requests that wait at all."""

    def or_longer(self, other: Waits) -> Waits:
        return Waits(
            max(self.mean, other.mean),
            max(self.per_token, other.per_token),
            max(self.p99, other.p99),
            max(self.share, other.share),
        )


def random_waits(queued: float, share: float, rate: float, work: Array, outputs: Array) -> Waits:
    """Waits of requests that arrive at random: `queued` of them wait on average where work is exponentially spread, and
    `share` of those who arrive wait at all (Allen and Cunneen's approximation of G/G/n). The tail is taken to be
    exponential."""
    mean = queued / rate * (1 + float(work.var() / work.mean() ** 2)) / 2
    p99 = mean / share * math.log(100 * share) if share > 0.01 else 0.0
    return Waits(mean, mean * float((1 / outputs).mean()), p99, share)
