"""The paper's figures, from the shipped scheduler: ours beside theirs."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from typing import Any, Literal, cast

from ..errors import InvalidArgument
from .deployment import Deployment, paper_batch
from .lengths import paper_data, paper_lengths
from .run import simulate
from .workload import Workload, poisson_workload

__all__ = ["FIGURES", "Figure", "Value", "reproduce", "sustained_rate"]

Lengths = Sequence[tuple[int, int]]
LATENCY_GOAL = 0.2
"""Seconds per token at which sustained rates are compared."""
_SYSTEMS: dict[str, Literal["paged", "max", "pow2", "oracle"]] = {
    "Orca (Max)": "max",
    "Orca (Pow2)": "pow2",
    "Orca (Oracle)": "oracle",
    "vLLM": "paged",
}
_TOP = 1.3  # s/token: points of the paper above this are where a line leaves its plot


@dataclass(frozen=True)
class Value:
    """One number of a figure."""

    series: str
    at: str
    ours: float
    paper: float | None


@dataclass(frozen=True)
class Figure:
    """What came out, and what the paper has."""

    name: str
    title: str
    unit: str
    values: list[Value]
    constants: dict[str, Any]
    """Of the cost model, in seconds."""
    notes: list[str]

    def of(self, series: str, at: str) -> Value:
        return next(value for value in self.values if value.series == series and value.at == at)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def __str__(self) -> str:
        rows = [
            ("", "at", "ours", "paper"),
            *((v.series, v.at, _number(v.ours), _number(v.paper)) for v in self.values),
        ]
        widths = [max(len(row[column]) for row in rows) for column in range(4)]
        lines = [f"{a:<{widths[0]}}  {b:<{widths[1]}}  {c:>{widths[2]}}  {d:>{widths[3]}}" for a, b, c, d in rows]
        constants = ", ".join(f"{name} {value:.3g}" for name, value in self.constants.items() if value)
        return "\n".join(
            [f"Figure {self.name}: {self.title} ({self.unit})", *lines, f"costs in s: {constants}", *self.notes]
        )


def reproduce(
    name: str,
    lengths: Lengths | None = None,
    *,
    seconds: float | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Figure:
    """One of FIGURES. `lengths`: real ShareGPT lengths, where the figure is about those; None: the paper's histograms.
    `seconds`: shorter traces than the paper's. Raises InvalidArgument for an unknown figure."""
    if name not in FIGURES:
        raise InvalidArgument(f"figure {name!r} is not simulated; there are: {', '.join(FIGURES)}")
    return FIGURES[name](name, lengths, seconds, progress or (lambda done, total: None))


def sustained_rate(latency: Callable[[float], float], guess: float, *, goal: float = LATENCY_GOAL) -> float:
    """The rate at which a latency that grows with it reaches the goal: brackets of 2 %, then along the logarithms.
    0 when even a ten-thousandth of the guess is too much; infinity when ten thousand times as much is not."""
    low = high = guess
    below = above = latency(guess)
    while below >= goal:
        high, above = low, below
        low /= 1.3
        if low < guess / 1e4:
            return 0.0
        below = latency(low)
    while not above >= goal:
        low, below = high, above
        high *= 1.3
        if high > guess * 1e4:
            return math.inf
        above = latency(high)
    while high / low > 1.02:
        middle = math.sqrt(low * high)
        found = latency(middle)
        if found >= goal:
            high, above = middle, found
        else:
            low, below = middle, found
    return low * math.pow(high / low, math.log(goal / below) / math.log(above / below))


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def _map(jobs: Sequence[Callable[[], Any]], progress: Callable[[int, int], None]) -> list[Any]:
    """In parallel: simulations run without the interpreter's lock."""
    with ThreadPoolExecutor() as pool:
        futures = [pool.submit(job) for job in jobs]
        results = []
        for future in futures:
            results.append(future.result())
            progress(len(results), len(jobs))
        return results


def _dataset(name: str, lengths: Lengths | None) -> Lengths:
    return lengths if lengths is not None and name == "sharegpt" else paper_lengths(name)


def _source(name: str, lengths: Lengths | None) -> str:
    given = lengths is not None and name == "sharegpt"
    return f"{'ShareGPT' if name == 'sharegpt' else 'Alpaca'} lengths: " + (
        "a list of real ones" if given else "drawn from the paper's histograms"
    )


def _curve_crossing(points: Sequence[Sequence[float]]) -> float:
    """Where a curve of the paper reaches the goal."""
    for (x0, y0), (x1, y1) in pairwise(points):
        if y0 < LATENCY_GOAL <= y1:
            return x0 + (x1 - x0) * (LATENCY_GOAL - y0) / (y1 - y0)
    return points[-1][0]


def _figure_2(name: str, lengths: Lengths | None, seconds: float | None, progress: Any) -> Figure:
    deployment = Deployment.of_paper("opt-13b")
    end = seconds or 900.0
    workload = poisson_workload(_dataset("sharegpt", lengths), 4, end)
    jobs = [
        lambda policy=policy: (
            simulate(workload, replace(deployment, allocation=policy), window=(end / 3, end), stop=end).report
        )
        for policy in _SYSTEMS.values()
    ]
    values = []
    for system, report in zip(_SYSTEMS, _map(jobs, progress), strict=True):
        paper = paper_data()["fig2_percent"][system]
        shares = {"token_states": report.token_states, "reservation": report.reserved, "internal": report.internal}
        if system == "vLLM":  # blocks are taken as they are filled: what they lack is in their last one
            shares["reservation"], shares["internal"] = 0.0, report.allocated - report.token_states
        shares["external_other"] = 1 - sum(shares.values())
        values += [Value(system, slot, 100 * share, paper[slot]) for slot, share in shares.items()]
    notes = [
        _source("sharegpt", lengths),
        "The paper draws vLLM's reservation and internal share as half each of what is not allocated.",
    ]
    return Figure(
        name, "memory, OPT-13B, ShareGPT at 4 requests/s", "% of slots", values, deployment.cost.to_dict(), notes
    )


def _figure_13(name: str, lengths: Lengths | None, seconds: float | None, progress: Any) -> Figure:
    deployment = Deployment.of_paper("opt-13b")
    end = seconds or 3600.0
    values = []
    for dataset, rate in (("sharegpt", 2), ("alpaca", 30)):
        workload = poisson_workload(_dataset(dataset, lengths), rate, end)
        jobs = [
            lambda policy=policy, workload=workload: (
                simulate(workload, replace(deployment, allocation=policy), window=(end / 6, end), stop=end).report
            )
            for policy in _SYSTEMS.values()
        ]
        for system, report in zip(_SYSTEMS, _map(jobs, progress), strict=True):
            paper = paper_data()["fig13_batched"][f"{dataset}_{rate}rps"][system]
            values.append(Value(system, f"{dataset} {rate}/s", report.requests, paper))
    notes = [
        _source("sharegpt", lengths),
        "The paper's 132 for Alpaca is not bound by memory but by its engine's speed.",
    ]
    return Figure(name, "average batched requests, OPT-13B", "requests", values, deployment.cost.to_dict(), notes)


_FIGURE_12 = {
    "12a": ("a_opt13b_sharegpt", "opt-13b", "sharegpt", 3600),
    "12b": ("b_opt66b_sharegpt", "opt-66b", "sharegpt", 3600),
    "12c": ("c_opt175b_sharegpt", "opt-175b", "sharegpt", 900),
    "12d": ("d_opt13b_alpaca", "opt-13b", "alpaca", 3600),
    "12e": ("e_opt66b_alpaca", "opt-66b", "alpaca", 3600),
    "12f": ("f_opt175b_alpaca", "opt-175b", "alpaca", 900),
}


def _figure_12(name: str, lengths: Lengths | None, seconds: float | None, progress: Any) -> Figure:
    panel, model, dataset, own_seconds = _FIGURE_12[name]
    deployment = Deployment.of_paper(model)
    curves = paper_data()["fig12"][panel]
    pairs = _dataset(dataset, lengths)
    size, step = paper_batch(model, dataset)
    systems = {"FasterTransformer": deployment.request_level(size, step=step)}
    systems |= {system: replace(deployment, allocation=policy) for system, policy in _SYSTEMS.items()}
    notes = [_source(dataset, lengths), f"sustained: requests/s at {LATENCY_GOAL} s per token"]
    return _curves(name, f"{model}, {dataset}", systems, curves, pairs, seconds or own_seconds, progress, notes)


def _curves(
    name: str,
    title: str,
    systems: dict[str, Deployment],
    curves: dict[str, list[list[float]]],
    pairs: Lengths,
    seconds: float,
    progress: Any,
    notes: list[str],
    shape: Callable[[Workload], Workload] = lambda workload: workload,
) -> Figure:
    """Latency at the paper's rates, and the sustained rates."""

    def latency(system: str, rate: float) -> float:
        return simulate(shape(poisson_workload(pairs, rate, seconds)), systems[system]).normalized_latency

    def points() -> Iterator[tuple[str, float, float]]:
        for system in systems:
            for rate, paper in curves[system]:
                if paper < _TOP:
                    yield system, rate, paper

    asked = list(points())
    jobs: list[Callable[[], float]] = [lambda s=s, r=r: latency(s, r) for s, r, _ in asked]  # type: ignore[misc]
    crossings = {system: _curve_crossing(curves[system]) for system in systems}
    jobs += [lambda s=s: sustained_rate(lambda rate: latency(s, rate), crossings[s]) for s in systems]  # type: ignore[misc]
    found = _map(jobs, progress)
    values = [Value(s, f"{r:g}/s", ours, paper) for (s, r, paper), ours in zip(asked, found, strict=False)]
    values += [Value(s, "sustained", ours, crossings[s]) for s, ours in zip(systems, found[len(asked) :], strict=True)]
    return Figure(name, title, "s/token; sustained: requests/s", values, systems["vLLM"].cost.to_dict(), notes)


FIGURES = cast(
    "dict[str, Callable[[str, Lengths | None, float | None, Callable[[int, int], None]], Figure]]",
    {"2": _figure_2, **dict.fromkeys(_FIGURE_12, _figure_12), "13": _figure_13},
)
"""By the paper's numbers."""
