"""Several runs beside each other: rates, policies, whatever their workloads and deployments differ in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from .deployment import Deployment
from .run import Outcome, simulate
from .workload import Workload

__all__ = ["Comparison", "Trial", "compare"]

_WATCH = 0.1  # seconds between looks at runs that are under way


@dataclass(frozen=True)
class Trial:
    """One run of a comparison."""

    varied: dict[str, Any]
    """What it differs in from the others, by name."""
    workload: Workload
    deployment: Deployment


@dataclass(frozen=True)
class Comparison:
    """What came of each trial."""

    trials: list[Trial]
    outcomes: list[Outcome]

    @property
    def common(self) -> dict[str, Any]:
        """What all trials have alike of what they name."""
        first = self.trials[0].varied
        return {name: value for name, value in first.items() if all(t.varied[name] == value for t in self.trials)}

    def to_dict(self) -> list[dict[str, Any]]:
        return [
            {**trial.varied, **outcome.to_dict()} for trial, outcome in zip(self.trials, self.outcomes, strict=True)
        ]

    def __str__(self) -> str:
        """A single run as a list, several as a table with a line for each."""
        runs = self.to_dict()
        if len(runs) == 1 and not runs[0]["tenants"]:
            return _listing(runs[0])
        varied = [name for name in self.trials[0].varied if name not in self.common]
        shown = [column for column in _COLUMNS if column.shown is None or any(map(column.shown, runs))]
        rows = []
        for run in runs:
            label = [str(run[name]) for name in varied]
            rows.append([*label, "all", *(column.text(run) for column in shown)])
            for tenant in run["tenants"]:
                told = (column.text(tenant) if column.of_tenants else "" for column in shown)
                rows.append([*label, str(tenant["tenant"]), *told])
        names, groups = [*varied, "tenant"], [""] * (len(varied) + 1)
        if not any(run["tenants"] for run in runs):
            names, groups = names[:-1], groups[:-1]
            rows = [row[: len(varied)] + row[len(varied) + 1 :] for row in rows]
        return _table(groups + [column.group for column in shown], names + [column.name for column in shown], rows)


def compare(trials: Sequence[Trial], *, progress: Callable[[int], None] | None = None) -> Comparison:
    """Runs them in parallel, as simulations do not hold the interpreter's lock. Raises what :func:`simulate` raises.

    Args:
        progress: Called now and then, by this thread, with the number of requests that have ended.
    """
    finished = [0] * len(trials)
    stopped = False

    def watch(number: int, done: int) -> None:
        finished[number] = done
        if stopped:
            raise InterruptedError

    def run(number: int) -> Outcome:
        trial = trials[number]
        return simulate(trial.workload, trial.deployment, progress=lambda done, _: watch(number, done))

    with ThreadPoolExecutor() as pool:
        futures = [pool.submit(run, number) for number in range(len(trials))]
        try:
            waiting = True
            while waiting:
                ended, others = wait(futures, timeout=_WATCH, return_when=FIRST_EXCEPTION)
                waiting = bool(others) and not any(future.exception() for future in ended)
                if progress is not None:
                    progress(sum(finished))
        finally:
            stopped = True  # an error or Ctrl-C: the others end at their next look
            pool.shutdown(wait=False, cancel_futures=True)
    for future in futures:
        if not future.cancelled() and (error := future.exception()) and not isinstance(error, InterruptedError):
            raise error
    return Comparison(list(trials), [future.result() for future in futures])


@dataclass(frozen=True)
class _Column:
    group: str
    name: str
    text: Callable[[dict[str, Any]], str]
    shown: Callable[[dict[str, Any]], bool] | None = None
    """Whether a run has something to say here; None: always."""

    @property
    def of_tenants(self) -> bool:
        return self.group in _LATENCIES


def _percentile(metric: str, which: str, scale: float) -> Callable[[dict[str, Any]], str]:
    return lambda run: "-" if run[metric] is None else _number(scale * run[metric][which])


def _percent(name: str) -> Callable[[dict[str, Any]], str]:
    return lambda run: f"{100 * run[name]:.1f}"


def _number(value: float) -> str:
    """Three digits that count."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}" if value >= 0.1 else f"{value:.3f}"


_LATENCIES = ("s/token", "first s", "then ms")
_COLUMNS = (
    _Column("s/token", "mean", _percentile("normalized_latency", "mean", 1)),
    _Column("s/token", "p50", _percentile("normalized_latency", "p50", 1)),
    _Column("s/token", "p99", _percentile("normalized_latency", "p99", 1)),
    _Column("first s", "p50", _percentile("time_to_first_token", "p50", 1)),
    _Column("first s", "p99", _percentile("time_to_first_token", "p99", 1)),
    _Column("then ms", "p50", _percentile("time_per_output_token", "p50", 1000)),
    _Column("then ms", "p99", _percentile("time_per_output_token", "p99", 1000)),
    _Column("a second", "requests", lambda run: _number(run["requests_per_second"])),
    _Column("a second", "tokens", lambda run: _number(run["output_tokens_per_second"])),
    _Column("", "batch", lambda run: _number(run["batched_requests"])),
    _Column("KV %", "filled", _percent("kv_token_states")),
    _Column("KV %", "taken", _percent("kv_allocated")),
    _Column("", "preempted", lambda run: f"{_preemptions(run):,}", lambda run: _preemptions(run) > 0),
    _Column("", "shared %", _percent("sharing_saves"), lambda run: run["sharing_saves"] > 0.0005),
    _Column("", "hits %", _percent("prefix_hits"), lambda run: run["prefix_hits"] > 0.0005),
)


def _preemptions(run: dict[str, Any]) -> int:
    count: int = run["preemptions_recompute"] + run["preemptions_swap"]
    return count


def _table(groups: list[str], names: list[str], rows: list[list[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(names, *rows, strict=True)]
    head = []
    for group, columns in groupby(range(len(names)), key=lambda column: groups[column] or -column):
        span = [widths[column] for column in columns]
        head.append(str(group if isinstance(group, str) else "").center(sum(span) + 2 * (len(span) - 1)))
    lines = [[text.rjust(width) for text, width in zip(row, widths, strict=True)] for row in [names, *rows]]
    return "\n".join("  ".join(line).rstrip() for line in [head, *lines])


def _listing(run: dict[str, Any]) -> str:
    columns = ("mean", "p50", "p90", "p99", "max")
    lines = [f"{'seconds':<24}" + "".join(f"{name:>10}" for name in columns)]
    for metric in ("normalized_latency", "time_to_first_token", "time_per_output_token"):
        numbers = "".join(f"{_percentile(metric, name, 1)(run):>10}" for name in columns)
        lines.append(f"{metric.replace('_', ' '):<24}{numbers}")
    preempted = f"{run['preemptions_recompute']:,} recomputed, {run['preemptions_swap']:,} swapped"
    facts = (
        ("requests", f"{run['finished']:,} in {run['seconds']:,.0f} s: {_number(run['requests_per_second'])} /s"),
        ("output tokens", f"{_number(run['output_tokens_per_second'])} /s"),
        ("batched requests", _number(run["batched_requests"])),
        ("KV slots with a token", f"{100 * run['kv_token_states']:.1f} %"),
        ("KV slots taken", f"{100 * run['kv_allocated']:.1f} %"),
        ("preempted", preempted),
        ("saved by sharing", f"{100 * run['sharing_saves']:.1f} %"),
        ("prompt tokens cached", f"{100 * run['prefix_hits']:.1f} %"),
    )
    return "\n".join([*lines, "", *(f"{name:<24}{text}" for name, text in facts)])
