"""One amount of memory for several models."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import InvalidArgument
from ..memory import MemoryReport, format_bytes

__all__ = ["Planned", "share_out"]

_FEW = 64  # blocks with which a model is planned before its share is known
_MOST_REQUESTS = 1 << 30


@dataclass(frozen=True)
class Planned:
    """A model that is to be loaded. ``plan``: its memory under options of an engine, by arithmetic."""

    name: str
    options: Mapping[str, Any]
    plan: Callable[[Mapping[str, Any]], MemoryReport]


def share_out(memory: int, models: Sequence[Planned]) -> list[dict[str, Any]]:
    """Options for each model, with which all of them together take at most ``memory`` bytes: weights, activations, KV
    caches, swap spaces and requests. Requests of a model without ``request_memory`` get a sixteenth of it, at most
    1 GiB. KV caches without a size of their own share evenly what is then left. Raises InvalidArgument, with the
    arithmetic, where they do not fit."""
    requests = min(memory // 16, _MOST_REQUESTS)
    options = [{"request_memory": requests, **_given(model.options)} for model in models]
    unsized = [not ({"kv_cache_memory", "num_blocks"} & given.keys()) for given in options]
    few = [{**given, "num_blocks": _FEW} if free else given for given, free in zip(options, unsized, strict=True)]
    plans = [model.plan(each) for model, each in zip(models, few, strict=True)]
    fixed = [p.total - (p.kv_cache if free else 0) for p, free in zip(plans, unsized, strict=True)]
    rest = memory - sum(fixed)
    if rest < 0 or (rest == 0 and any(unsized)):
        parts = ", ".join(f"{model.name} {format_bytes(size)}" for model, size in zip(models, fixed, strict=True))
        without = " without KV caches that have no size of their own" if any(unsized) else ""
        raise InvalidArgument(
            f"memory={format_bytes(memory)} is too little: the models take {format_bytes(sum(fixed))}{without} "
            f"({parts}): raise it, or serve fewer models"
        )
    share = rest // max(sum(unsized), 1)
    for model, given, free, plan in zip(models, options, unsized, plans, strict=True):
        if not free:
            continue
        if share < 2 * plan.kv_block:
            raise InvalidArgument(
                f"memory={format_bytes(memory)} leaves {format_bytes(share)} for the KV cache of {model.name}, whose "
                f"blocks take {format_bytes(plan.kv_block)} each: raise it, or serve fewer models"
            )
        given["kv_cache_memory"] = share
    return options


def _given(options: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}
