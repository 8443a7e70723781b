"""What versions of pagedcore spell differently, in one place. The runs use the words of 0.1; a later version that has
others gets them here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pagedcore
from pagedcore import _core

DATA = Path(__file__).parent.parent / "data" / "v0.1"


def engine_config(options: dict[str, Any], cpu: dict[str, Any]) -> Any:
    return pagedcore.EngineConfig(**options, cpu=pagedcore.CpuOptions(**cpu))


def scheduler(config: dict[str, Any], cache: dict[str, Any]) -> Any:
    return pagedcore.Scheduler(pagedcore.SchedulerConfig(**config), pagedcore.KvCacheConfig(**cache))


def clear_prefix_cache(scheduler: Any) -> None:
    owner = scheduler if hasattr(scheduler, "clear_prefix_cache") else scheduler.cache
    owner.clear_prefix_cache()


def sampling(fields: dict[str, Any]) -> Any:
    return _core.SamplingParams(**fields)


def beams(fields: dict[str, Any]) -> Any:
    return _core.BeamSearchParams(**fields)


def submit(engine: Any, prompt: list[int], params: Any, **terms: Any) -> int:
    """`terms`: prefix, salt, priority, tenant."""
    request: int = engine.submit(prompt, params, **terms)
    return request


def register_prefix(engine: Any, name: str, tokens: list[int], salt: int) -> int:
    request: int = engine.register_prefix(name, tokens, salt)
    return request
