"""What a step costs on the machine at hand, from runs of the real engine."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from itertools import accumulate
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ... import _core
from ...llm import LLM
from ...sampling_params import SamplingParams
from ..deployment import Deployment
from ..device import Device
from ..lengths import paper_lengths
from ..measure import measure
from ..model_shape import ModelShape
from ..roofline import fit_device
from ..run import simulate
from ..workload import Workload
from .fit import Fit, fit_costs

__all__ = ["Calibration", "Check", "calibrate"]

_DECODED = 8  # tokens
_CACHED = 2048  # tokens of all requests of a shape
_PREFILLS = (2, 3, 4, 6, 8, 12, 16, 24, 32, 64, 128, 256, 512)
_BATCHES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)
_CONTEXTS = (16, 128, 512)
_CHECKED = 40  # requests
_LOAD = 0.7  # of what the simulator says the engine can do


@dataclass(frozen=True)
class Check:
    """One number, as the engine measured it and as the simulator tells it."""

    what: str
    unit: str
    measured: float
    simulated: float

    @property
    def error(self) -> float:
        return self.simulated / self.measured - 1


@dataclass(frozen=True)
class Calibration:
    engine: str
    """Model, device, types and threads, for people."""
    fit: Fit
    device: Device
    checks: list[Check]

    def to_dict(self) -> dict[str, Any]:
        fit = {"cost": self.fit.cost.to_dict(), "steps": self.fit.steps, "error": self.fit.error}
        checks = [{**asdict(check), "error": check.error} for check in self.checks]
        return {
            "engine": self.engine,
            **fit,
            "error_p90": self.fit.error_p90,
            "device": self.device.to_dict(),
            "checks": checks,
        }


@dataclass(frozen=True)
class _Shape:
    """Requests that run together: the rows, contexts and samples of their steps."""

    requests: int
    prompt: int
    output: int = _DECODED
    samples: int = 1
    swaps: bool = False


def calibrate(
    model: Any = None,
    *,
    name: str | None = None,
    check: bool = False,
    progress: Callable[[int, int], None] | None = None,
    **options: Any,
) -> Calibration:
    """Serves requests of many shapes, traces the steps, and fits a cost model to them and a device to that.

    Steps of few and many rows with short and long contexts, prompts, samples, copies of blocks and swaps. Takes a
    minute or two on a small CPU, and holds what ``LLM(model, **options)`` holds. Whatever else the machine does
    meanwhile is in the numbers.

    Args:
        model: What the rates are measured with; None: the default model.
        name: Of the device; None: the machine's.
        check: Then serve another workload for real and simulated, and say how both compare.
        options: For LLM: dtype, threads, isa, block_size.
    """
    shapes = list(_shapes())
    done, of = 0, len(shapes) + 2 * check

    def step() -> None:
        nonlocal done
        done += 1
        if progress is not None:
            progress(done, of)

    with TemporaryDirectory() as directory:
        trace = Path(directory) / "trace"
        with LLM(model, enable_prefix_caching=False, swap_space="256MiB", trace_file=trace, **options) as llm:
            for number, shape in enumerate(shapes):
                _run(llm, shape, random.Random(number))
                step()
            plan, engine = llm.memory_plan(), llm.engine.describe()
            measured = ModelShape.of(Path(llm.model).stem, llm.description)
        fit = fit_costs(_core.timed_steps(str(trace)), plan.block_size)
    element = round(plan.kv_block / plan.block_size / measured.kv_elements)  # bytes; weights are of the same type
    memory = float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    base = Device(name=name or os.uname().nodename, memory=memory, bandwidth=1.0, arithmetic=1.0)
    device = fit_device(base, measured, fit.cost, weight_bytes=element, kv_bytes=element)
    device = replace(device, about=f"Measured with {measured.name}: {engine}.")
    checks = list(_checks(model, fit.cost, options, step)) if check else []
    return Calibration(f"{measured.name}: {engine}", fit, device, checks)


def _shapes() -> Iterator[_Shape]:
    for prompt in _PREFILLS:
        yield _Shape(1, prompt, output=2)
    for requests in _BATCHES:
        for prompt in _CONTEXTS:
            if requests * prompt <= _CACHED:
                yield _Shape(requests, prompt)
    for samples in (8, 32):
        yield _Shape(1, 40, samples=samples)  # whose last block is copied for all but one
    for prompt in (250, 500):
        yield _Shape(1, prompt, swaps=True)


def _run(llm: LLM, shape: _Shape, source: random.Random) -> None:
    prompt = min(shape.prompt, llm.max_context - shape.output)
    prompts = [source.choices(range(llm.description.vocab_size), k=prompt) for _ in range(shape.requests)]
    params = SamplingParams(n=shape.samples, max_tokens=shape.output, ignore_eos=True, detokenize=False)
    llm.engine.force_preemption(1 if shape.swaps else 0, "swap")
    try:
        llm.generate(prompts, params, progress=False)
    finally:
        llm.engine.force_preemption(0)


def _checks(model: Any, cost: _core.CostModel, options: dict[str, Any], step: Callable[[], None]) -> Iterator[Check]:
    """ShareGPT's lengths, a quarter as long, in a cache of eight of the longest: all at once, and as they arrive."""
    longest = 512
    pairs = [(-(-a // 4), -(-b // 4)) for a, b in paper_lengths("sharegpt", 2 * _CHECKED, seed=1)]
    chosen = [pair for pair in pairs if sum(pair) < longest][:_CHECKED]
    prompts = [[(number, prompt)] for number, (prompt, _) in enumerate(chosen, 1)]
    at_once = Workload([0.0] * len(chosen), prompts, [output for _, output in chosen])
    blocks = 8 * longest // options.get("block_size", 16)
    with LLM(model, enable_prefix_caching=False, num_blocks=blocks, **options) as llm:
        deployment = Deployment(
            name="this machine",
            slots=llm.memory_plan().kv_tokens,
            cost=cost,
            block_size=llm.memory_plan().block_size,
            max_batched_tokens=512,
        )
        seconds = max(measure(at_once, llm).finish), max(simulate(at_once, deployment).finish)
        yield Check(f"{len(chosen)} requests at once", "s", *seconds)
        step()
        source, rate = random.Random(0), _LOAD * len(chosen) / seconds[1]
        arrivals = list(accumulate(source.expovariate(rate) for _ in chosen))
        spread = Workload(arrivals, prompts, at_once.outputs)
        latencies = measure(spread, llm).normalized_latency, simulate(spread, deployment).normalized_latency
        yield Check(f"normalized latency at {rate:.2f} requests/s", "s/token", *latencies)
        step()
