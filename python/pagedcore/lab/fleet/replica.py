"""A replica on the virtual clock: the shipped scheduler, and what such a replica says of itself."""

from __future__ import annotations

from ... import _core
from ...routing import Load, News, PrefixTracker
from ...routing.load import ends_per_second, pending_tokens
from ..deployment import Deployment
from ..workload import Prompt

__all__ = ["SimulatedReplica"]

_LISTED = _core.SnapshotLimits(max_requests=512, max_cells=1, max_entries=0)
_MOST_EVENTS = 1 << 16


class SimulatedReplica:
    """One thread owns it. Its requests are those of the fleet, by their numbers there."""

    def __init__(
        self,
        deployment: Deployment,
        *,
        token_seconds: float,
        crowd_seconds: float,
        says_prefixes: bool,
        now: float = 0.0,
    ) -> None:
        """
        Args:
            token_seconds, crowd_seconds: What a replica has measured (:class:`Load`).
            says_prefixes: Whether its news have a digest.
            now: When it is there.
        """
        config = deployment.config()
        tracks = says_prefixes and deployment.enable_prefix_caching
        if tracks:
            config.cache = _core.KvCacheConfig.from_dict({**config.cache.to_dict(), "max_events": _MOST_EVENTS})
        self._deployment = deployment
        self._token_seconds, self._crowd_seconds = token_seconds, crowd_seconds
        self._simulation = _core.Simulation(config, [], [], [])
        self._simulation.run_until(now)
        self._tracker = PrefixTracker(deployment.block_size) if tracks else None
        self.numbers: list[int] = []
        """Of its requests, in order of arrival."""
        self.unfinished: set[int] = set()
        self._before: tuple[float, dict[str, float]] | None = None

    def add(self, number: int, arrival: float, prompt: Prompt, output: int) -> None:
        """Raises InvalidArgument for a request that could never be served."""
        self._simulation.add(arrival, prompt, output)
        self.numbers.append(number)
        self.unfinished.add(number)

    def run_until(self, seconds: float) -> list[int]:
        """The numbers of the requests that have ended."""
        self._simulation.run_until(seconds)
        ended = [self.numbers[index] for index in self._simulation.take_ended()]
        self.unfinished.difference_update(ended)
        return ended

    def news(self, now: float) -> News:
        """Made of what the server of a real replica makes its news of: the engine's counters, its snapshot and the
        events of its cache."""
        report = self._simulation.report()
        picture = self._simulation.snapshot(_LISTED)
        scheduler = report.scheduler
        stats = {
            "steps": float(report.steps),
            "step_seconds_total": report.busy,
            "requests_finished": float(report.finished),
            "requests_aborted": 0.0,
            "requests_running": float(scheduler.running),
            "tokens_sampled": float(scheduler.tokens_sampled),
            "tokens_computed": float(scheduler.tokens_computed),
        }
        blocks = self._simulation.cache_counts()
        load = Load(
            waiting=scheduler.waiting,
            running=scheduler.running,
            pending_tokens=pending_tokens(picture.requests, picture.requests_left_out),
            blocks_total=blocks.total,
            blocks_free=blocks.free + blocks.cached,
            block_size=self._deployment.block_size,
            max_sequences=self._deployment.max_sequences,
            token_seconds=self._token_seconds,
            crowd_seconds=self._crowd_seconds,
            ends_per_second=ends_per_second(stats, None if self._before is None else self._before[1]),
            busy=self._busy(now, stats),
        )
        self._before = now, stats
        digest = None
        if self._tracker is not None:
            self._tracker.take(self._simulation.take_events())
            digest = self._tracker.digest()
        return News(load, digest)

    def _busy(self, now: float, stats: dict[str, float]) -> float:
        if self._before is None or now <= self._before[0]:
            return 0.0
        tokens = stats["tokens_computed"] - self._before[1]["tokens_computed"]
        return tokens * self._token_seconds / (now - self._before[0])

    @property
    def hit_tokens(self) -> int:
        return self._simulation.report().scheduler.prefix_hit_tokens

    @property
    def preemptions(self) -> int:
        return self._simulation.report().scheduler.preemptions_recompute

    def times(self) -> tuple[list[float], list[float]]:
        """First tokens and ends of its requests."""
        return self._simulation.first_token, self._simulation.finish
