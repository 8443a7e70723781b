"""What an operator says of an application on Ray."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from .. import _core
from ..checks import check_int, check_real
from ..engine_options import engine_config
from ..errors import InvalidArgument, Unsupported
from ..routing import policy_of

__all__ = ["RayConfig"]

_STRATEGIES = ("STRICT_PACK", "PACK", "SPREAD", "STRICT_SPREAD")


@dataclass(frozen=True, kw_only=True)
class RayConfig:
    """Replicas of one model, and the fronts before them."""

    model: str | None = None
    """As ``LLM(model)`` takes it, on every node. None: the installed default."""
    names: tuple[str, ...] = ()
    """In calls; none: its file's."""
    engine: Mapping[str, Any] = field(default_factory=dict)
    """Options of each replica's engine, by their names."""
    chat_template: str | None = None
    """The text of one, instead of the model's own."""
    tool_format: str | None = None
    min_replicas: int = 1
    max_replicas: int = 1
    """More than ``min_replicas``: as many as the autoscaler wants."""
    target: float = 0.7
    """Share of a replica that the autoscaler fills."""
    wait_goal: float = 1.0
    """Predicted seconds of waiting over which it adds replicas."""
    down_delay: float = 300.0
    """Seconds for which fewer must have been enough before one goes."""
    fronts: int = 1
    """That read calls and choose replicas; each knows nothing of the others."""
    policy: str = "predicted"
    report_every: float = 1.0
    """Seconds between two news of a replica."""
    max_calls: int = 256
    """That one replica has at a time. More wait in the fronts."""
    drain_timeout: float = 30.0
    """Seconds for the calls of a replica that is to go."""
    tensor_parallel: int = 1
    """Ranks of one engine; each has a bundle of the replica's placement group."""
    cpus: float = 1.0
    """Of a rank."""
    gpus: float = 0.0
    placement: str = "STRICT_PACK"
    """Where the bundles of several ranks lie."""

    def __post_init__(self) -> None:
        check_int("min_replicas", self.min_replicas, 1, 100_000)
        check_int("max_replicas", self.max_replicas, 1, 100_000)
        if self.max_replicas < self.min_replicas:
            raise InvalidArgument(f"max_replicas={self.max_replicas} is fewer than min_replicas={self.min_replicas}")
        check_int("fronts", self.fronts, 1, 10_000)
        check_int("max_calls", self.max_calls, 1, 1_000_000)
        check_int("tensor_parallel", self.tensor_parallel, 1, 1024)
        check_real("target", self.target, 0, 1, above_low=True)
        check_real("wait_goal", self.wait_goal, 0, 1e6)
        check_real("down_delay", self.down_delay, 0, 1e6)
        check_real("report_every", self.report_every, 0, 3600, above_low=True)
        check_real("drain_timeout", self.drain_timeout, 0, 1e6)
        check_real("cpus", self.cpus, 0, 1e5, above_low=True)
        check_real("gpus", self.gpus, 0, 1e5)
        policy_of(self.policy)
        if self.placement not in _STRATEGIES:
            raise InvalidArgument(f"placement={self.placement!r} must be one of {', '.join(_STRATEGIES)}")
        self.engine_options()

    @classmethod
    def read(cls, values: Mapping[str, Any]) -> RayConfig:
        """From the fields by name. Raises InvalidArgument, naming what there is not."""
        known = {field.name for field in fields(cls)}
        unknown = sorted(set(values) - known)
        if unknown:
            raise InvalidArgument(f"an application has no {', '.join(unknown)}; it has: {', '.join(sorted(known))}")
        given = dict(values)
        if isinstance(given.get("names"), list):
            given["names"] = tuple(given["names"])
        return cls(**given)

    def engine_options(self) -> dict[str, Any]:
        """Of a replica's engine. Raises InvalidArgument for one that there is not, Unsupported for several ranks where
        engines have one."""
        options = dict(self.engine)
        if self.tensor_parallel > 1:
            if not any(info.name == "tensor_parallel" for info in _core.options_of("EngineConfig")):
                raise Unsupported(f"tensor_parallel={self.tensor_parallel}: engines of this version have one rank")
            options["tensor_parallel"] = self.tensor_parallel
        try:
            engine_config(options)
        except TypeError as error:
            raise InvalidArgument(f"engine: {error}") from None
        return options
