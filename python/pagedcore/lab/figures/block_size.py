"""Figures of the block size: latency (18b), and recomputation against swapping (19b)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Literal

from ... import _core
from ..deployment import Deployment
from ..lengths import paper_data
from ..run import simulate
from ..workload import Workload, poisson_workload
from .figure import Axes, Figure, Value
from .systems import SWAP_SLOTS, Inputs, run_all

__all__ = ["figure_18b", "figure_19b"]

_BLOCK_TOKENS = 8
_KERNEL = (
    "FITTED to ShareGPT in figure 18 (b): a block costs the attention kernel, besides its tokens, "
    f"as much as {_BLOCK_TOKENS} tokens"
)
_AXES = Axes("curves", "block size", "normalized latency (s/token)", x_scale="log2", y_scale="log")
_SHAREGPT_RATE, _ALPACA_RATE, _SECONDS = 2.01, 30.1, 600.0


def _with_blocks(block_size: int, preemption: Literal["recompute", "swap"]) -> Deployment:
    """OPT-13B with blocks of this size. Its constants were fitted with blocks of 16."""
    deployment = Deployment.of_paper("opt-13b")
    cost = deployment.cost.to_dict()
    cost["context_token"] *= (1 + _BLOCK_TOKENS / block_size) / (1 + _BLOCK_TOKENS / 16)
    swap_slots = SWAP_SLOTS if preemption == "swap" else 0
    return replace(
        deployment,
        block_size=block_size,
        cost=_core.CostModel(**cost),
        max_sequences=2048,
        preemption=preemption,
        swap_slots=swap_slots,
    )


def _series(
    runs: Iterable[tuple[str, str, Workload, Literal["recompute", "swap"]]], progress: Callable[[int, int], None]
) -> list[Value]:
    """Values by block size, for each (series, figure of the paper, workload, preemption)."""
    values = []
    for series, figure, workload, preemption in runs:
        published = paper_data()[figure]
        sizes = published["block_size"]
        jobs = [
            lambda size=size, workload=workload, preemption=preemption: (
                simulate(workload, _with_blocks(size, preemption)).normalized_latency
            )
            for size in sizes
        ]
        for size, ours, paper in zip(sizes, run_all(jobs, progress), published[series], strict=True):
            values.append(Value(series, str(size), ours, paper, size))
    return values


def figure_18b(name: str, inputs: Inputs) -> Figure:
    seconds = inputs.seconds or _SECONDS
    sharegpt = poisson_workload(inputs.dataset("sharegpt"), _SHAREGPT_RATE, seconds)
    alpaca = poisson_workload(inputs.dataset("alpaca"), _ALPACA_RATE, seconds)
    values = _series(
        [
            ("ShareGPT", "fig18b_norm_latency", sharegpt, "recompute"),
            ("Alpaca", "fig18b_norm_latency", alpaca, "recompute"),
        ],
        inputs.progress,
    )
    notes = [inputs.source("sharegpt"), inputs.source("alpaca"), _KERNEL]
    title = f"block size, OPT-13B, ShareGPT at {_SHAREGPT_RATE} and Alpaca at {_ALPACA_RATE} requests/s"
    return Figure(name, title, "s/token", values, _AXES, Deployment.of_paper("opt-13b").cost.to_dict(), notes)


def figure_19b(name: str, inputs: Inputs) -> Figure:
    sharegpt = poisson_workload(inputs.dataset("sharegpt"), _SHAREGPT_RATE, inputs.seconds or _SECONDS)
    values = _series(
        [
            ("recompute", "fig19b_norm_latency", sharegpt, "recompute"),
            ("swap", "fig19b_norm_latency", sharegpt, "swap"),
        ],
        inputs.progress,
    )
    deployment = Deployment.of_paper("opt-13b")
    notes = [
        inputs.source("sharegpt"),
        _KERNEL,
        f"swapping a block costs {deployment.swap_out_overhead:.3g} s out and {deployment.swap_in_overhead:.3g} s in "
        "besides its tokens (figure 19 (a))",
        "At 128 and 256 recomputation is cheaper than swapping here, other than in the paper: an admission leaves room "
        "for what running requests compute next, so that fewer are preempted (at 256 about 1 in 7 of those that the "
        "paper's rule preempts).",
    ]
    title = f"recomputation and swapping, OPT-13B, ShareGPT at {_SHAREGPT_RATE} requests/s"
    return Figure(name, title, "s/token", values, _AXES, deployment.cost.to_dict(), notes)
