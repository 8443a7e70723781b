"""Metrics in Prometheus' text format, under our names and, for dashboards and routers that know them, under vLLM's."""

from __future__ import annotations

import bisect
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

from .. import _core
from .tally import Tally

__all__ = ["CONTENT_TYPE", "Histogram", "Metrics"]

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
        self._counts = [0] * (len(self.bounds) + 1)
        self._sum = 0.0

    def add(self, value: float) -> None:
        self._counts[bisect.bisect_left(self.bounds, value)] += 1
        self._sum += value

    def lines(self, name: str, labels: str) -> Iterator[str]:
        total = 0
        for bound, count in zip((*map(_number, self.bounds), "+Inf"), self._counts, strict=True):
            total += count
            yield f'{name}_bucket{{{labels}le="{bound}"}} {total}'
        braces = f"{{{labels.rstrip(',')}}}" if labels else ""
        yield f"{name}_sum{braces} {_number(self._sum)}"
        yield f"{name}_count{braces} {total}"


class Metrics:
    """What the server counts itself."""

    def __init__(self) -> None:
        self.histograms = {name: Histogram(bounds) for name, _, bounds, _ in _HISTOGRAMS}
        self.calls: Counter[tuple[str, int]] = Counter()  # by path and status
        self.finished: Counter[str] = Counter()  # samples by finish reason
        self.prompt_tokens = 0
        self.generation_tokens = 0
        self.wait = 0.0
        """Seconds that calls have waited to begin, lately."""

    def take(self, path: str, status: int, tally: Tally, seconds: float) -> None:
        """A call that has ended. ``path``: of a route, never as a caller wrote it."""
        self.calls[path, status] += 1
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
        waited = values[f"{_QUEUE}_seconds"]
        if waited is not None:
            self.wait += (waited - self.wait) / 8
        for name, value in values.items():
            if value is not None:
                self.histograms[name].add(value)

    def text(self, stats: Mapping[str, float], model: str, block_size: int) -> str:
        """``stats``: the engine's."""
        return "\n".join((*self._ours(stats), *self._of_vllm(stats, model, block_size), ""))

    def _ours(self, stats: Mapping[str, float]) -> Iterator[str]:
        for info in _core.stats_of_engine():
            if info.name in stats:
                counter = info.type == "counter"
                name = f"pagedcore_{info.name}" + ("_total" if counter and not info.name.endswith("_total") else "")
                yield from _headed(name, info.type, info.doc)
                yield f"{name} {_number(stats[info.name])}"
        yield from _headed("pagedcore_http_requests_total", "counter", "Calls that have ended, by path and status.")
        for (path, status), count in sorted(self.calls.items()):
            yield f'pagedcore_http_requests_total{{path="{_escaped(path)}",status="{status}"}} {count}'
        for name, _, _, meaning in _HISTOGRAMS:
            yield from _headed(f"pagedcore_{name}", "histogram", meaning)
            yield from self.histograms[name].lines(f"pagedcore_{name}", "")

    def _of_vllm(self, stats: Mapping[str, float], model: str, block_size: int) -> Iterator[str]:
        label = f'model_name="{_escaped(model)}"'
        blocks = stats.get("blocks_total", 0.0)
        used = stats.get("blocks_used", 0.0) / blocks if blocks else 0.0
        preempted = stats.get("preemptions_recompute", 0.0) + stats.get("preemptions_swap", 0.0)
        values = [(name, kind, stats.get(ours, 0.0)) for name, kind, ours in _OF_ENGINE]
        values += [
            ("kv_cache_usage_perc", "gauge", used),
            ("num_preemptions_total", "counter", preempted),
            ("prompt_tokens_total", "counter", self.prompt_tokens),
            ("generation_tokens_total", "counter", self.generation_tokens),
        ]
        for name, kind, value in values:
            yield from _headed(f"vllm:{name}", kind, "As vLLM has it.")
            yield f"vllm:{name}{{{label}}} {_number(value)}"
        yield from _headed("vllm:request_success_total", "counter", "Answers by how they ended.")
        for reason in ("stop", "length", "abort", *sorted(self.finished.keys() - {"stop", "length", "abort"})):
            yield f'vllm:request_success_total{{{label},finished_reason="{reason}"}} {self.finished[reason]}'
        yield from _headed("vllm:cache_config_info", "gauge", "Of the KV cache.")
        config = f'block_size="{block_size}",num_gpu_blocks="{int(blocks)}"'
        yield f"vllm:cache_config_info{{{label},{config}}} 1"
        for name, theirs, _, meaning in _HISTOGRAMS:
            yield from _headed(f"vllm:{theirs}", "histogram", meaning)
            yield from self.histograms[name].lines(f"vllm:{theirs}", label + ",")


def _headed(name: str, kind: str, meaning: str) -> tuple[str, str]:
    help_ = meaning.replace("\\", r"\\").replace("\n", r"\n")
    return f"# HELP {name} {help_}", f"# TYPE {name} {kind}"


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def _number(value: float) -> str:
    return str(int(value)) if float(value).is_integer() else repr(float(value))
