"""Flags that say which requests arrive, and when."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from ...errors import InvalidArgument

if TYPE_CHECKING:
    from ...lab import Workload

__all__ = ["Arrivals", "add_arrival_flags", "add_request_flags", "listed", "read_arrivals", "read_requests"]

T = TypeVar("T")
_HISTOGRAMS = ("sharegpt", "alpaca")
_SECONDS = 3600.0  # as most traces of the paper


@dataclass(frozen=True)
class Arrivals:
    """The same requests at one or several rates."""

    about: str
    workloads: dict[float | None, Workload]
    """By rate; None: as the trace was recorded."""


def add_request_flags(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--trace", metavar="FILE", help="a recorded trace: requests with their times, in Azure's or Mooncake's format"
    )
    group.add_argument(
        "--lengths",
        metavar="NAME",
        help="lengths of requests: sharegpt (default) or alpaca, from the paper's histograms; or a file",
    )


def add_arrival_flags(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("requests")
    add_request_flags(group)
    group.add_argument("--rate", metavar="R,...", help="requests a second (default: the trace's own rate)")
    group.add_argument(
        "--seconds", type=float, metavar="S", help="for how long requests arrive (default: the trace's length, or 3600)"
    )


def listed(arguments: argparse.Namespace, name: str, kind: Callable[[str], T], *, distinct: bool = True) -> list[T]:
    """The values of a flag that may have several, separated by commas; none when it is not given."""
    text = getattr(arguments, name.replace("-", "_"))
    if text is None:
        return []
    values = []
    for part in text.split(","):
        try:
            values.append(kind(part.strip()))
        except ValueError:
            what = "whole number" if kind is int else "number"
            raise InvalidArgument(f"--{name} {text}: {part!r} is no {what}; several are separated by commas") from None
    if distinct and len(set(values)) < len(values):
        raise InvalidArgument(f"--{name} {text} names a value twice")
    return values


def read_requests(arguments: argparse.Namespace) -> tuple[str, Workload | list[tuple[int, int]]]:
    """The requests that the flags name: of a trace with their times, else (prompt, output) lengths."""
    from ...lab import Workload, paper_lengths, read_trace

    if arguments.trace is not None and arguments.lengths is not None:
        raise InvalidArgument("--trace and --lengths both say which requests there are: give one of them")
    if arguments.trace is not None:
        return arguments.trace, read_trace(arguments.trace)
    name = arguments.lengths or "sharegpt"
    if name in _HISTOGRAMS:
        return f"{name} lengths (from the paper's histograms)", paper_lengths(name)
    requests = read_trace(name)
    return name, requests.lengths if isinstance(requests, Workload) else requests


def read_arrivals(arguments: argparse.Namespace, *, max_tokens: int) -> Arrivals:
    """The requests that the flags ask for, without those whose prompt and output make max_tokens or more."""
    from ...lab import Workload

    name, requests = read_requests(arguments)
    rates = listed(arguments, "rate", float)
    if isinstance(requests, Workload):
        return _played(name, requests, rates, arguments.seconds, max_tokens)
    return _at_random(name, requests, rates, arguments.seconds, max_tokens)


def _played(name: str, trace: Workload, rates: list[float], seconds: float | None, max_tokens: int) -> Arrivals:
    kept = trace.shorter_than(max_tokens)
    workloads: dict[float | None, Workload] = {rate: kept.at_rate(rate) for rate in rates} or {None: kept}
    if seconds is not None:
        workloads = {rate: workload.first(seconds) for rate, workload in workloads.items()}
    if not all(workloads.values()):
        why = (
            f"in the first {seconds:g} s"
            if kept
            else f"of less than {max_tokens:,} tokens, which is what can be served"
        )
        raise InvalidArgument(f"{name} has no request {why}")
    times = "their times stretched to the rate" if rates else f"{kept.rate:.3g} a second, at their times"
    about = f"{name}: {len(next(iter(workloads.values()))):,} requests, {times}"
    return Arrivals(about + _left_out(len(trace), len(kept), max_tokens), workloads)


def _at_random(
    name: str, lengths: list[tuple[int, int]], rates: list[float], seconds: float | None, max_tokens: int
) -> Arrivals:
    from ...lab import poisson_workload

    if not rates:
        raise InvalidArgument(f"--rate is missing: {name} say nothing about when requests arrive")
    seconds = _SECONDS if seconds is None else seconds
    workloads: dict[float | None, Workload] = {
        rate: poisson_workload(lengths, rate, seconds, max_tokens=max_tokens) for rate in rates
    }
    for rate, workload in workloads.items():
        if not workload:
            raise InvalidArgument(f"at --rate {rate:g} no request arrives in {seconds:g} s")
    kept = sum(sum(pair) < max_tokens for pair in lengths)
    about = f"{name}, arriving at random for {seconds:,.0f} s"
    return Arrivals(about + _left_out(len(lengths), kept, max_tokens), workloads)


def _left_out(all_of_them: int, kept: int, max_tokens: int) -> str:
    left = all_of_them - kept
    return f"; {left:,} of {all_of_them:,} left out, as they have {max_tokens:,} tokens or more" if left else ""
