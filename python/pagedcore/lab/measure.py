"""One run on a real engine, by the clock on the wall."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

import numpy as np

from .. import _core
from ..errors import Aborted, InvalidArgument
from .run import Outcome
from .workload import Prompt, Workload

if TYPE_CHECKING:
    from ..llm import LLM

__all__ = ["measure"]

_SLICE = 0.1  # seconds in the engine before Python may react to a signal
_COUNTERS = (
    "steps",
    "tokens_computed",
    "tokens_sampled",
    "tokens_recomputed",
    "prefix_hit_tokens",
    "pinned_hit_tokens",
    "prefix_waits",
    "preemptions_recompute",
    "preemptions_swap",
    "preemption_hit_tokens",
    "swap_fallbacks",
    "blocks_swapped_in",
    "blocks_swapped_out",
    "forks",
    "block_copies",
)


def measure(
    workload: Workload,
    llm: LLM,
    *,
    batch_requests: int = 0,
    batch_tokens: int = 2040,
    window: tuple[float, float] = (0.0, 1e300),
    stop: float = 1e300,
    progress: Callable[[int, int], None] | None = None,
) -> Outcome:
    """Serves a workload as :func:`simulate` does, on a real engine and in real time. Takes as long as it says.

    A request is submitted when its time has come and generates as many tokens as the workload says, whatever the model
    makes of it; contents become random tokens. Times are those at which this thread has the news. The report's
    averages are over the states after each step; its `sequences` are those sampled in a step.

    Args:
        llm: Must be idle, and nobody else may use it meanwhile.
        batch_requests: Request-level batches, the FasterTransformer baseline (PagedAttention, section 6.1): up to so
            many of the earliest requests, as long as their longest prompt and longest output make at most batch_tokens,
            are padded to those and served until all are done. 0: iteration-level.
        window: Seconds over which the report averages.
        stop: Ends at this time, whatever is still to be served. Else all requests are served.
        progress: Called now and then with the number of requests that have ended, and of all.

    Raises InvalidArgument for a request that could never be served, and says which; Aborted when one fails.
    """
    run = _Run(workload, llm, window, together=batch_requests > 0)
    prompts = [run.token_ids(prompt) for prompt in workload.prompts]
    for index, (prompt, output) in enumerate(zip(prompts, workload.outputs, strict=True)):
        run.validate(index, prompt, output)
    arrivals, following = workload.arrivals, 0
    try:
        while run.finished < len(workload) and run.now() < stop:
            arrived = following
            while arrived < len(workload) and arrivals[arrived] <= run.now():
                arrived += 1
            if batch_requests == 0:
                for index in range(following, arrived):
                    run.submit(index, prompts[index], workload.outputs[index])
                following = arrived
            elif not run.open and arrived > following:
                lengths = [(len(prompts[i]), workload.outputs[i]) for i in range(following, arrived)]
                size, longest, output = _next_batch(lengths, batch_requests, batch_tokens)
                for index in range(following, following + size):
                    prompt = prompts[index]
                    run.submit(index, np.concatenate([np.zeros(longest - len(prompt), np.int32), prompt]), output)
                following += size
            until = arrivals[arrived] if arrived < len(workload) else stop
            run.take(max(0.0, min(_SLICE, until - run.now(), stop - run.now())))
            if progress is not None:
                progress(run.finished, len(workload))
    finally:
        run.end()
    return run.outcome()


def _next_batch(lengths: list[tuple[int, int]], most: int, tokens: int) -> tuple[int, int, int]:
    """How many of the earliest requests, their longest prompt and their longest output."""
    size = longest = output = 0
    for prompt, out in lengths:
        if size > 0 and (size == most or max(longest, prompt) + max(output, out) > tokens):
            break
        size, longest, output = size + 1, max(longest, prompt), max(output, out)
    return size, longest, output


class _Run:
    def __init__(self, workload: Workload, llm: LLM, window: tuple[float, float], *, together: bool) -> None:
        """`together`: what is open at a time is returned when all of it has ended."""
        if llm.engine.busy:
            raise InvalidArgument("the LLM is busy: measure() takes one that nobody else uses")
        self.open: dict[int, int] = {}  # index by the engine's id
        self.finished = 0
        self._together = together
        self._ended: list[int] = []  # and not returned
        self._left = [0] * len(workload)  # tokens of all samples
        self._workload = workload
        self._engine = llm.engine
        self._vocab_size = llm.description.vocab_size
        self._first_token = [-1.0] * len(workload)
        self._finish = [-1.0] * len(workload)
        self._window = window
        self._averages = _Averages(llm.engine)
        self._before = llm.engine.stats()
        self._start = time.monotonic()

    def now(self) -> float:
        return time.monotonic() - self._start

    def token_ids(self, prompt: Prompt) -> np.ndarray:
        """Equal contents are equal tokens, also when one is longer than the other."""
        parts = [np.random.default_rng(content).random(tokens) * self._vocab_size for content, tokens in prompt]
        return np.concatenate(parts).astype(np.int32)

    def validate(self, index: int, prompt: np.ndarray, output: int) -> None:
        try:
            self._engine.validate(prompt, self._params(index, output))
        except InvalidArgument as error:
            raise InvalidArgument(f"request {index}: {error}") from None

    def submit(self, index: int, prompt: np.ndarray, output: int) -> None:
        workload = self._workload
        options = _core.RequestOptions(
            priority=workload.priorities[index] if workload.priorities else 0,
            tenant=workload.tenants[index] if workload.tenants else 0,
        )
        request = self._engine.submit(prompt, self._params(index, output), options, stream=True)
        self.open[request] = index
        self._left[index] = output * workload.num_samples

    def take(self, timeout: float) -> None:
        """Waits for news, and takes them in."""
        news = self._engine.wait(timeout)
        now = self.now()
        for output in news:
            index = self.open.get(output.request)
            if index is None:
                continue
            if output.finish == "error":
                raise Aborted(f"request {index} failed: {output.error}")
            if self._first_token[index] < 0 and output.tokens:
                self._first_token[index] = now
            self._left[index] -= len(output.tokens)
            stops = self._left[index] <= 0 and self._workload.beam_width == 0
            if output.last or stops:
                self._ended.append(index)
                del self.open[output.request]
                if not output.last:  # it asked for more than it generates
                    self._engine.abort(output.request)
        if not (self._together and self.open):
            for index in self._ended:
                self._finish[index] = now
            self.finished += len(self._ended)
            self._ended.clear()
        self._averages.until(now, self._window)

    def end(self) -> None:
        """Leaves an idle engine."""
        for request in self.open:
            self._engine.abort(request)
        with suppress(Aborted):  # closed
            while self._engine.busy:
                self._engine.wait(_SLICE)

    def outcome(self) -> Outcome:
        stats = self._engine.stats()
        counters = {name: int(stats[name] - self._before[name]) for name in _COUNTERS}
        report = self._averages.report(_core.SchedulerStats(**counters))
        report.finished, report.now = self.finished, self.now()
        return Outcome(self._workload, report, self._first_token, self._finish)

    def _params(self, index: int, output: int) -> _core.SamplingParams | _core.BeamSearchParams:
        width = self._workload.beam_width
        if width > 0:
            return _core.BeamSearchParams(beam_width=width, n=width, max_tokens=output, early_stopping="never")
        most = max(output, self._workload.max_tokens or 0)
        return _core.SamplingParams(n=self._workload.num_samples, max_tokens=most, temperature=1.0, seed=index)


class _Averages:
    """Integrals over time of what an engine says about itself."""

    def __init__(self, engine: _core.Engine) -> None:
        self._engine = engine
        plan = engine.memory_plan
        self._block_size = plan.block_size
        self._groups = max(1, len(plan.windows))
        self._sums = dict.fromkeys(("requests", "token_states", "reserved", "internal", "allocated", "sharing"), 0.0)
        self._tokens = self._steps = self._seconds = 0.0
        self._stats = engine.stats()
        self._time = 0.0

    def until(self, now: float, window: tuple[float, float]) -> None:
        """What was there since the last call, now being known to have ended."""
        part = min(now, window[1]) - max(self._time, window[0])
        stats, self._time = self._stats, now
        self._stats = self._engine.stats()
        if part <= 0:
            return
        self._seconds += part
        slots = stats["blocks_total"] * self._block_size
        logical = (stats["kv_tokens"] + stats["kv_slots_unused"]) / self._block_size * self._groups
        sharing = logical / stats["blocks_used"] if stats["blocks_used"] else 1.0
        now_there = {
            "requests": stats["requests_running"],
            "token_states": stats["kv_tokens"] * self._groups / sharing / slots if sharing else 0.0,
            "reserved": stats["kv_slots_reserved"] / slots,
            "internal": stats["kv_slots_overreserved"] / slots,
            "allocated": stats["blocks_used"] * self._block_size / slots,
            "sharing": sharing,
        }
        for name, value in now_there.items():
            self._sums[name] += part * value
        self._tokens += self._stats["tokens_sampled"] - stats["tokens_sampled"]
        self._steps += self._stats["steps"] - stats["steps"]

    def report(self, scheduler: _core.SchedulerStats) -> _core.SimulationReport:
        report = _core.SimulationReport(steps=scheduler.steps, seconds=self._seconds, scheduler=scheduler)
        seconds = self._seconds or 1.0
        for name, total in self._sums.items():
            setattr(report, name, total / seconds)
        report.sequences = self._tokens / (self._steps or 1.0)
        report.tokens = self._tokens / seconds
        return report
