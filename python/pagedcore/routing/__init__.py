"""Which replica serves a request, and how many replicas there should be.

Plain objects without threads, clocks or connections: whoever owns one tells it the time and the news. The simulator's
fleet (``pagedcore fleet``) and Ray Serve (``pagedcore.ray``) run this code. There is no central index: each router
hears what every replica reports of itself, and remembers what it sent where.
"""

from .autoscaler import Autoscaler
from .digest import PrefixDigest, PrefixTracker
from .hashes import block_hash, chain_hashes
from .load import Load, predicted_wait
from .policies import POLICIES, LeastLoaded, Policy, Predicted, PrefixAware, RoundRobin, policy_of
from .prefix_map import PrefixMap
from .router import Arriving, Choice, News, Router

__all__ = [
    "POLICIES",
    "Arriving",
    "Autoscaler",
    "Choice",
    "LeastLoaded",
    "Load",
    "News",
    "Policy",
    "Predicted",
    "PrefixAware",
    "PrefixDigest",
    "PrefixMap",
    "PrefixTracker",
    "RoundRobin",
    "Router",
    "block_hash",
    "chain_hashes",
    "policy_of",
    "predicted_wait",
]
