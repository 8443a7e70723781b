"""Service on a virtual clock: the scheduler that serves real requests under an executor that prices its plans.

>>> from pagedcore.simulation import Deployment, poisson_workload, read_lengths, simulate
>>> workload = poisson_workload(read_lengths("sharegpt_lengths.csv"), rate=1.5, seconds=3600)
>>> simulate(workload, Deployment.of_paper("opt-13b")).normalized_latency
"""

from .deployment import Deployment
from .figures import FIGURES, Figure, reproduce, sustained_rate
from .lengths import paper_lengths
from .run import Outcome, simulate
from .traces import read_azure, read_lengths, read_mooncake
from .workload import Workload, poisson_workload

__all__ = [
    "FIGURES",
    "Deployment",
    "Figure",
    "Outcome",
    "Workload",
    "paper_lengths",
    "poisson_workload",
    "read_azure",
    "read_lengths",
    "read_mooncake",
    "reproduce",
    "simulate",
    "sustained_rate",
]
