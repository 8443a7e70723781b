"""Workloads and measurements behind ``pagedcore bench``."""

from __future__ import annotations

import csv
import json
import os
import random
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import Aborted, Corrupt, Io
from ..progress import Progress
from ..sampling_params import SamplingParams

if TYPE_CHECKING:
    from ..llm import LLM
    from ..outputs import RequestOutput

__all__ = ["Job", "LatencyResult", "ThroughputResult", "fixed_lengths", "latency", "read_trace", "throughput"]

# How public traces name their columns (ours and ShareGPT's, Azure's, Mooncake's).
_INPUT_NAMES = ("input_tokens", "ContextTokens", "input_length", "prompt_tokens", "input_len")
_OUTPUT_NAMES = ("output_tokens", "GeneratedTokens", "output_length", "completion_tokens", "output_len")


@dataclass(frozen=True)
class Job:
    input_len: int
    output_len: int


def fixed_lengths(num_prompts: int, input_len: int, output_len: int) -> list[Job]:
    return [Job(input_len, output_len)] * num_prompts


def read_trace(path: str | os.PathLike[str], limit: int | None = None) -> list[Job]:
    """Lengths from a .csv or .jsonl file, in its order."""
    path = Path(path)
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows: Iterable[Mapping[str, Any]]
            rows = map(json.loads, file) if path.suffix in (".jsonl", ".json") else csv.DictReader(file)
            jobs: list[Job] = []
            for number, row in enumerate(rows, start=1):
                if limit is not None and len(jobs) >= limit:
                    break
                jobs.append(_job(row, f"{path}, record {number}"))
    except OSError as error:
        raise Io(f"cannot read the trace '{path}': {error.strerror}") from None
    except (ValueError, csv.Error) as error:
        raise Corrupt(f"'{path}' is not a trace: {error}") from None
    if not jobs:
        raise Corrupt(f"the trace '{path}' has no records")
    return jobs


def _job(row: Mapping[str, Any], where: str) -> Job:
    def length(names: Sequence[str]) -> int:
        for name in names:
            if row.get(name) is not None:
                return max(1, int(row[name]))
        raise ValueError(f"{where} has none of the columns {', '.join(names)}")

    return Job(length(_INPUT_NAMES), length(_OUTPUT_NAMES))


def _prompts(llm: LLM, jobs: Sequence[Job], seed: int) -> tuple[list[list[int]], list[SamplingParams]]:
    """Random tokens, so that no prefix is shared; lengths cut to the context. Greedy, without an early end."""
    rng = random.Random(seed)
    prompts, params = [], []
    for job in jobs:
        length = min(job.input_len, llm.max_context - 1)
        prompts.append(rng.choices(range(llm.description.vocab_size), k=length))
        most = min(job.output_len, llm.max_context - length)
        params.append(SamplingParams(temperature=0, max_tokens=most, ignore_eos=True, detokenize=False))
    return prompts, params


@dataclass(frozen=True)
class ThroughputResult:
    requests: int
    input_tokens: int
    output_tokens: int
    seconds: float

    @property
    def requests_per_second(self) -> float:
        return self.requests / self.seconds

    @property
    def output_tokens_per_second(self) -> float:
        return self.output_tokens / self.seconds

    @property
    def total_tokens_per_second(self) -> float:
        return (self.input_tokens + self.output_tokens) / self.seconds

    def to_dict(self) -> dict[str, float]:
        names = ("requests_per_second", "output_tokens_per_second", "total_tokens_per_second")
        return asdict(self) | {name: getattr(self, name) for name in names}


def throughput(llm: LLM, jobs: Sequence[Job], *, seed: int = 0, progress: bool | None = None) -> ThroughputResult:
    """All jobs at once, as fast as the engine can."""
    prompts, params = _prompts(llm, jobs, seed)
    _warm_up(llm)
    start = time.perf_counter()
    outputs = llm.generate(prompts, params, progress=progress)
    seconds = time.perf_counter() - start
    errors = [output.error for output in outputs if output.error is not None]
    if errors:
        raise Aborted(f"{len(errors)} of {len(outputs)} requests failed, the first: {errors[0]}")
    generated = sum(len(sample.token_ids) for output in outputs for sample in output.outputs)
    return ThroughputResult(len(jobs), sum(map(len, prompts)), generated, seconds)


@dataclass(frozen=True)
class LatencyResult:
    """Seconds, one value per request or token."""

    first_token: list[float]
    per_token: list[float]
    request: list[float]

    def add(self, stream: Iterable[RequestOutput]) -> None:
        """One request, by the engine's times: where news of several tokens came as one, each took its share."""
        before: float | None = None
        for news in stream:
            times = news.metrics
            if news.error is not None:
                raise Aborted(f"a request failed: {news.error}")
            assert times is not None
            tokens = sum(len(sample.token_ids) for sample in news.outputs)
            if before is None and times.first_token_time is not None:
                before = times.first_token_time
                self.first_token.append(before - times.arrival_time)
                tokens -= 1
            if before is not None and times.last_token_time is not None and tokens > 0:
                self.per_token.extend([(times.last_token_time - before) / tokens] * tokens)
                before = times.last_token_time
            if news.finished and times.last_token_time is not None:
                self.request.append(times.last_token_time - times.arrival_time)

    def to_dict(self) -> dict[str, dict[str, float]]:
        rows = {"first_token": self.first_token, "per_token": self.per_token, "request": self.request}
        return {name: summary(values) for name, values in rows.items() if values}


def latency(llm: LLM, jobs: Sequence[Job], *, seed: int = 0, progress: bool | None = None) -> LatencyResult:
    """One job after another, each alone in the engine, streamed."""
    prompts, params = _prompts(llm, jobs, seed)
    _warm_up(llm)
    result = LatencyResult([], [], [])
    with Progress(len(jobs), "requests", enabled=progress) as bar:
        for prompt, chosen in zip(prompts, params, strict=True):
            result.add(llm.stream(prompt, chosen))
            bar.add(1)  # between requests: no measured time holds it
    return result


def summary(values: Sequence[float]) -> dict[str, float]:
    ordered = sorted(values)

    def percentile(share: float) -> float:  # the nearest rank
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))]

    return {
        "mean": sum(ordered) / len(ordered),
        "p50": percentile(0.5),
        "p90": percentile(0.9),
        "p99": percentile(0.99),
        "max": ordered[-1],
    }


def _warm_up(llm: LLM) -> None:
    """Touches the weights and starts the threads."""
    llm.generate([[0]], SamplingParams(temperature=0, max_tokens=2, ignore_eos=True, detokenize=False), progress=False)
