"""How a deployment serves requests that come for ever at one rate: without simulating, in milliseconds.

The model (docs/planning.md derives it):

1. A batch of n running requests makes steps of step_seconds(n), by the cost model. Prompts join it as a Poisson
   stream; their arithmetic hides behind the reading of weights as far as it can.
2. Memory bounds n. A running request is met in proportion to how long it runs, so on average it holds
   E[slots x steps] / E[steps]: where prompts p and outputs o are independent, E[p] + E[o^2] / 2 E[o] (length bias).
3. n / (E[steps] step_seconds(n)) requests end a second (Little). With requests that come at random this is a
   birth-death process; beyond the bound they wait. How long is that process's wait times (1 + v) / 2, as Allen and
   Cunneen have it for G/G/n (Probability, Statistics and Queueing Theory, 1978), where v is the squared coefficient of
   variation of a request's work: where memory is the bound, its slots times its steps.
4. A trace has busy hours: the same rates are followed over its time, as a fluid that comes with the arrivals.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np

from ..deployment import Deployment
from .course import Course, follow
from .demand import Array, Demand, Lengths
from .waiting import Waits, random_waits

__all__ = ["StationaryBatch", "Steady"]

_WATERMARK = 0.01  # share of the blocks that admission leaves free: the scheduler's default
_POINTS = 24  # at which the time of a step is computed; it is interpolated between


@dataclass(frozen=True, kw_only=True)
class Steady:
    """Service at one rate."""

    rate: float
    """Requests a second that come, and end."""
    utilization: float
    """Share of the rate that the deployment cannot exceed."""
    batch: float
    """Requests that run, on average."""
    step_seconds: float
    normalized_latency: float
    """Seconds from arrival to end by output tokens, mean over requests."""
    wait_seconds: float
    """Mean, before a request runs."""
    first_token_p99: float
    """Seconds from arrival to the first token that 99 of 100 requests do not exceed; an estimate."""
    output_tokens: float
    """A second."""
    kv_allocated: float
    """Share of all slots in blocks that requests hold, or that are reserved for them."""
    kv_tokens: float
    """Share of all slots that hold a token."""
    preemptions: float
    """Times that a request is preempted, on average; an estimate."""

    def to_dict(self) -> dict[str, float]:
        return asdict(self)


class StationaryBatch:
    """Requests of these (prompt, output) lengths on a deployment.

    `arrivals`: seconds at which each arrives, to be stretched to the rate asked for; None: at random (Poisson).
    `cached`: tokens of each prompt that the prefix cache has.
    Raises InvalidArgument for requests that could never be served.
    """

    def __init__(
        self,
        lengths: Lengths,
        deployment: Deployment,
        *,
        arrivals: Array | None = None,
        cached: Array | None = None,
    ) -> None:
        self.deployment = deployment
        self.demand = Demand(lengths, deployment, cached, all_of_them=arrivals is not None)
        self._arrivals = arrivals
        limits = {
            "KV memory": self._memory_limit(),
            "max_sequences": float(deployment.max_sequences),
            "max_batched_tokens": deployment.max_batched_tokens * self.demand.steps / self.demand.rows,
        }
        self.limit = min(limits, key=lambda name: limits[name])
        """What bounds the batch."""
        self.most = max(1.0, limits[self.limit])
        """Requests that run at once, at most."""
        self.preemptions = self._preemptions() if self.limit == "KV memory" else 0.0
        """Times that a request is preempted while the cache is full."""
        sizes = np.unique(np.concatenate([[0.0, 1.0], np.geomspace(1.0, self.most, _POINTS)]))
        self._times: tuple[Array, Array] = sizes, np.array([self.step_seconds(n) for n in sizes.tolist()])

    # Memory

    def _memory_limit(self) -> float:
        d, block = self.demand, self.deployment.block_size
        slots = self.deployment.slots // block * block
        if d.is_uniform:
            return float(slots // d.held)
        if self.deployment.allocation != "paged":
            # What is free when the head of the queue does not fit: on average half a chunk as those who wait see it,
            # and about as much lies in pieces that are too small.
            return max(1.0, (slots - d.first_biased) / d.held)
        # Beside the watermark half of what the head begins with, and half of what the batch takes in a step.
        watermark = 0.0 if d.growth == 0 else _WATERMARK * slots
        return max(1.0, (slots - watermark - d.first_biased / 2) / (d.held + 0.5))

    def _preemptions(self) -> float:
        """How often a request is preempted while the cache is full.

        Below what admission leaves free, b slots, the running ones grow: by `growth` slots a request until one ends,
        which frees all it has, about exponentially spread. The level is then a process that falls steadily and
        jumps up, kept within [0, b]: by admission above, by preemption below. The share of time that it spends at the
        bottom is the share of growth that preemption must supply; each gives what a young request holds.
        """
        d = self.demand
        if self.deployment.allocation != "paged" or d.growth == 0:
            return 0.0
        room = _WATERMARK * self.deployment.slots + self.most + d.first / 2
        decay = d.first / (d.growth * (d.first + d.growth))
        share = 1 / (1 + math.expm1(min(700.0, decay * room)) / (decay * d.growth))
        return share * d.growth / d.first

    # Time

    def step_seconds(self, n: float, *, full: bool = False) -> float:
        """Seconds of a step of n running requests. `full`: with the preemptions of a full cache."""
        return sum(self.step_parts(n, full=full).values())

    def step_parts(self, n: float, *, full: bool = False) -> dict[str, float]:
        """What a step consists of, in seconds."""
        cost, d = self.deployment.cost, self.demand
        again = self.preemptions if full else 0.0
        swap = d.first * (cost.swap_out_block + cost.swap_in_block)
        swaps = self.deployment.swap_slots > 0 and (
            self.deployment.preemption == "swap" or (self.deployment.preemption == "auto" and swap < d.chunk_seconds)
        )
        chunks = n / d.steps * (d.chunks + (0.0 if swaps else again))
        decoding = n * (d.decoding * cost.row + d.context * cost.pair)
        arithmetic = decoding + chunks * d.chunk_seconds
        weights = d.hidden(chunks, cost.weights - decoding)  # beyond the arithmetic
        return {
            "overhead": cost.step,
            "weights": weights,
            "arithmetic": arithmetic,
            "KV reads": n * d.context * cost.context_token,
            "sampling": n * d.sampled * cost.sample,
            "swaps": n / d.steps * again * swap if swaps else 0.0,
        }

    def _step(self, n: Any) -> Any:
        return np.interp(n, *self._times)

    @cached_property
    def saturated_rate(self) -> float:
        """Requests a second that it cannot exceed."""
        return self.most / (self.demand.steps * self.step_seconds(self.most, full=True))

    @cached_property
    def lowest(self) -> Steady:
        """Service of a request that comes alone."""
        return self.at(self.saturated_rate / 1e6)

    def at(self, rate: float) -> Steady:
        """Service at a rate below the saturated one. Beyond, it would have no steady state: waits are infinite."""
        d = self.demand
        load = rate / self.saturated_rate
        if load >= 1:
            batch, step = self.most, self.step_seconds(self.most, full=True)
            waits = Waits(math.inf, math.inf, math.inf, 1.0)
        else:
            batch, queued, share = self._birth_and_death(rate)
            step = batch / (rate * d.steps)
            work = d.work[self.limit]
            waits = random_waits(queued, share, rate, work, d.outputs)
            if self._arrivals is not None:
                course = self._follow(self._arrivals, rate)
                batch, step, waits = course.batch, course.step_seconds, waits.or_longer(course.waits)
        slots = self.deployment.slots
        per_token = step * d.own_steps_per_token + waits.per_token + step / 2 * d.per_token
        return Steady(
            rate=rate,
            utilization=load,
            batch=batch,
            step_seconds=step,
            normalized_latency=per_token,
            wait_seconds=waits.mean,
            first_token_p99=waits.p99 + 1.5 * step + self._prompts_p99(rate),
            output_tokens=min(rate, self.saturated_rate) * float(d.outputs.mean()),
            kv_allocated=min(1.0, batch * d.held / slots),
            kv_tokens=min(1.0, batch * d.tokens / slots),
            preemptions=self.preemptions * waits.share,
        )

    def _birth_and_death(self, rate: float) -> tuple[float, float, float]:
        """Requests that run, those that wait, both on average, and the share of those who come that have to."""
        running = np.arange(int(self.most) + 1)
        ends = running[1:] / (self.demand.steps * self._step(running[1:]))  # a second
        logs = np.concatenate([[0.0], np.cumsum(np.log(rate / ends))])
        chances = np.exp(logs - logs.max())
        load = rate / self.saturated_rate
        beyond = float(chances[-1]) * load / (1 - load)  # as many more wait with a chance of load^k
        total = float(chances.sum()) + beyond
        batch = float(running @ chances + self.most * beyond) / total
        return batch, beyond / (1 - load) / total, (float(chances[-1]) + beyond) / total

    def _follow(self, arrivals: Array, rate: float) -> Course:
        own_rate = (len(arrivals) - 1) / (arrivals[-1] - arrivals[0])
        sizes, times = self._times
        even = np.interp(np.arange(int(self.most) + 2), sizes, times).tolist()

        def step_seconds(n: float) -> float:
            low = min(int(n), len(even) - 2)
            return even[low] + min(n - low, 1.0) * (even[low + 1] - even[low])  # type: ignore[no-any-return]

        return follow(arrivals * (own_rate / rate), self.demand, self.limit, self.most, step_seconds)

    def _prompts_p99(self, rate: float) -> float:
        """Until a request that runs has its first token: its own prompt's time, and that of those before it, as at one
        server that computes nothing but prompts (M/G/1, with an exponential tail)."""
        mean, square, long = self._prompt_moments
        busy = min(rate * mean, 0.99)
        before = rate * square / (2 * (1 - busy))
        return long + (before / busy * math.log(100 * busy) if busy > 0.01 else 0.0)

    @cached_property
    def _prompt_moments(self) -> tuple[float, float, float]:
        seconds = self.demand.prompt_seconds
        return float(seconds.mean()), float((seconds * seconds).mean()), float(np.quantile(seconds, 0.99))

    def sustained_rate(self, goal: float, *, first_token: float | None = None) -> float:
        """The highest rate with a normalized latency below the goal, and 99 of 100 first tokens within `first_token`
        seconds. 0 when not even a request that comes alone has them."""

        def holds(rate: float) -> bool:
            steady = self.at(rate)
            return steady.normalized_latency < goal and (first_token is None or steady.first_token_p99 < first_token)

        low, high = 0.0, self.saturated_rate
        if not holds(self.lowest.rate):
            return 0.0
        while high - low > 1e-4 * high:
            middle = (low + high) / 2
            low, high = (middle, high) if holds(middle) else (low, middle)
        return low
