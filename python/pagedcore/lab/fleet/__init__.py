"""Many replicas behind the routers and the autoscaler that serve: :func:`simulate_fleet`."""

from .capacity import capacity, side_by_side
from .fleet import Fleet, FleetOutcome, simulate_fleet
from .replica import SimulatedReplica

__all__ = ["Fleet", "FleetOutcome", "SimulatedReplica", "capacity", "side_by_side", "simulate_fleet"]
