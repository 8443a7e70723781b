"""Replicas on Ray Serve: :func:`build_app` makes an application of them, for ``serve.run`` and ``serve run``.

``pip install "pagedcore[ray]"`` brings what it needs. A front reads each call, and its router chooses the replica by
what :mod:`pagedcore.routing` says; a replica is the server's own application over one engine.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .config import RayConfig

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["RayConfig", "build_app"]


def build_app(config: Mapping[str, Any] | RayConfig | None = None) -> Any:
    """An application of Ray Serve. ``config``: a :class:`RayConfig`, or its fields by name, as under ``args`` of a
    YAML file. Raises InvalidArgument for what they do not hold, Unsupported without the extra ``ray``."""
    chosen = config if isinstance(config, RayConfig) else RayConfig.read(config or {})
    from .app import application

    return application(chosen)
