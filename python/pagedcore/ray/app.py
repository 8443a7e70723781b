"""Deployments of Ray Serve, from a :class:`RayConfig`."""

from __future__ import annotations

from typing import Any

from ..errors import Unsupported
from .config import RayConfig

try:
    from ray import serve
    from ray.serve.config import AutoscalingConfig, AutoscalingPolicy, RequestRouterConfig
except ModuleNotFoundError as error:
    raise Unsupported(f"replicas on Ray need {error.name}: pip install 'pagedcore[ray]'") from None

from .front import Front
from .replica import Replica

__all__ = ["application"]

_HEALTH_EVERY = 5.0
_HEALTH_TIMEOUT = 30.0


def application(config: RayConfig) -> Any:
    replicas = serve.deployment(Replica, name="replicas").options(
        ray_actor_options={"num_cpus": config.cpus, "num_gpus": config.gpus},
        max_ongoing_requests=config.max_calls,
        graceful_shutdown_timeout_s=config.drain_timeout,
        graceful_shutdown_wait_loop_s=0.5,
        health_check_period_s=_HEALTH_EVERY,
        health_check_timeout_s=_HEALTH_TIMEOUT,
        request_router_config=RequestRouterConfig(
            request_router_class="pagedcore.ray.router:RayRouter",
            request_router_kwargs={"policy": config.policy, "report_every": config.report_every},
            request_routing_stats_period_s=config.report_every,
        ),
        **_how_many(config),
        **_placement(config),
    )
    front = serve.deployment(serve.ingress(_application)(_Front), name="front").options(
        num_replicas=config.fronts,
        ray_actor_options={"num_cpus": 0.1},
        max_ongoing_requests=100_000,
        graceful_shutdown_timeout_s=config.drain_timeout,
    )
    return front.bind(config, replicas.bind(config))


class _Front:
    """Ray makes the ASGI application when it makes this."""

    def __init__(self, config: RayConfig, replicas: Any) -> None:
        _fronts.append(Front(config, replicas))


_fronts: list[Front] = []
"""Of this process: the latest is the one."""


def _application() -> Any:
    """Ray calls it where the front is."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await _fronts[-1](scope, receive, send)

    return app


def _how_many(config: RayConfig) -> dict[str, Any]:
    if config.max_replicas == config.min_replicas:
        return {"num_replicas": config.min_replicas}
    return {
        "autoscaling_config": AutoscalingConfig(
            min_replicas=config.min_replicas,
            max_replicas=config.max_replicas,
            initial_replicas=config.min_replicas,
            upscale_delay_s=0.0,
            downscale_delay_s=0.0,
            metrics_interval_s=config.report_every,
            look_back_period_s=3 * config.report_every,
            policy=AutoscalingPolicy(
                policy_function="pagedcore.ray.scaling:ScalingPolicy",
                policy_kwargs={
                    "min_replicas": config.min_replicas,
                    "max_replicas": config.max_replicas,
                    "target": config.target,
                    "wait_goal": config.wait_goal,
                    "down_delay": config.down_delay,
                },
            ),
        )
    }


def _placement(config: RayConfig) -> dict[str, Any]:
    if config.tensor_parallel == 1:
        return {}
    bundle = {"CPU": config.cpus} | ({"GPU": config.gpus} if config.gpus else {})
    return {
        "placement_group_bundles": [dict(bundle) for _ in range(config.tensor_parallel)],
        "placement_group_strategy": config.placement,
    }
