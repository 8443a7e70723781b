"""What one replica can do, and a fleet's workload in proportion to it."""

from __future__ import annotations

from dataclasses import replace

from ...checks import check_int
from ..deployment import Deployment
from ..run import simulate
from ..workload import Workload

__all__ = ["capacity", "side_by_side"]


def capacity(workload: Workload, deployment: Deployment, *, sample: int = 256) -> float:
    """Requests a second that one replica completes when it always has enough of them: so many, taken evenly from the
    whole workload, are all there at the beginning. That is what it gets of a fleet that takes turns, so few of them
    share more than what all share."""
    check_int("sample", sample, 1, 1_000_000)
    count = min(sample, len(workload))
    chosen = [number * len(workload) // count for number in range(count)]
    requests = Workload([0.0] * count, [workload.prompts[n] for n in chosen], [workload.outputs[n] for n in chosen])
    outcome = simulate(requests, deployment)
    return count / outcome.report.now


def side_by_side(workload: Workload, copies: int) -> Workload:
    """The same requests for so many services, each with prompts of its own."""
    check_int("copies", copies, 1, 10_000)
    span = 1 + max((content for prompt in workload.prompts for content, _ in prompt), default=0)
    return replace(
        workload,
        arrivals=[arrival for arrival in workload.arrivals for _ in range(copies)],
        prompts=[
            [(content + copy * span, tokens) for content, tokens in prompt]
            for prompt in workload.prompts
            for copy in range(copies)
        ],
        outputs=[output for output in workload.outputs for _ in range(copies)],
    )
