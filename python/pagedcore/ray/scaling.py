"""Ray's hook for autoscaling, over ours."""

from __future__ import annotations

import time
from dataclasses import fields
from typing import Any

from pagedcore.routing import Autoscaler, Load

__all__ = ["ScalingPolicy"]


class ScalingPolicy:
    """Lives in Ray's controller."""

    def __init__(self, **limits: Any) -> None:
        self._scaler = Autoscaler(**limits)

    def __call__(self, context: Any) -> tuple[int, dict[str, Any]]:
        now = time.monotonic() if context.current_time is None else context.current_time
        wanted = self._scaler.desired(loads_of(context.aggregated_metrics or {}), context.target_num_replicas, now)
        return wanted, context.policy_state or {}


def loads_of(metrics: dict[str, dict[Any, float]]) -> list[Load]:
    """From Load's fields by name and replica, as Ray gathers them."""
    whole = {field.name for field in fields(Load) if field.type == "int"}
    by_replica: dict[Any, dict[str, float]] = {}
    for name, values in metrics.items():
        if name in {field.name for field in fields(Load)}:
            for replica, value in values.items():
                by_replica.setdefault(replica, {})[name] = round(value) if name in whole else value
    return [Load(**values) for values in by_replica.values()]  # type: ignore[arg-type]
