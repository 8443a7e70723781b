"""Requests as a plan sees them: their lengths, how bursty they come, what they have in common."""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from ...errors import InvalidArgument, Unsupported
from ..deployment import Deployment
from ..workload import Workload, poisson_workload
from .demand import Array, Lengths

__all__ = ["Arriving"]


@dataclass(frozen=True)
class Arriving:
    """Lengths of requests that come at random, or a trace."""

    lengths: npt.NDArray[Any]
    """(prompt, output) tokens, [requests, 2]."""
    trace: Workload | None
    left_out: int
    """Requests that are too long."""
    _hits: dict[int, Array] = field(default_factory=dict, compare=False)

    @classmethod
    def of(cls, requests: Lengths | Workload, deployment: Deployment) -> Arriving:
        """Without those of max_reservation tokens or more, or more than there are slots. Raises InvalidArgument when
        none are left, Unsupported for several samples of a request."""
        trace = requests if isinstance(requests, Workload) else None
        if trace is not None and (trace.num_samples != 1 or trace.beam_width):
            raise Unsupported("a plan is for requests of one sample each: simulate others")
        if trace is not None:
            requests = trace.lengths
        if len(requests) == 0:
            raise InvalidArgument("there are no requests to plan for")
        lengths = np.asarray(requests)
        if lengths.ndim != 2 or lengths.shape[1] != 2 or not (lengths >= 1).all() or not np.isfinite(lengths).all():
            raise InvalidArgument("requests are pairs of a prompt's and an output's tokens, each 1 or more")
        most = min(deployment.max_reservation, deployment.slots // deployment.block_size * deployment.block_size)
        fits = lengths.sum(axis=1) < most
        if not fits.any():
            raise InvalidArgument(
                f"none of the {len(lengths):,} requests has less than {most:,} tokens (prompt and output), which is "
                f"what the model's context and the {deployment.slots:,} slots of {deployment.name} hold"
            )
        return cls(lengths[fits], None if trace is None else trace.shorter_than(most), int((~fits).sum()))

    @property
    def arrivals(self) -> Array | None:
        """Seconds; None: at random, as it is for a trace that has no extent in time."""
        if self.trace is None or not self.trace.rate < math.inf:
            return None
        return np.array(self.trace.arrivals)

    @property
    def shares(self) -> bool:
        """Whether a prompt begins like an earlier one."""
        first = [prompt[0] for prompt in self.trace.prompts] if self.trace is not None else []
        return len(set(first)) < len(first)

    def cached(self, slots: int) -> Array | None:
        """Tokens of each prompt that a cache of so many tokens still has of earlier ones, if it keeps the latest."""
        if self.trace is None or not self.shares:
            return None
        if slots not in self._hits:
            self._hits[slots] = np.array(_hits(self.trace, slots), float)
        return self._hits[slots]

    def workload(self, rate: float, seconds: float) -> Workload:
        """Requests that come at this rate for so many seconds: at random, or as in the trace, while it lasts."""
        if self.trace is not None and self.arrivals is not None:
            return self.trace.at_rate(rate).first(seconds)
        mixed = np.random.RandomState(0).permutation(self.lengths)  # a list may begin unlike it goes on
        return poisson_workload(mixed.tolist(), rate, seconds, max_tokens=1 << 62)


def _hits(trace: Workload, slots: int) -> list[int]:
    cache: OrderedDict[int, int] = OrderedDict()
    held, found = 0, []
    for prompt, output in zip(trace.prompts, trace.outputs, strict=True):
        hit, known, key = 0, True, 0
        for content, tokens in prompt:
            key = hash((key, content, tokens))
            if key in cache:
                cache.move_to_end(key)
                hit += tokens if known else 0
                continue
            known = False
            cache[key] = tokens
            held += tokens
        key = hash((key, "output"))
        cache[key] = output
        held += output
        while held > slots:
            held -= cache.popitem(last=False)[1]
        found.append(hit)
    return found
