"""How many requests a deployment can take, at which latency, and what to change first."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from ...checks import check_int, check_real
from ...errors import InvalidArgument
from ..deployment import Deployment
from ..placement import Placement
from ..workload import Workload
from .arriving import Arriving
from .changes import changes_of
from .confirm import confirm
from .demand import Lengths
from .service_plan import Option, ServicePlan
from .stationary import StationaryBatch

__all__ = ["confirm_plan", "plan_service"]

_MOST_REPLICAS = 1_000_000


def plan_service(
    requests: Lengths | Workload,
    service: Deployment | Placement,
    *,
    latency: float = 0.2,
    first_token: float | None = None,
    target_rate: float | None = None,
    replicas: int = 1,
    options: bool = True,
    **policies: Any,
) -> ServicePlan:
    """Plans a service by arithmetic, in well under a second (`stationary.py` has the model).

    Args:
        requests: (prompt, output) lengths of requests that arrive at random, or a trace, whose uneven arrivals and
            common prefixes count too. Those of max_reservation tokens or more, the model's context, are left out.
        service: What serves: a placement, or a deployment of one's own.
        latency: Goal for the mean normalized latency, in seconds per output token.
        first_token: Goal for the time to first token of 99 of 100 requests, in seconds.
        target_rate: Requests a second to serve: gives the number of replicas.
        replicas: How many share the requests evenly, if there is no target.
        options: Whether to say what changes would buy.
        policies: Of a placement's deployment, such as block_size.

    Raises InvalidArgument for goals and rates that are no positive numbers, for a model that does not fit, and when all
    requests are too long.
    """
    check_real("latency", latency, 0, 1e6, above_low=True)
    if first_token is not None:
        check_real("first_token", first_token, 0, 1e9, above_low=True)
    if target_rate is not None:
        check_real("target_rate", target_rate, 0, 1e9, above_low=True)
    check_int("replicas", replicas, 1, _MOST_REPLICAS)
    placement = service if isinstance(service, Placement) else None
    deployment = service.deploy(**policies) if isinstance(service, Placement) else replace(service, **policies)
    deployment.config()  # refuses sizes out of their ranges, and policies that there are not
    arriving = Arriving.of(requests, deployment)

    def rate_of(other: Deployment) -> tuple[StationaryBatch, float]:
        cached = arriving.cached(other.slots) if other.enable_prefix_caching else None
        batch = StationaryBatch(arriving.lengths, other, arrivals=arriving.arrivals, cached=cached)
        return batch, batch.sustained_rate(latency, first_token=first_token)

    batch, rate = rate_of(deployment)
    steady = batch.at(rate) if rate > 0 else batch.lowest
    at_target = None
    if target_rate is not None and rate > 0:
        replicas = math.ceil(target_rate / rate)
        if replicas > _MOST_REPLICAS:
            raise InvalidArgument(
                f"target_rate={target_rate:g} takes {replicas:,} replicas at {rate:.3g} requests a second each; "
                f"{_MOST_REPLICAS:,} at most are planned for"
            )
        at_target = batch.at(target_rate / replicas)
    found = []
    for change in changes_of(deployment, placement) if options else ():
        if change.deployment.enable_prefix_caching > deployment.enable_prefix_caching and not arriving.shares:
            continue
        try:
            changed = rate_of(change.deployment)[1] / change.devices
        except InvalidArgument:  # it does not fit, or could not serve the longest requests
            continue
        gain = changed / rate - 1 if rate > 0 else math.inf if changed > 0 else 0.0
        found.append(Option(change.name, changed, gain))
    return ServicePlan(
        deployment=deployment,
        requests=len(arriving.lengths),
        mean_prompt=float(arriving.lengths[:, 0].mean()),
        mean_output=float(arriving.lengths[:, 1].mean()),
        left_out=arriving.left_out,
        latency=latency,
        first_token=first_token,
        rate=rate,
        saturated_rate=batch.saturated_rate,
        batch_limit=batch.most,
        limited_by=batch.limit,
        steady=steady,
        step=batch.step_parts(steady.batch),
        replicas=replicas,
        target_rate=target_rate,
        at_target=at_target,
        options=sorted(found, key=lambda option: -option.rate),
        simulated=None,
        notes=_notes(placement),
    )


def confirm_plan(
    plan: ServicePlan,
    requests: Lengths | Workload,
    *,
    seconds: float | None = None,
    progress: Callable[[float], None] | None = None,
) -> ServicePlan:
    """The plan with its rate confirmed by simulation, which takes seconds to minutes. A rate of 0 is not simulated.

    Args:
        requests: Those that were planned for.
        seconds: How long the requests of a simulated trace arrive. None: an hour, or what 20,000 requests take.
        progress: Called now and then with the number of simulated runs; 2.4 is in the third one.
    """
    if plan.rate == 0:
        return plan
    arriving = Arriving.of(requests, plan.deployment)
    simulated = confirm(
        arriving,
        plan.deployment,
        plan.steady,
        latency=plan.latency,
        first_token=plan.first_token,
        seconds=seconds,
        progress=progress,
    )
    return replace(plan, simulated=simulated)


def _notes(placement: Placement | None) -> list[str]:
    if placement is None or placement.model.window == 0:
        return []
    return [
        f"layers that attend to the latest {placement.model.window:,} tokens are counted as if they kept all: "
        "more requests may fit"
    ]
