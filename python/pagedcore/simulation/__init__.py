"""Service on a virtual clock: the scheduler that serves real requests under an executor that prices its plans.

>>> from pagedcore.simulation import Deployment, poisson_workload, read_lengths, simulate
>>> workload = poisson_workload(read_lengths("sharegpt_lengths.csv"), rate=1.5, seconds=3600)
>>> simulate(workload, Deployment.of_paper("opt-13b")).normalized_latency
"""

from .deployment import Deployment
from .run import Outcome, simulate
from .traces import read_azure, read_lengths, read_mooncake
from .workload import Workload, poisson_workload

__all__ = [
    "Deployment",
    "Outcome",
    "Workload",
    "poisson_workload",
    "read_azure",
    "read_lengths",
    "read_mooncake",
    "simulate",
]
