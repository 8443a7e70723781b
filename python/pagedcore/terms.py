"""What a call says of how its requests are served, besides their parameters."""

from __future__ import annotations

from dataclasses import dataclass

from .checks import MOST_PRIORITY, check_int

__all__ = ["Terms"]


@dataclass(frozen=True, kw_only=True)
class Terms:
    """What a call says of how its requests are served, besides their parameters. Raises InvalidArgument."""

    prefix: str | None = None
    salt: int = 0
    priority: int = 0
    tenant: int = 0

    def __post_init__(self) -> None:
        check_int("salt", self.salt, 0, 2**64 - 1)
        check_int("priority", self.priority, -MOST_PRIORITY, MOST_PRIORITY)
        check_int("tenant", self.tenant, 0, 2**64 - 1)
