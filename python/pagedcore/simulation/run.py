"""One run on the virtual clock."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from .. import _core
from .deployment import Deployment
from .workload import Workload

__all__ = ["Outcome", "simulate"]

_STEPS_AT_ONCE = 20_000


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
        finish = np.array(self.finish)
        per_token = (finish - np.array(self.workload.arrivals)) / np.array(self.workload.outputs)
        ended = finish >= 0
        return float(per_token[ended].mean()) if ended.any() else float("nan")


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
    while simulation.run(_STEPS_AT_ONCE):
        if progress is not None:
            progress(simulation.report().finished, len(workload))
    return Outcome(workload, simulation.report(), simulation.first_token, simulation.finish)
