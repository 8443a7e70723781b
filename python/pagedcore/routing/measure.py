"""What a real replica measures of itself, in the terms of :class:`Load`."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from .. import _core
from .digest import PrefixTracker
from .load import Load, ends_per_second, pending_tokens
from .router import News

__all__ = ["Reporter", "fit_steps"]

_LISTED = _core.SnapshotLimits(max_requests=512, max_cells=1, max_entries=0)
_FEWEST = 8  # steps that a line is put through


def fit_steps(steps: Sequence[Any]) -> tuple[float, float]:
    """Seconds of a step by its tokens of prompts and by its sequences, from the latest steps (StepPicture): what each
    of them adds. Where these do not tell, a token takes its share of all seconds, and sequences nothing."""
    rows = [(step.prefill_tokens, step.sequences, step.seconds) for step in steps]
    tokens, sequences, seconds = np.array(rows, float).reshape(-1, 3).T
    if not len(rows) or not seconds.sum() > 0:
        return 0.0, 0.0
    if len(rows) >= _FEWEST and tokens.any() and np.ptp(tokens) > 0:
        design = np.stack([np.ones(len(rows)), tokens, sequences], axis=1)
        found = np.linalg.lstsq(design, seconds, rcond=None)[0]
        if found[1] > 0:
            return float(found[1]), max(float(found[2]), 0.0)
    computed = tokens.sum() + sequences.sum()
    return float(seconds.sum() / computed) if computed else 0.0, 0.0


class Reporter:
    """Makes the news of one engine, whose cache events nobody else may take. One thread at a time."""

    def __init__(self, engine: _core.Engine, max_sequences: int) -> None:
        """``max_sequences``: the engine's option."""
        self._engine = engine
        self._max_sequences = max_sequences
        self._block_size = engine.memory_plan.block_size
        self._tracker = PrefixTracker(self._block_size)
        self._before: tuple[float, dict[str, float]] | None = None
        self._rates = 0.0, 0.0

    def news(self) -> News:
        """Waits for the end of the step that is under way. Raises Aborted where the engine has failed."""
        self._tracker.take(self._engine.cache_events(0.0))
        picture = self._engine.snapshot(_LISTED)
        stats, now = self._engine.stats(), time.monotonic()
        before = self._before
        self._before = now, stats
        if len(picture.steps) and (before is None or stats["steps"] > before[1]["steps"]):
            token, sequence = fit_steps(picture.steps)
            self._rates = token or self._rates[0], sequence
        ended = stats["requests_finished"] + stats["requests_aborted"]
        busy = 0.0
        if before is not None and now > before[0]:
            computed = stats["tokens_computed"] - before[1]["tokens_computed"]
            busy = max(computed, 0.0) * self._rates[0] / (now - before[0])
        load = Load(
            waiting=int(stats["requests_waiting"]),
            running=int(stats["requests_running"]),
            pending_tokens=pending_tokens(picture.requests, picture.requests_left_out),
            blocks_total=int(stats["blocks_total"]),
            blocks_free=int(stats["blocks_free"] + stats["blocks_cached"]),
            block_size=self._block_size,
            max_sequences=self._max_sequences,
            token_seconds=self._rates[0],
            crowd_seconds=self._rates[1] * (stats["tokens_sampled"] / ended if ended else 0.0),
            ends_per_second=ends_per_second(stats, None if before is None else before[1]),
            busy=busy,
        )
        return News(load, self._tracker.digest())
