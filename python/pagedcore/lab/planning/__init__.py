"""How many requests a deployment can take, at which latency: by arithmetic, confirmed by simulation."""

from .confirm import Simulated
from .plan import Option, ServicePlan, plan_service
from .stationary import StationaryBatch, Steady

__all__ = ["Option", "ServicePlan", "Simulated", "StationaryBatch", "Steady", "plan_service"]
