"""What arrives when: requests by their lengths and contents."""

from __future__ import annotations

import math
import random
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from .. import _core
from ..checks import check_int
from ..errors import InvalidArgument

__all__ = ["Workload", "poisson_arrivals", "poisson_workload", "shared_prefix_workload"]

Prompt = list[tuple[int, int]]
"""Parts of (content, tokens). Equal contents are equal tokens."""


@dataclass(frozen=True)
class Workload:
    """Requests in order of arrival."""

    arrivals: list[float]
    """Seconds."""
    prompts: list[Prompt]
    outputs: list[int]
    """Tokens that every sample generates."""
    num_samples: int = 1
    """Samples of every request."""
    beam_width: int = 0
    """Beams of every request, instead of samples."""
    max_tokens: int | None = None
    """What every request asks for, not knowing that it will stop earlier. None: each just what it generates."""
    priorities: list[int] | None = None
    """Priority of every request; higher goes first under ``order="priority"``. None: all alike."""
    tenants: list[int] | None = None
    """Who is served by every request, for ``order="fair"``. None: one for all."""

    def __post_init__(self) -> None:
        if not len(self.arrivals) == len(self.prompts) == len(self.outputs):
            raise InvalidArgument(
                f"{len(self.arrivals)} arrivals, {len(self.prompts)} prompts and {len(self.outputs)} outputs: "
                "give one of each for every request"
            )
        for name, values, low, high in (
            ("priorities", self.priorities, -_core.MOST_PRIORITY, _core.MOST_PRIORITY),
            ("tenants", self.tenants, 0, 2**64 - 1),
        ):
            if values is None:
                continue
            if len(values) != len(self):
                raise InvalidArgument(f"{len(values)} {name} for {len(self)} requests: give one for each, or None")
            for index, value in enumerate(values):
                check_int(f"{name}[{index}]", value, low, high)
        check_int("num_samples", self.num_samples, 1, 2**31 - 1)
        check_int("beam_width", self.beam_width, 0, 2**31 - 1)
        if self.max_tokens is not None:
            check_int("max_tokens", self.max_tokens, 1, _core.NO_TOKEN_LIMIT)

    def __len__(self) -> int:
        return len(self.arrivals)

    def with_samples(self, num_samples: int = 1, *, beam_width: int = 0) -> Workload:
        """The same requests, each with so many samples, or as beam searches."""
        if num_samples < 1 or beam_width < 0 or (num_samples > 1 and beam_width > 0):
            raise InvalidArgument(
                f"num_samples={num_samples} and beam_width={beam_width}: a request has 1 sample or more, or is a beam "
                "search"
            )
        return replace(self, num_samples=num_samples, beam_width=beam_width)

    def among(self, shares: Sequence[float], *, seed: int = 0) -> Workload:
        """The same requests, dealt at random to tenants 0, 1, ... in these shares; the first has priority over the
        second, and so on."""
        if not shares or not all(0 < share < math.inf for share in shares):
            raise InvalidArgument(f"{shares!r}: shares of tenants are positive numbers, one at least")
        tenants = random.Random(seed).choices(range(len(shares)), shares, k=len(self))
        return replace(self, tenants=tenants, priorities=[-tenant for tenant in tenants])

    def of_tenant(self, tenant: int) -> Workload:
        return self._chosen(number for number, one in enumerate(self.tenants or ()) if one == tenant)

    @property
    def rate(self) -> float:
        """Requests a second, from the first arrival to the last; infinity when they come all at once."""
        span = self.arrivals[-1] - self.arrivals[0] if self.arrivals else 0.0
        return (len(self) - 1) / span if span > 0 else math.inf

    def at_rate(self, rate: float) -> Workload:
        """The same requests, their times stretched or compressed so that they come at this rate on average."""
        _check_rate(rate)
        if not math.isfinite(self.rate):
            raise InvalidArgument(f"{len(self)} requests that arrive at one time cannot be played at rate={rate:g}")
        start, factor = self.arrivals[0], self.rate / rate
        return replace(self, arrivals=[start + (time - start) * factor for time in self.arrivals])

    def first(self, seconds: float) -> Workload:
        """Those that arrive within so many seconds."""
        return self._chosen(range(bisect_left(self.arrivals, seconds)))

    def shorter_than(self, max_tokens: int) -> Workload:
        """Those whose prompt and output make less."""
        return self._chosen(number for number, pair in enumerate(self.lengths) if sum(pair) < max_tokens)

    @property
    def lengths(self) -> list[tuple[int, int]]:
        """(prompt, output) tokens of each."""
        prompts = (sum(tokens for _, tokens in prompt) for prompt in self.prompts)
        return list(zip(prompts, self.outputs, strict=True))

    def _chosen(self, which: Iterable[int]) -> Workload:
        kept = list(which)
        return replace(
            self,
            arrivals=[self.arrivals[number] for number in kept],
            prompts=[self.prompts[number] for number in kept],
            outputs=[self.outputs[number] for number in kept],
            priorities=self.priorities and [self.priorities[number] for number in kept],
            tenants=self.tenants and [self.tenants[number] for number in kept],
        )


def poisson_arrivals(rate: float, seconds: float, *, seed: int = 0) -> list[float]:
    """Seconds at which `rate` requests a second arrive: a Poisson number at every hundredth of a second. The same
    arguments give the same times, with any numpy."""
    _check_rate(rate)
    if not (0 < seconds <= 1e7):
        raise InvalidArgument(f"seconds={seconds!r} is how long requests arrive: more than 0, and 10^7 at most")
    quantum = 0.01
    counts = np.random.RandomState(seed).poisson(rate * quantum, round(seconds / quantum))
    arrivals: list[float] = np.repeat(np.arange(len(counts)) * quantum, counts).tolist()
    return arrivals


def poisson_workload(
    lengths: Sequence[tuple[int, int]],
    rate: float,
    seconds: float,
    *,
    max_tokens: int = 2048,
    seed: int = 0,
) -> Workload:
    """Requests of these (prompt, output) lengths at `rate` a second for so many seconds.

    By the rules of the PagedAttention paper's trace generator: arrivals as of poisson_arrivals(); pairs of max_tokens
    or more are dropped; the first ones are taken, in their order and again from the start when there are too few, and
    then shuffled. The same arguments give the same requests.
    """
    pairs = [pair for pair in lengths if sum(pair) < max_tokens]
    if not pairs:
        raise InvalidArgument(f"none of the {len(lengths)} pairs of lengths makes less than max_tokens={max_tokens}")
    arrivals = poisson_arrivals(rate, seconds, seed=seed)
    chosen = [pairs[i % len(pairs)] for i in range(len(arrivals))]
    random.Random(seed).shuffle(chosen)
    prompts = [[(number, prompt)] for number, (prompt, _) in enumerate(chosen, 1)]
    return Workload(arrivals, prompts, [output for _, output in chosen])


def shared_prefix_workload(
    lengths: Sequence[tuple[int, int]],
    rate: float,
    seconds: float,
    *,
    prefix: int,
    max_tokens: int = 2048,
    seed: int = 0,
) -> Workload:
    """A poisson_workload() of which every prompt begins with the same `prefix` tokens, as instructions and examples do;
    the lengths are of what follows."""
    if prefix < 1:
        raise InvalidArgument(f"prefix={prefix!r} is how many tokens all prompts begin with, one at least")
    requests = poisson_workload(lengths, rate, seconds, max_tokens=max_tokens - prefix, seed=seed)
    return replace(requests, prompts=[[(0, prefix), *prompt] for prompt in requests.prompts])


def _check_rate(rate: float) -> None:
    if not (rate > 0 and math.isfinite(rate)):
        raise InvalidArgument(f"rate={rate!r} is requests a second, a positive number")
