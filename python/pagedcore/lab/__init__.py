"""Service on a virtual clock: the scheduler that serves real requests under an executor that prices its plans.

:func:`simulate` runs on that clock, :func:`measure` runs the same workload on a real engine.

>>> from pagedcore.lab import Deployment, poisson_workload, read_lengths, simulate
>>> workload = poisson_workload(read_lengths("sharegpt_lengths.csv"), rate=1.5, seconds=3600)
>>> simulate(workload, Deployment.of_paper("opt-13b")).normalized_latency
"""

from .comparison import Comparison, Trial, compare
from .conversations import chat_workload, draw_conversations
from .deployment import Deployment, costs_text
from .device import Device
from .figures import FIGURES, Figure, draw, reproduce
from .lengths import paper_lengths, translation_lengths
from .measure import measure
from .model_shape import ModelShape
from .placement import Placement
from .planning import ServicePlan, StationaryBatch, Steady, confirm_plan, plan_service
from .roofline import fit_device, kv_slots, model_cost
from .run import Outcome, simulate
from .sustained import sustained_rate
from .traces import read_azure, read_conversations, read_lengths, read_mooncake, read_trace
from .workload import Workload, poisson_arrivals, poisson_workload, shared_prefix_workload

__all__ = [
    "FIGURES",
    "Comparison",
    "Deployment",
    "Device",
    "Figure",
    "ModelShape",
    "Outcome",
    "Placement",
    "ServicePlan",
    "StationaryBatch",
    "Steady",
    "Trial",
    "Workload",
    "chat_workload",
    "compare",
    "confirm_plan",
    "costs_text",
    "draw",
    "draw_conversations",
    "fit_device",
    "kv_slots",
    "measure",
    "model_cost",
    "paper_lengths",
    "plan_service",
    "poisson_arrivals",
    "poisson_workload",
    "read_azure",
    "read_conversations",
    "read_lengths",
    "read_mooncake",
    "read_trace",
    "reproduce",
    "shared_prefix_workload",
    "simulate",
    "sustained_rate",
    "translation_lengths",
]
