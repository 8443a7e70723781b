"""How many replicas there should be, by what they say of themselves."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ..checks import check_int, check_real
from ..errors import InvalidArgument
from .load import Load, predicted_wait

__all__ = ["Autoscaler"]


class Autoscaler:
    """By the planner's model: a replica is full when its memory, its batch or its arithmetic is, whichever is first
    (:attr:`Load.share`). As many are wanted as have `target` of that each; and for those who wait longer than
    `wait_goal`, as many more as serve what has come together within `horizon`. Replicas are added at once, and removed
    when that was right for `down_delay` seconds. Seconds are on the owner's clock. Not thread-safe."""

    def __init__(
        self,
        *,
        min_replicas: int = 1,
        max_replicas: int = 1,
        target: float = 0.7,
        wait_goal: float = 1.0,
        horizon: float = 30.0,
        down_delay: float = 300.0,
        rate_per_replica: float | None = None,
    ) -> None:
        """
        Args:
            rate_per_replica: Requests a second that a replica sustains, by `pagedcore plan`. Where it is given, and
                desired() is told how many arrive, there are never fewer than that asks for.
        """
        check_int("min_replicas", min_replicas, 0, 1_000_000)
        check_int("max_replicas", max_replicas, 1, 1_000_000)
        if min_replicas > max_replicas:
            raise InvalidArgument(f"min_replicas={min_replicas} is more than max_replicas={max_replicas}")
        check_real("target", target, 0, 1, above_low=True)
        check_real("wait_goal", wait_goal, 0, 1e6)
        check_real("horizon", horizon, 0, 1e6, above_low=True)
        check_real("down_delay", down_delay, 0, 1e6)
        if rate_per_replica is not None:
            check_real("rate_per_replica", rate_per_replica, 0, 1e9, above_low=True)
        self.min_replicas, self.max_replicas = min_replicas, max_replicas
        self.target, self.wait_goal, self.horizon = target, wait_goal, horizon
        self.down_delay, self.rate_per_replica = down_delay, rate_per_replica
        self._lower: tuple[float, int] | None = None
        """Since when fewer would do, and the most that were wanted since then."""

    def wanted(self, loads: Sequence[Load], arrivals: float | None = None) -> int:
        """By this moment alone. ``arrivals``: requests a second."""
        shares = sum(load.share for load in loads)
        waits = sum(max(predicted_wait(load) - self.wait_goal, 0.0) for load in loads)
        count = math.ceil(shares / self.target + waits / self.horizon - 1e-9)
        if arrivals is not None and self.rate_per_replica is not None:
            count = max(count, math.ceil(arrivals / self.rate_per_replica - 1e-9))
        return min(max(count, self.min_replicas), self.max_replicas)

    def desired(self, loads: Sequence[Load], current: int, now: float, arrivals: float | None = None) -> int:
        """``loads``: of the replicas that say something, which may be fewer than the `current` ones: those that are
        still starting are counted on."""
        wanted = self.wanted(loads, arrivals)
        if wanted >= current:
            self._lower = None
            return wanted
        since, most = self._lower if self._lower is not None else (now, wanted)
        most = max(most, wanted)
        if now - since < self.down_delay:
            self._lower = since, most
            return min(max(current, self.min_replicas), self.max_replicas)
        self._lower = None
        return most
