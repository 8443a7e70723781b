"""A plan of a service: what it says, and how people read it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any

from ..deployment import Deployment
from .confirm import Simulated
from .stationary import Steady

__all__ = ["Option", "ServicePlan"]

_BUSY = 0.8  # of the saturated rate: below that it is not the limit of the batch that bounds the rate


@dataclass(frozen=True)
class Option:
    """A changed deployment, and what it buys."""

    name: str
    rate: float
    """Requests a second that it sustains, for as many devices as before."""
    gain: float
    """Share by which the rate grows: 0.1 is a tenth more. Infinity where there was none before."""


@dataclass(frozen=True, kw_only=True)
class ServicePlan:
    """What one replica of a deployment sustains, and what follows from it. Prints as a table."""

    deployment: Deployment
    requests: int
    """How many lengths it is about."""
    mean_prompt: float
    mean_output: float
    left_out: int
    """Requests that are too long for the model or the cache, and are not planned for."""
    latency: float
    """Goal: mean normalized latency, seconds per token."""
    first_token: float | None
    """Goal: seconds within which 99 of 100 requests have their first token."""
    rate: float
    """Requests a second that one replica sustains within the goals; 0: none."""
    saturated_rate: float
    """That it could not exceed whatever the latency."""
    batch_limit: float
    """Requests that run at once, at most."""
    limited_by: str
    """What bounds these: "KV memory", "max_sequences" or "max_batched_tokens"."""
    steady: Steady
    """At that rate; where it is 0, of a request that comes alone."""
    step: dict[str, float]
    """Seconds of an average step there, by what takes them."""
    replicas: int
    target_rate: float | None
    """Requests a second that all replicas together have to serve."""
    at_target: Steady | None
    """One replica, when all share the target evenly; None when there is no target, or nothing meets the goals."""
    options: list[Option]
    """Best first."""
    simulated: Simulated | None
    notes: list[str]

    @property
    def total_rate(self) -> float:
        """Requests a second of all replicas."""
        return self.rate * self.replicas

    def to_dict(self) -> dict[str, Any]:
        """All of it; a gain on nothing is None."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        deployment = {
            "name": self.deployment.name,
            "slots": self.deployment.slots,
            "block_size": self.deployment.block_size,
            "allocation": self.deployment.allocation,
            "cost": self.deployment.cost.to_dict(),
        }
        options = [
            {"name": option.name, "rate": option.rate, "gain": option.gain if math.isfinite(option.gain) else None}
            for option in self.options
        ]
        return values | {
            "deployment": deployment,
            "total_rate": self.total_rate,
            "steady": self.steady.to_dict(),
            "at_target": None if self.at_target is None else self.at_target.to_dict(),
            "options": options,
            "simulated": None if self.simulated is None else self.simulated.to_dict(),
        }

    def __str__(self) -> str:
        return "\n".join(_lines(self))


def _lines(plan: ServicePlan) -> Iterator[str]:
    deployment, steady = plan.deployment, plan.steady
    yield (
        f"{deployment.name}: {deployment.slots:,} tokens of KV in blocks of {deployment.block_size}, "
        f"allocation {deployment.allocation}"
    )
    left = f"; {plan.left_out:,} more are too long" if plan.left_out else ""
    yield (
        f"{plan.requests:,} requests of {plan.mean_prompt:,.0f} prompt and {plan.mean_output:,.0f} output tokens on "
        f"average{left}"
    )
    first = f", 99 of 100 first tokens within {plan.first_token:g} s" if plan.first_token is not None else ""
    yield f"goal: {plan.latency:g} s per token on average{first}"
    yield ""
    parts = ", ".join(f"{name} {1000 * seconds:.3g}" for name, seconds in plan.step.items() if seconds > 5e-6)
    step = f"{1000 * sum(plan.step.values()):.3g} ms: {parts}"
    if plan.rate == 0:
        yield _row("sustained", "0 requests/s: no rate meets the goal")
        yield _row(
            "alone", f"{steady.normalized_latency:.3g} s per token, the first after {steady.first_token_p99:.3g} s"
        )
        yield _row("step", step)
    else:
        each = f" by {plan.replicas:,} replicas, {plan.rate:.3g} each" if plan.replicas > 1 else ""
        total = plan.total_rate
        yield _row("sustained", f"{total:.3g} requests/s{each}; {total * plan.mean_output:,.0f} output tokens/s")
        bound = (
            f"{plan.limited_by}, {plan.batch_limit:.3g} requests at once" if steady.utilization > _BUSY else "latency"
        )
        yield _row("bounded by", f"{bound}; {plan.saturated_rate:.3g} requests/s would saturate a replica")
        yield _row("batch", f"{steady.batch:.3g} requests")
        yield _row("step", step)
        yield _row("KV cache", f"{steady.kv_allocated:.1%} allocated, {steady.kv_tokens:.1%} with a token")
        yield _row(
            "waiting",
            f"{steady.wait_seconds:.2g} s on average; 99 of 100 first tokens within {steady.first_token_p99:.2g} s",
        )
        yield _row("preemptions", f"{steady.preemptions:.2g} per request")
    if plan.target_rate is not None:
        if plan.at_target is None:
            yield _row("target", f"{plan.target_rate:g} requests/s: no number of replicas meets the goal")
        else:
            yield _row(
                "target",
                f"{plan.target_rate:g} requests/s take {plan.replicas:,} replicas: {plan.at_target.rate:.3g} each, "
                f"{plan.at_target.normalized_latency:.2g} s per token, {plan.at_target.utilization:.0%} busy",
            )
    if plan.simulated is not None:
        found = plan.simulated
        yield ""
        yield _row(
            "simulated",
            f"{found.rate:.3g} requests/s a replica ({plan.rate / found.rate - 1:+.0%} is the plan's), in {found.runs} "
            f"runs of {found.seconds:,.0f} s: batch {found.batch:.3g}, KV {found.kv_allocated:.1%} allocated and "
            f"{found.kv_tokens:.1%} with a token, {found.preemptions:.2g} preemptions per request, 99 of 100 first "
            f"tokens within {found.first_token_p99:.2g} s",
        )
    if plan.options:
        yield ""
        width = max(len(option.name) for option in plan.options)
        yield f"{'what a change buys':<{width}}  requests/s"
        for option in plan.options:
            gain = f"{option.gain:+8.0%}" if math.isfinite(option.gain) else ""
            yield f"{option.name:<{width}}  {option.rate:>10.3g}{gain}"
    yield from plan.notes


def _row(name: str, text: str) -> str:
    return f"{name:<14}{text}"
