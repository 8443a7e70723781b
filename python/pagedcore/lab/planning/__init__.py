"""How many requests a deployment can take, at which latency: by arithmetic, confirmed by simulation."""

from .confirm import Simulated
from .plan import confirm_plan, plan_service
from .service_plan import Option, ServicePlan
from .stationary import StationaryBatch, Steady

__all__ = ["Option", "ServicePlan", "Simulated", "StationaryBatch", "Steady", "confirm_plan", "plan_service"]
