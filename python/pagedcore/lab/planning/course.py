"""A trace followed over its time: busy hours, and requests that are not the same at all hours."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from .demand import Array, Demand
from .waiting import Waits

__all__ = ["Course", "follow"]

_WINDOWS = 500  # that a trace is cut into


@dataclass(frozen=True)
class Course:
    """What a trace makes of a deployment."""

    waits: Waits
    batch: float
    """Requests that run, by time."""
    step_seconds: float
    """Seconds of the steps of an average request."""


def follow(arrivals: Array, demand: Demand, limit: str, most: float, step_seconds: Callable[[float], float]) -> Course:
    """The number of requests in the system over the time of a trace, as a fluid: it comes with the arrivals and ends as
    the batch of that moment does. Those beyond what bounds the batch wait.

    A moment's batch is made of those who came lately: how many steps they take, what of `limit` they need and how much
    longer than average they make a step is averaged over them, forgotten as they end.

    Args:
        arrivals: Seconds, of all requests of the demand.
        most: Average requests that the limit lets run.
        step_seconds: Of a batch of so many average requests.
    """
    start, span = float(arrivals[0]), float(arrivals[-1] - arrivals[0])
    window = max(span / _WINDOWS, 1e-9)
    count = int(span / window) + 1
    place = np.minimum(((arrivals - start) / window).astype(int), count - 1)
    per_window = [
        np.bincount(place, values, count).tolist()
        for values in (np.ones(len(arrivals)), demand.work["max_sequences"], demand.work[limit], demand.burden)
    ]
    mean_work = float(demand.work[limit].mean()) / demand.steps  # of one running request in one step
    mean_burden = float(demand.burden.mean()) / demand.steps
    requests, steps, work, burden = 1.0, demand.steps, mean_work * demand.steps, mean_burden * demand.steps
    level = 0.0
    running, queued, rates, seconds = np.empty((4, count))
    for number, (come, its_steps, its_work, its_burden) in enumerate(zip(*per_window, strict=True)):
        bound = most * mean_work / (work / steps)
        batch = max(1e-6, min(level, bound))
        step = step_seconds(batch) + batch * (burden / steps - mean_burden)
        rate = batch / (steps / requests * step)
        stay = max(level, batch) / rate
        kept = math.exp(-window / stay)
        level = come / window * stay * (1 - kept) + level * kept
        if come > 0:  # while nobody comes, what is average stays
            requests = requests * kept + come
            steps = steps * kept + its_steps
            work = work * kept + its_work
            burden = burden * kept + its_burden
        running[number], rates[number], seconds[number] = min(level, bound), rate, step
        queued[number] = level - running[number]
    waits = (queued / rates)[place]
    return Course(
        Waits(
            float(waits.mean()),
            float((waits / demand.outputs).mean()),
            float(np.quantile(waits, 0.99)),
            float((waits > 0).mean()),
        ),
        float(running.mean()),
        float(np.average(seconds[place], weights=1 / demand.outputs * demand.work["max_sequences"])),
    )
