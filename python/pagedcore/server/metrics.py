"""Metrics in Prometheus' text format, under our names and, for dashboards and routers that know them, under vLLM's."""

from __future__ import annotations

import bisect
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from .. import _core
from .tally import Tally

__all__ = ["CONTENT_TYPE", "Histogram", "Metrics", "Observed", "exposition"]

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 50, 100, 250, 500)
_TOKENS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 20000, 50000, 100000)
_FIRST, _BETWEEN, _WHOLE, _QUEUE = "time_to_first_token", "inter_token_latency", "request_latency", "request_queue_time"
# Our name, vLLM's, bounds, meaning.
_HISTOGRAMS = (
    (f"{_FIRST}_seconds", f"{_FIRST}_seconds", _SECONDS, "From a call to its first token."),
    (f"{_BETWEEN}_seconds", f"{_BETWEEN}_seconds", _SECONDS, "Between two tokens of an answer, on average over it."),
    (f"{_WHOLE}_seconds", f"e2e_{_WHOLE}_seconds", _SECONDS, "From a call to its end."),
    (
        f"{_QUEUE}_seconds",
        f"{_QUEUE}_seconds",
        _SECONDS,
        "From a call to the first step that computes something of it.",
    ),
    ("request_prompt_tokens", "request_prompt_tokens", _TOKENS, "Tokens of the prompts of a call."),
    ("request_generation_tokens", "request_generation_tokens", _TOKENS, "Tokens of the answers to a call."),
)
# vLLM's name, kind, the statistic of the engine.
_OF_ENGINE = (
    ("num_requests_running", "gauge", "requests_running"),
    ("num_requests_waiting", "gauge", "requests_waiting"),
    ("prefix_cache_queries_total", "counter", "prefix_query_tokens"),
    ("prefix_cache_hits_total", "counter", "prefix_hit_tokens"),
)


class Histogram:
    """Not thread-safe: of the event loop."""

    def __init__(self, bounds: Iterable[float]) -> None:
        self.bounds = tuple(bounds)
        self.counts = [0] * (len(self.bounds) + 1)
        """Of what is at most a bound and above the one before; last, of what is above all."""
        self._sum = 0.0

    def add(self, value: float) -> None:
        self.counts[bisect.bisect_left(self.bounds, value)] += 1
        self._sum += value

    def lines(self, name: str, labels: str) -> Iterator[str]:
        total = 0
        for bound, count in zip((*map(_number, self.bounds), "+Inf"), self.counts, strict=True):
            total += count
            yield f'{name}_bucket{{{labels},le="{bound}"}} {total}'
        yield f"{name}_sum{{{labels}}} {_number(self._sum)}"
        yield f"{name}_count{{{labels}}} {total}"


class Metrics:
    """What the server counts of one model."""

    def __init__(self) -> None:
        self.histograms = {name: Histogram(bounds) for name, _, bounds, _ in _HISTOGRAMS}
        self.finished: Counter[str] = Counter()  # samples by finish reason
        self.prompt_tokens = 0
        self.generation_tokens = 0

    def take(self, tally: Tally, seconds: float) -> None:
        """A call that has ended."""
        self.prompt_tokens += tally.prompt_tokens
        self.generation_tokens += tally.completion_tokens
        self.finished.update(tally.finish_reasons)
        if tally.prompt_tokens == 0:
            return
        values: dict[str, float | None] = {
            f"{_FIRST}_seconds": tally.seconds_to(tally.first_token),
            f"{_BETWEEN}_seconds": tally.between_tokens,
            f"{_WHOLE}_seconds": seconds,
            f"{_QUEUE}_seconds": tally.seconds_to(tally.scheduled),
            "request_prompt_tokens": tally.prompt_tokens,
            "request_generation_tokens": tally.completion_tokens,
        }
        for name, value in values.items():
            if value is not None:
                self.histograms[name].add(value)


@dataclass(frozen=True)
class Observed:
    """One model at this moment. ``stats``: its engine's."""

    model: str
    stats: Mapping[str, float]
    metrics: Metrics
    block_size: int

    def of_vllm(self) -> Iterator[tuple[str, str, float]]:
        """Name, kind and value under vLLM's names."""
        stats = self.stats
        blocks = stats.get("blocks_total", 0.0)
        for name, kind, ours in _OF_ENGINE:
            yield name, kind, stats.get(ours, 0.0)
        yield "kv_cache_usage_perc", "gauge", stats.get("blocks_used", 0.0) / blocks if blocks else 0.0
        preempted = stats.get("preemptions_recompute", 0.0) + stats.get("preemptions_swap", 0.0)
        yield "num_preemptions_total", "counter", preempted
        yield "prompt_tokens_total", "counter", self.metrics.prompt_tokens
        yield "generation_tokens_total", "counter", self.metrics.generation_tokens


def exposition(models: Sequence[Observed], answered: Mapping[tuple[str, int], int]) -> str:
    """``answered``: calls that have ended, by path of a route and status."""
    return "\n".join((*_ours(models, answered), *_of_vllm(models), ""))


def _ours(models: Sequence[Observed], answered: Mapping[tuple[str, int], int]) -> Iterator[str]:
    for info in _core.stats_of_engine():
        if info.name in models[0].stats:
            counter = info.type == "counter"
            name = f"pagedcore_{info.name}" + ("_total" if counter and not info.name.endswith("_total") else "")
            yield from _headed(name, info.type, info.doc)
            for seen in models:
                yield f"{name}{{{_label('model', seen.model)}}} {_number(seen.stats[info.name])}"
    yield from _headed("pagedcore_http_requests_total", "counter", "Calls that have ended, by path and status.")
    for (path, status), count in sorted(answered.items()):
        yield f'pagedcore_http_requests_total{{{_label("path", path)},status="{status}"}} {count}'
    yield from _histograms(models, "pagedcore_", "model", lambda ours, theirs: ours)


def _of_vllm(models: Sequence[Observed]) -> Iterator[str]:
    for rows in zip(*(seen.of_vllm() for seen in models), strict=True):
        name, kind, _ = rows[0]
        yield from _headed(f"vllm:{name}", kind, "As vLLM has it.")
        for seen, (_, _, value) in zip(models, rows, strict=True):
            yield f"vllm:{name}{{{_label('model_name', seen.model)}}} {_number(value)}"
    yield from _headed("vllm:request_success_total", "counter", "Answers by how they ended.")
    for seen in models:
        finished = seen.metrics.finished
        for reason in ("stop", "length", "abort", *sorted(finished.keys() - {"stop", "length", "abort"})):
            labels = f'{_label("model_name", seen.model)},finished_reason="{reason}"'
            yield f"vllm:request_success_total{{{labels}}} {finished[reason]}"
    yield from _headed("vllm:cache_config_info", "gauge", "Of the KV cache.")
    for seen in models:
        config = f'block_size="{seen.block_size}",num_gpu_blocks="{int(seen.stats.get("blocks_total", 0.0))}"'
        yield f"vllm:cache_config_info{{{_label('model_name', seen.model)},{config}}} 1"
    yield from _histograms(models, "vllm:", "model_name", lambda ours, theirs: theirs)


def _histograms(
    models: Sequence[Observed], prefix: str, label: str, called: Callable[[str, str], str]
) -> Iterator[str]:
    for ours, theirs, _, meaning in _HISTOGRAMS:
        name = prefix + called(ours, theirs)
        yield from _headed(name, "histogram", meaning)
        for seen in models:
            yield from seen.metrics.histograms[ours].lines(name, _label(label, seen.model))


def _label(name: str, value: str) -> str:
    return f'{name}="{_escaped(value)}"'


def _headed(name: str, kind: str, meaning: str) -> tuple[str, str]:
    help_ = meaning.replace("\\", r"\\").replace("\n", r"\n")
    return f"# HELP {name} {help_}", f"# TYPE {name} {kind}"


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def _number(value: float) -> str:
    return str(int(value)) if float(value).is_integer() else repr(float(value))
