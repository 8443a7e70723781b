"""A fleet on the virtual clock: replicas that serve, routers that choose, an autoscaler."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...checks import check_int, check_real
from ...errors import InvalidArgument
from ...routing import Arriving, Autoscaler, News, Router, chain_hashes, policy_of
from ..deployment import Deployment
from ..run import Seconds, percentiles
from ..workload import Prompt, Workload
from .replica import SimulatedReplica

__all__ = ["Fleet", "FleetOutcome", "simulate_fleet"]

_TICK = 0.05
"""Virtual seconds: so late may a router hear that a request has ended."""


@dataclass(frozen=True, kw_only=True)
class Fleet:
    """How many replicas, and how their routers choose."""

    policy: str = "predicted"
    replicas: int = 1000
    """With an autoscaler: at the beginning."""
    routers: int = 4
    """That know nothing of each other; requests come to them in turn."""
    report_every: float = 1.0
    """Seconds between two news of a replica."""
    max_age: float = 5.0
    """Seconds after which routers take news for none."""
    autoscaler: Autoscaler | None = None
    start_seconds: float = 30.0
    """Until a new replica serves."""
    seed: int = 0

    def __post_init__(self) -> None:
        policy_of(self.policy)
        check_int("replicas", self.replicas, 1, 100_000)
        check_int("routers", self.routers, 1, 1000)
        check_real("report_every", self.report_every, _TICK, 1e6)
        check_real("max_age", self.max_age, 0, 1e6, above_low=True)
        check_real("start_seconds", self.start_seconds, 0, 1e6)


@dataclass(frozen=True)
class FleetOutcome:
    """What came of a run. Times are virtual seconds by request."""

    fleet: Fleet
    workload: Workload
    first_token: Seconds
    finish: Seconds
    per_replica: list[int]
    """Requests that each served, of all that there ever were."""
    hit_tokens: int
    """Prompt tokens not computed thanks to the prefix caches."""
    preemptions: int
    replica_seconds: float
    """Of all replicas, while they were there."""
    sizes: list[tuple[float, int]]
    """Replicas that there were, over time, with those that start and that drain."""
    took: float
    """Seconds of this machine."""

    @property
    def hits(self) -> float:
        """Share of the prompt tokens."""
        return self.hit_tokens / sum(prompt for prompt, _ in self.workload.lengths)

    @property
    def seconds(self) -> float:
        """From the first arrival to the last end."""
        return float(self.finish.max() - self.workload.arrivals[0])

    def to_dict(self) -> dict[str, Any]:
        arrivals, outputs = np.array(self.workload.arrivals), np.array(self.workload.outputs)
        several = outputs > 1
        counts = self.per_replica
        return {
            "policy": self.fleet.policy,
            "replicas": self.fleet.replicas,
            "requests": len(self.workload),
            "arrival_rate": self.workload.rate if len(self.workload) > 1 else None,
            "seconds": self.seconds,
            "requests_per_second": len(self.workload) / self.seconds,
            "output_tokens_per_second": float(outputs.sum()) / self.seconds,
            "hit_tokens": self.hit_tokens,
            "prefix_hits": self.hits,
            "time_to_first_token": percentiles(self.first_token - arrivals),
            "time_per_output_token": percentiles((self.finish - self.first_token)[several] / (outputs[several] - 1)),
            "normalized_latency": percentiles((self.finish - arrivals) / outputs),
            "most_requests_by_mean": max(counts) * len(counts) / sum(counts),
            "preemptions": self.preemptions,
            "replica_seconds": self.replica_seconds,
            "most_replicas": max(size for _, size in self.sizes),
            "took": self.took,
        }


def simulate_fleet(
    workload: Workload,
    deployment: Deployment,
    fleet: Fleet,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> FleetOutcome:
    """Serves a workload. The same arguments give the same outcome, but for `took`. Raises InvalidArgument for an empty
    workload, for samples, beams, tenants and priorities, and for a request that could never be served.

    Args:
        progress: Called now and then with the number of requests that have ended, and of all.
    """
    if not len(workload):
        raise InvalidArgument("a fleet needs a request to serve; the workload has none")
    if workload.num_samples != 1 or workload.beam_width or workload.priorities or workload.tenants:
        raise InvalidArgument("a fleet serves requests of one sample, without priorities and tenants: use simulate()")
    run = _Run(workload, deployment, fleet)
    begin = time.process_time()
    for done in run.serve():
        if progress is not None:
            progress(done, len(workload))
    return run.outcome(time.process_time() - begin)


class _Run:
    def __init__(self, workload: Workload, deployment: Deployment, fleet: Fleet) -> None:
        self._workload, self._deployment, self._fleet = workload, deployment, fleet
        prompts = np.array([prompt for prompt, _ in workload.lengths], float)
        cost = deployment.cost
        self._token_seconds = cost.row + cost.pair * float((prompts**2).sum() / prompts.sum()) / 2
        """Of a token of an average prompt, and what a running request adds to the steps of another: what replicas
        measure."""
        outputs = float(np.mean(workload.outputs))
        context = float(prompts.mean()) + outputs / 2
        self._crowd_seconds = outputs * (cost.context_token * context + cost.sample)
        self._policies = [policy_of(fleet.policy) for _ in range(fleet.routers)]
        self._hashes = self._policies[0].wants_prefixes and deployment.enable_prefix_caching
        self._routers = [
            Router(policy, max_age=fleet.max_age, lag=0.0, seed=fleet.seed + number)
            for number, policy in enumerate(self._policies)
        ]
        self._on: dict[int, Router] = {}
        self._all: list[SimulatedReplica] = []
        self._born: list[float] = []
        self._gone: dict[int, float] = {}
        self._ready: dict[int, float] = {}
        """Of replicas that start: when they do."""
        self._live: list[int] = []
        self._draining: set[int] = set()
        self._loads: dict[int, News] = {}
        self._sizes: list[tuple[float, int]] = []
        self._grow(fleet.replicas, workload.arrivals[0], 0.0)
        self._start(workload.arrivals[0])

    def _grow(self, count: int, now: float, wait: float) -> None:
        for _ in range(count):
            self._ready[len(self._all)] = now + wait
            replica = SimulatedReplica(
                self._deployment,
                token_seconds=self._token_seconds,
                crowd_seconds=self._crowd_seconds,
                says_prefixes=self._hashes,
                now=now + wait,
            )
            self._all.append(replica)
            self._born.append(now)

    def _start(self, now: float) -> None:
        started = [number for number, ready in self._ready.items() if ready <= now]
        for number in started:
            del self._ready[number]
            self._live.append(number)
        if started:
            self._tell()
            for number in started:
                self._report(number, now)

    def _tell(self) -> None:
        for router in self._routers:
            router.set_replicas(self._live)

    def _report(self, number: int, now: float) -> None:
        news = self._loads[number] = self._all[number].news(now)
        for router in self._routers:
            router.news(number, news, now)

    def serve(self) -> Iterator[int]:
        """Yields how many requests have ended, now and then."""
        workload, fleet = self._workload, self._fleet
        now, next, done, tick = workload.arrivals[0], 0, 0, 0
        busy: set[int] = set()
        ticks = max(round(fleet.report_every / _TICK), 1)
        while done < len(workload):
            until = now + _TICK
            while next < len(workload) and workload.arrivals[next] < until:
                busy.add(self._route(next))
                next += 1
            for number in sorted(busy):
                replica = self._all[number]
                for request in replica.run_until(until):
                    self._on.pop(request).ended(request)
                    done += 1
                if not replica.unfinished:
                    busy.discard(number)
            now, tick = until, tick + 1
            for number in self._live[tick % ticks :: ticks]:
                self._report(number, now)
            if self._ready or fleet.autoscaler is not None:
                self._scale(now, every=tick % ticks == 0)
            if tick % ticks == 0:
                yield done
        self._end = now
        yield done

    def _route(self, number: int) -> int:
        arrival, prompt = self._workload.arrivals[number], self._workload.prompts[number]
        router = self._routers[number % len(self._routers)]
        tokens = sum(size for _, size in prompt)
        arriving = Arriving(tokens, self._chain(prompt) if self._hashes else ())
        choice = router.choose(arriving, arrival)
        router.sent(number, choice, arriving, arrival)
        self._on[number] = router
        chosen: int = choice.replica  # type: ignore[assignment]
        self._all[chosen].add(number, arrival, prompt, self._workload.outputs[number])
        return chosen

    def _chain(self, prompt: Prompt) -> list[int]:
        from ... import _core

        return chain_hashes(_core.simulated_tokens(prompt), self._deployment.block_size)

    def _scale(self, now: float, *, every: bool) -> None:
        self._start(now)
        for number in [n for n in self._draining if not self._all[n].unfinished]:
            self._draining.discard(number)
            self._gone[number] = now
        scaler = self._fleet.autoscaler
        if scaler is None or not every:
            return
        current = len(self._live) + len(self._ready)
        loads = [self._loads[number].load for number in self._live]
        wanted = scaler.desired(loads, current, now)
        if wanted > current:
            self._grow(wanted - current, now, self._fleet.start_seconds)
        for _ in range(current - wanted):
            self._shrink(now)
        self._sizes.append((now, len(self._live) + len(self._ready) + len(self._draining)))

    def _shrink(self, now: float) -> None:
        """One that still starts, else the one with the least to do: it gets nothing more, and goes when it is done."""
        if self._ready:
            number = max(self._ready)
            del self._ready[number]
            self._gone[number] = now
            return
        number = min(self._live, key=lambda n: (len(self._all[n].unfinished), -n))
        self._live.remove(number)
        self._draining.add(number)
        self._tell()

    def outcome(self, took: float) -> FleetOutcome:
        first, finish = np.zeros(len(self._workload)), np.zeros(len(self._workload))
        for replica in self._all:
            for values, found in zip((first, finish), replica.times(), strict=True):
                values[replica.numbers] = found
        lives = (self._gone.get(number, self._end) - born for number, born in enumerate(self._born))
        return FleetOutcome(
            fleet=self._fleet,
            workload=self._workload,
            first_token=first,
            finish=finish,
            per_replica=[len(replica.numbers) for replica in self._all],
            hit_tokens=sum(replica.hit_tokens for replica in self._all),
            preemptions=sum(replica.preemptions for replica in self._all),
            replica_seconds=sum(lives),
            sizes=self._sizes or [(self._workload.arrivals[0], self._fleet.replicas)],
            took=took,
        )
