"""What versions of pagedcore spell differently, in one place. The runs use the words of 0.1. Where the installed
version has others, they are translated here, field by field, so that every step between the two can be compared."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pagedcore
from pagedcore import _core

DATA = Path(__file__).parent.parent / "data" / "v0.1"

RENAMED = {  # in 0.1: later
    "kv_cache_bytes": "kv_cache_memory",
    "swap_bytes": "swap_space",
    "swap_file_bytes": "swap_file_size",
    "max_cache_events": "cache_events",
    "allowed_tokens": "allowed_token_ids",
    "width": "beam_width",
}
WORDS = {"f32": "float32", "bf16": "bfloat16", "heuristic": "false", "immediate": "true"}
_SHARED = {"shared": True} if "shared" in (_core.Engine.register_prefix.__doc__ or "") else {}  # as all were
_TERMS_ARE_KEYWORDS = "salt: int" in (_core.Engine.submit.__doc__ or "")


def _record(kind: Any, fields: dict[str, Any]) -> Any:
    """Unknown names raise: nothing is left out in silence."""
    known = kind().to_dict()
    renamed = {name if name in known else RENAMED.get(name, name): value for name, value in fields.items()}
    try:
        return kind(**renamed)
    except (pagedcore.InvalidArgument, TypeError):
        worded = {name: WORDS.get(v, v) if isinstance(v, str) else v for name, v in renamed.items()}
        if worded == renamed:
            raise
        return kind(**worded)


def engine_config(options: dict[str, Any], cpu: dict[str, Any]) -> Any:
    if options.get("preemption") == "recompute":  # swap space has no effect then, which later versions refuse
        options = {name: value for name, value in options.items() if not name.startswith("swap_")}
    if "cpu" in pagedcore.EngineConfig().to_dict():
        return _record(pagedcore.EngineConfig, {**options, "cpu": _record(pagedcore.CpuOptions, cpu)})
    return _record(pagedcore.EngineConfig, {**options, **cpu})


def scheduler(config: dict[str, Any], cache: dict[str, Any]) -> Any:
    return pagedcore.Scheduler(_record(pagedcore.SchedulerConfig, config), _record(pagedcore.KvCacheConfig, cache))


def clear_prefix_cache(scheduler: Any) -> None:
    owner = scheduler if hasattr(scheduler, "clear_prefix_cache") else scheduler.cache
    owner.clear_prefix_cache()


def sampling(fields: dict[str, Any]) -> Any:
    return _record(_core.SamplingParams, fields)


def beams(fields: dict[str, Any]) -> Any:
    return _record(_core.BeamSearchParams, fields)


def submit(engine: Any, prompt: list[int], params: Any, **terms: Any) -> int:
    """`terms`: prefix, salt, priority, tenant."""
    given = terms if _TERMS_ARE_KEYWORDS else {"options": _core.RequestOptions(**terms)}
    request: int = engine.submit(prompt, params, **given)
    return request


def register_prefix(engine: Any, name: str, tokens: list[int], salt: int) -> int:
    request: int = engine.register_prefix(name, tokens, salt, **_SHARED)
    return request


def release_prefix(engine: Any, name: str, salt: int) -> None:
    engine.release_prefix(name, salt) if _SHARED else engine.release_prefix(name)


def schedule_prefix(scheduler: Any, prefix: int, request: Any) -> None:
    scheduler.register_prefix(prefix, request, **_SHARED)
