"""One run on the virtual clock."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from .. import _core
from .deployment import Deployment
from .workload import Workload

__all__ = ["Outcome", "percentiles", "simulate"]

Seconds: TypeAlias = npt.NDArray[np.float64]
_STEPS_AT_ONCE = 5_000


@dataclass(frozen=True)
class Outcome:
    """What came of a run."""

    workload: Workload
    report: _core.SimulationReport
    """Averages over the window, counters of the scheduler."""
    first_token: list[float]
    """Virtual seconds, one per request; negative where it has not come to that."""
    finish: list[float]

    @property
    def normalized_latency(self) -> float:
        """Mean over the requests that have ended of (end - arrival) / output tokens, in seconds: the paper's metric.
        NaN when none has."""
        latencies = self.normalized_latencies
        return float(latencies.mean()) if len(latencies) else float("nan")

    @property
    def normalized_latencies(self) -> Seconds:
        """(end - arrival) / output tokens of each request that has ended."""
        arrivals, _, finish, outputs = self._ended()
        latencies: Seconds = (finish - arrivals) / outputs
        return latencies

    @property
    def times_to_first_token(self) -> Seconds:
        """From the arrival of each request that has come to a first token."""
        first, arrivals = np.array(self.first_token), np.array(self.workload.arrivals)
        times: Seconds = (first - arrivals)[first >= 0]
        return times

    @property
    def times_per_output_token(self) -> Seconds:
        """(end - first token) / (output tokens - 1) of each request that has ended and has more than one."""
        _, first, finish, outputs = self._ended()
        more = outputs > 1
        return (finish - first)[more] / (outputs - 1)[more]

    @property
    def prefix_hits(self) -> float:
        """Prompt tokens taken from the prefix cache, as a share of those of the requests that have ended."""
        ended = np.array(self.finish) >= 0
        prompts = np.array([prompt for prompt, _ in self.workload.lengths])[ended].sum()
        return float(self.report.scheduler.prefix_hit_tokens / prompts) if prompts else 0.0

    def of_tenant(self, tenant: int) -> Outcome:
        """What came of a tenant's requests; the report stays that of all."""
        chosen = [number for number, one in enumerate(self.workload.tenants or ()) if one == tenant]
        first_token, finish = ([values[number] for number in chosen] for values in (self.first_token, self.finish))
        return Outcome(self.workload.of_tenant(tenant), self.report, first_token, finish)

    def latencies(self) -> dict[str, dict[str, float] | None]:
        """Mean and percentiles in seconds; None where there is nothing to count."""
        return {
            "normalized_latency": percentiles(self.normalized_latencies),
            "time_to_first_token": percentiles(self.times_to_first_token),
            "time_per_output_token": percentiles(self.times_per_output_token),
        }

    def to_dict(self) -> dict[str, Any]:
        """What a run is judged by. Seconds; shares are of all token slots, over the window."""
        report = self.report
        tenants = sorted(set(self.workload.tenants or ()))
        return {
            "requests": len(self.workload),
            "finished": report.finished,
            "seconds": report.now,
            "requests_per_second": report.finished / report.now if report.now else 0.0,
            "output_tokens_per_second": report.tokens,
            **self.latencies(),
            "batched_requests": report.requests,
            "kv_allocated": report.allocated,
            "kv_token_states": report.token_states,
            "sharing_saves": 1 - 1 / report.sharing if report.sharing else 0.0,
            "prefix_hits": self.prefix_hits,
            "preemptions_recompute": report.scheduler.preemptions_recompute,
            "preemptions_swap": report.scheduler.preemptions_swap,
            "tokens_recomputed": report.scheduler.tokens_recomputed,
            "steps": report.steps,
            "tenants": [{"tenant": tenant, **self.of_tenant(tenant).latencies()} for tenant in tenants],
        }

    def _ended(self) -> tuple[Seconds, Seconds, Seconds, Seconds]:
        """Arrival, first token, end and output tokens of each request that has ended."""
        workload = self.workload
        values = np.array([workload.arrivals, self.first_token, self.finish, workload.outputs])
        arrivals, first, finish, outputs = values[:, values[2] >= 0]
        return arrivals, first, finish, outputs


def percentiles(values: Seconds) -> dict[str, float] | None:
    """Mean and percentiles; None of nothing."""
    if not len(values):
        return None
    p50, p90, p99 = np.percentile(values, (50, 90, 99)).tolist()
    return {"mean": float(values.mean()), "p50": p50, "p90": p90, "p99": p99, "max": float(values.max())}


def simulate(
    workload: Workload,
    deployment: Deployment,
    *,
    window: tuple[float, float] = (0.0, 1e300),
    stop: float = 1e300,
    progress: Callable[[int, int], None] | None = None,
) -> Outcome:
    """Serves a workload. Raises InvalidArgument for a request that could never be served, and says which.

    Args:
        window: Virtual seconds over which the report averages.
        stop: Ends at this time, whatever is still to be served. Else all requests are served.
        progress: Called now and then with the number of requests that have ended, and of all.
    """
    config = deployment.config()
    config.window_begin, config.window_end = window
    config.stop = stop
    simulation = _core.Simulation(
        config,
        workload.arrivals,
        workload.prompts,
        workload.outputs,
        workload.num_samples,
        workload.beam_width,
        workload.max_tokens or 0,
        workload.priorities or [],
        workload.tenants or [],
    )
    going = True
    while going:
        going = simulation.run(_STEPS_AT_ONCE)
        if progress is not None:
            progress(simulation.report().finished, len(workload))
    return Outcome(workload, simulation.report(), simulation.first_token, simulation.finish)
