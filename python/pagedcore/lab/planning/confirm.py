"""A plan's rate, found again by simulation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ...checks import check_real
from ..deployment import Deployment
from ..run import Outcome, simulate
from ..sustained import sustained_rate
from .arriving import Arriving
from .stationary import Steady

__all__ = ["Simulated", "confirm"]

_HOUR = 3600.0
_REQUESTS = 20_000  # that a trace has, at most
_STAYS = 20.0  # of an average request, that a trace lasts at least


@dataclass(frozen=True, kw_only=True)
class Simulated:
    """The rate that a deployment sustains on the virtual clock, and what was seen there."""

    rate: float
    """Requests a second."""
    seconds: float
    """Length of the trace."""
    runs: int
    batch: float
    normalized_latency: float
    first_token_p99: float
    kv_allocated: float
    kv_tokens: float
    preemptions: float
    """Times that a request was preempted, on average."""

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def confirm(
    arriving: Arriving,
    deployment: Deployment,
    guess: Steady,
    *,
    latency: float,
    first_token: float | None = None,
    seconds: float | None = None,
    progress: Callable[[float], None] | None = None,
) -> Simulated:
    """Searches the rate that meets the goals, from that of a plan on. `seconds`: that requests arrive; None: a trace as
    long as it is, else an hour, or less when that is more than 20,000 requests."""
    if seconds is None and arriving.arrivals is not None:
        seconds = 2 * len(arriving.lengths) / guess.rate  # all of the trace, at half the rate too
    elif seconds is None:
        stay = guess.batch / guess.rate + guess.wait_seconds
        seconds = min(_HOUR, max(_REQUESTS / guess.rate, _STAYS * stay))
    check_real("seconds", seconds, 0, 1e7, above_low=True)
    runs = 0

    def run(rate: float) -> Outcome:
        nonlocal runs

        def told(done: int, of: int) -> None:
            if progress is not None:
                progress(runs + done / max(of, 1))

        outcome = simulate(arriving.workload(rate, seconds), deployment, progress=told)
        runs += 1
        return outcome

    def worst(rate: float) -> float:
        """By the goal for latency."""
        outcome = run(rate)
        if first_token is None:
            return outcome.normalized_latency
        return max(outcome.normalized_latency, latency * _p99(outcome) / first_token)

    rate = sustained_rate(worst, guess.rate, goal=latency)
    outcome = run(rate)
    report = outcome.report
    preempted = report.scheduler.preemptions_recompute + report.scheduler.preemptions_swap
    return Simulated(
        rate=rate,
        seconds=seconds,
        runs=runs,
        batch=report.requests,
        normalized_latency=outcome.normalized_latency,
        first_token_p99=_p99(outcome),
        kv_allocated=report.allocated,
        kv_tokens=report.token_states,
        preemptions=preempted / len(outcome.workload),
    )


def _p99(outcome: Outcome) -> float:
    return float(np.percentile(outcome.times_to_first_token, 99))
