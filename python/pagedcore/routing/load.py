"""What a replica says of its load, and when it would come to a newcomer."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from ..errors import InvalidArgument

__all__ = ["Load", "pending_tokens", "predicted_wait"]


@dataclass(frozen=True, kw_only=True)
class Load:
    """Of one replica, between two of its steps."""

    waiting: int = 0
    """Requests that are there and do not run."""
    running: int = 0
    pending_tokens: int = 0
    """Tokens of their prompts that are still to be computed."""
    blocks_total: int = 0
    blocks_free: int = 0
    """With those that are only cached."""
    block_size: int = 16
    max_sequences: int = 256
    """That run at once."""
    token_seconds: float = 0.0
    """That computing a token of a prompt takes; 0: not known."""
    crowd_seconds: float = 0.0
    """That a request which runs adds to another one, over all its steps; 0: not known."""
    ends_per_second: float = 0.0
    """Requests that end, by the planner's model of the batch; 0: not known."""
    busy: float = 0.0
    """Share of the time that went into computing tokens of prompts, lately."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
                raise InvalidArgument(f"{field.name}={value!r} of a replica's load must be a number, 0 or more")

    def to_dict(self) -> dict[str, float]:
        return asdict(self)

    @property
    def share(self) -> float:
        """Of what it can do: of its memory, its batch or its arithmetic, whichever is shortest (docs/planning.md)."""
        memory = 1 - self.blocks_free / self.blocks_total if self.blocks_total else 0.0
        return max(memory, self.running / max(self.max_sequences, 1), min(self.busy, 1.0))


def predicted_wait(load: Load, tokens: int = 0) -> float:
    """Seconds until a newcomer with so many tokens to compute would begin. Those before it compute their prompts; where
    they leave it no blocks, or no place in the batch, as many requests as wait must end, and one more: of n that run
    n / (E[steps] step seconds) end a second (Little; docs/planning.md, 3)."""
    wait = load.pending_tokens * load.token_seconds
    short = load.blocks_total > 0 and load.blocks_free * load.block_size < tokens + load.pending_tokens
    if (short and load.running) or load.running + load.waiting >= load.max_sequences:
        wait = max(wait, (load.waiting + 1) / load.ends_per_second if load.ends_per_second else wait)
    return wait


def pending_tokens(requests: Iterable[Any], left_out: int = 0) -> int:
    """From the requests of a snapshot. Those that it had no room for count as the average of the others."""
    listed, pending = 0, 0
    for request in requests:
        listed += 1
        pending += max(request.prompt_tokens - request.computed_tokens, 0)
    return pending + (left_out * pending // listed if listed else 0)


def ends_per_second(stats: Mapping[str, float], before: Mapping[str, float] | None = None) -> float:
    """Of the engine's counters, now and a while ago: 0 where nothing is known."""
    steps, seconds = stats["steps"], stats["step_seconds_total"]
    if before is not None and steps > before["steps"]:
        step = (seconds - before["step_seconds_total"]) / (steps - before["steps"])
    else:
        step = seconds / steps if steps else 0.0
    ended = stats["requests_finished"] + stats["requests_aborted"]
    running = stats["requests_running"]
    if not ended or not step or not running:
        return 0.0
    return running / (max(stats["tokens_sampled"] / ended, 1.0) * step)
