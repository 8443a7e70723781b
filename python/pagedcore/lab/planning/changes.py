"""What else one could deploy: the same service with one thing changed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import NamedTuple

from ... import _core
from ..deployment import Deployment
from ..placement import Placement

__all__ = ["Change", "changes_of"]


class Change(NamedTuple):
    """A deployment that differs in one thing."""

    name: str
    deployment: Deployment
    devices: float = 1.0
    """Devices that it takes, by those it took before."""


def changes_of(deployment: Deployment, placement: Placement | None = None) -> Iterator[Change]:
    """Settings first, then what costs quality, then other hardware, then the baselines, for comparison.

    `placement`: where the deployment is from; None: changes are left out whose arithmetic needs to know.
    """

    def set_to(name: str, **changed: object) -> Change:
        return Change(name, replace(deployment, **changed))  # type: ignore[arg-type]

    for size in (deployment.block_size // 2, deployment.block_size * 2):
        if 1 <= size <= deployment.slots:
            yield set_to(f"block_size={size}", block_size=size)
    for name in ("max_sequences", "max_batched_tokens"):
        value = 2 * getattr(deployment, name)
        yield set_to(f"{name}={value}", **{name: value})
    if not deployment.enable_prefix_caching:
        yield set_to("enable_prefix_caching", enable_prefix_caching=True)
    if deployment.allocation == "paged" and deployment.preemption == "recompute":
        yield set_to("preemption=swap", preemption="swap", swap_slots=deployment.slots)

    if deployment.allocation == "paged" and deployment.admission != "never_evict":
        yield set_to("admission=never_evict", admission="never_evict")

    half = _priced(deployment, 0.5, "context_token", "copy_block", "swap_out_block", "swap_in_block")
    yield Change("KV of half the bytes", replace(half, slots=2 * deployment.slots))
    if placement is not None:
        again = _redeploy(placement, deployment)
        yield Change("weights of half the bytes", again(weight_bytes=placement.weight_bytes / 2))
        if placement.device.all_reduce_seconds > 0:
            wider = 2 * placement.tensor_parallel
            yield Change(f"tensor_parallel={wider}, for each device", again(tensor_parallel=wider), 2.0)

    yield set_to("twice the KV memory", slots=2 * deployment.slots)
    yield Change("twice the memory bandwidth", _priced(deployment, 0.5, "weights", "context_token", "copy_block"))
    yield Change("twice the arithmetic", _priced(deployment, 0.5, "row", "pair"))
    yield Change("half the overhead of steps and samples", _priced(deployment, 0.5, "step", "sample"))

    for policy in ("paged", "oracle", "pow2", "max"):
        if policy != deployment.allocation:
            yield set_to(f"allocation={policy}", allocation=policy)


def _priced(deployment: Deployment, factor: float, *terms: str) -> Deployment:
    cost = deployment.cost.to_dict()
    cost |= {term: factor * cost[term] for term in terms}
    return replace(deployment, cost=_core.CostModel(**cost))


def _redeploy(placement: Placement, deployment: Deployment) -> Callable[..., Deployment]:
    """The policies of a deployment on a changed placement."""

    def redeploy(**changed: float) -> Deployment:
        other = replace(placement, **changed).deploy(  # type: ignore[arg-type]
            block_size=deployment.block_size, max_batched_tokens=deployment.max_batched_tokens
        )
        return replace(deployment, name=other.name, slots=other.slots, cost=other.cost)

    return redeploy
