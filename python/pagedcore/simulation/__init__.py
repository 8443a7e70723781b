"""Service on a virtual clock: the scheduler that serves real requests under an executor that prices its plans.

>>> from pagedcore.simulation import Deployment, poisson_workload, read_lengths, simulate
>>> workload = poisson_workload(read_lengths("sharegpt_lengths.csv"), rate=1.5, seconds=3600)
>>> simulate(workload, Deployment.of_paper("opt-13b")).normalized_latency
"""

from .chat import chat_workload, draw_conversations
from .deployment import Deployment
from .figures import FIGURES, Figure, reproduce, sustained_rate
from .lengths import paper_lengths, translation_lengths
from .run import Outcome, simulate
from .traces import read_azure, read_conversations, read_lengths, read_mooncake
from .workload import Workload, poisson_arrivals, poisson_workload, shared_prefix_workload

__all__ = [
    "FIGURES",
    "Deployment",
    "Figure",
    "Outcome",
    "Workload",
    "chat_workload",
    "draw_conversations",
    "paper_lengths",
    "poisson_arrivals",
    "poisson_workload",
    "read_azure",
    "read_conversations",
    "read_lengths",
    "read_mooncake",
    "reproduce",
    "shared_prefix_workload",
    "simulate",
    "sustained_rate",
    "translation_lengths",
]
