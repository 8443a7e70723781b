"""What the endpoints of a server share."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from .. import _core
from ..errors import InvalidArgument
from .served import Served
from .settings import Settings
from .tracing import Tracing
from .viewer import Viewer

__all__ = ["State"]


@dataclass
class State:
    models: Sequence[Served]
    """The first one is used where a call names none."""
    settings: Settings
    answered: Counter[tuple[str, int]] = field(default_factory=Counter)
    """Calls that have ended, by path of the route and status."""
    created: int = field(default_factory=lambda: int(time.time()))
    fingerprint: str = f"pagedcore-{_core.version()}"
    tracing: Tracing | None = None
    viewer: Viewer = field(default_factory=Viewer)
    calls: int = 0
    """Under way."""
    draining: bool = False
    by_name: dict[str, Served] = field(init=False)

    def __post_init__(self) -> None:
        self.by_name = {}
        for model in self.models:
            for name in model.names:
                if name in self.by_name:
                    raise InvalidArgument(f"two models are to be served as {name!r}: give each a name of its own")
                self.by_name[name] = model
