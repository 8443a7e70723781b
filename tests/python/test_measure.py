"""Workloads on the real engine, by the clock on the wall."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest

from pagedcore import LLM, InvalidArgument, SamplingParams, _core
from pagedcore.lab import Deployment, Workload, measure, paper_lengths, simulate


def workload(lengths: list[tuple[int, int]], *, apart: float = 0.0) -> Workload:
    return Workload(
        [apart * i for i in range(len(lengths))],
        [[(number, prompt)] for number, (prompt, _) in enumerate(lengths, 1)],
        [output for _, output in lengths],
    )


LENGTHS = [(5, 3), (40, 10), (1, 5), (17, 7), (30, 1)]


def test_measure_generates_what_the_workload_says(tiny_llm: LLM) -> None:
    requests = workload(LENGTHS, apart=0.05)
    outcome = measure(requests, tiny_llm)
    for arrival, first, finish in zip(requests.arrivals, outcome.first_token, outcome.finish, strict=True):
        assert arrival <= first <= finish < outcome.report.now
    assert outcome.report.finished == len(requests)
    assert outcome.report.scheduler.tokens_sampled == sum(requests.outputs)
    counts = outcome.report.scheduler
    assert counts.tokens_computed + counts.prefix_hit_tokens == sum(a + b - 1 for a, b in LENGTHS)
    expected = np.mean(
        [(f - a) / o for f, a, o in zip(outcome.finish, requests.arrivals, requests.outputs, strict=True)]
    )
    assert outcome.normalized_latency == expected
    assert not tiny_llm.engine.busy


def test_measure_stops_requests_that_ask_for_more_than_they_generate(tiny_llm: LLM) -> None:
    requests = replace(workload(LENGTHS), max_tokens=300)
    outcome = measure(requests, tiny_llm)
    assert outcome.report.finished == len(requests)
    # Each is stopped when its last token is seen; the engine may have gone on a little meanwhile.
    assert sum(requests.outputs) <= outcome.report.scheduler.tokens_sampled < 300 * len(requests)
    assert not tiny_llm.engine.busy


def test_measure_passes_priorities_and_tenants_on(tiny: Any, tmp_path: Path) -> None:
    requests = replace(workload(LENGTHS), priorities=[3, -1, 0, 4, 1], tenants=[1, 5, 9, 2, 6])
    with LLM(tiny("llama")[0], kv_cache_memory="4MiB", order="priority", trace_file=tmp_path / "trace") as llm:
        measure(requests, llm)
    lines = [line for line in (tmp_path / "trace").read_text().splitlines() if line.startswith("submit ")]
    said = [dict(field.split("=") for field in line.split()[1:]) for line in lines]
    wanted = [("3", "1"), ("-1", "5"), ("0", "9"), ("4", "2"), ("1", "6")]
    assert [(fields["priority"], fields["tenant"]) for fields in said] == wanted


def test_measure_samples_and_beams(tiny_llm: LLM) -> None:
    requests = workload(LENGTHS)
    samples = measure(requests.with_samples(3), tiny_llm).report.scheduler
    assert samples.tokens_sampled == 3 * sum(requests.outputs)
    assert samples.forks > 0
    beams = measure(requests.with_samples(beam_width=2), tiny_llm)
    assert beams.report.finished == len(requests)
    assert beams.report.scheduler.tokens_sampled >= 2 * sum(requests.outputs) - 2 * len(requests)


def test_equal_contents_are_equal_tokens(tiny: Any) -> None:
    with LLM(tiny("llama")[0], kv_cache_memory="4MiB") as llm:
        measure(Workload([0.0], [[(7, 64)]], [1]), llm)
        longer = measure(Workload([0.0], [[(7, 80), (8, 5)]], [1]), llm)
    assert longer.report.scheduler.prefix_hit_tokens == 64


def test_request_level_batches_run_to_their_end_together(tiny_llm: LLM) -> None:
    requests = workload(LENGTHS)
    outcome = measure(requests, tiny_llm, batch_requests=2)
    ends = outcome.finish
    assert ends[0] == ends[1] < ends[2] == ends[3] < ends[4]
    assert outcome.report.scheduler.tokens_sampled == 2 * 10 + 2 * 7 + 1
    counts = outcome.report.scheduler
    assert counts.tokens_computed + counts.prefix_hit_tokens == 2 * (40 + 9) + 2 * (17 + 6) + 30
    # Longest prompt and longest output bound a batch: the second request makes none with its neighbours.
    bounded = measure(requests, tiny_llm, batch_requests=3, batch_tokens=30)
    assert bounded.report.scheduler.tokens_sampled == 3 + 10 + 2 * 7 + 1


def test_measure_stops_in_time(tiny_llm: LLM) -> None:
    outcome = measure(workload([(5, 400)] * 200), tiny_llm, stop=0.3)
    assert outcome.report.finished < 200
    assert min(outcome.finish) < 0
    assert outcome.report.now < 5
    assert not tiny_llm.engine.busy


def test_measure_refuses(tiny_llm: LLM) -> None:
    with pytest.raises(InvalidArgument, match="request 1: "):
        measure(workload([(5, 5), (600, 5)]), tiny_llm)
    stream = tiny_llm.stream([1, 2, 3], SamplingParams(max_tokens=400, ignore_eos=True))
    next(stream)
    with pytest.raises(InvalidArgument, match="the LLM is busy"):
        measure(workload(LENGTHS), tiny_llm)
    stream.close()


def test_paged_takes_fewer_steps_than_the_baselines(tiny: Any) -> None:
    """The paper's comparison on the real engine, in steps rather than seconds: with a cache of two of the longest
    sequences, everything waiting from the beginning. bench/allocation.py has the seconds."""
    pairs = [(-(-a // 4), -(-b // 4)) for a, b in paper_lengths("sharegpt", 120)]
    requests = workload([pair for pair in pairs if sum(pair) < 510][:60])
    steps = {}
    allocations: tuple[Literal["paged", "max", "pow2", "oracle"], ...] = ("paged", "max", "pow2", "oracle")
    for allocation in allocations:
        longest = None if allocation == "paged" else 512
        with LLM(
            tiny("llama")[0],
            num_blocks=64,
            enable_prefix_caching=False,
            allocation=allocation,
            max_reservation=longest,
        ) as llm:
            report = measure(requests, llm).report
        deployment = Deployment(
            name="the same",
            slots=1024,
            cost=_core.CostModel(step=1.0),
            allocation=allocation,
            max_reservation=512,
            max_batched_tokens=512,
        )
        # The engine begins while requests are still being submitted; whom paged allocation then preempts, and so the
        # number of steps, depends on the step in which a request came: by up to 10 %, simulated.
        tolerance = 0.12 if allocation == "paged" else 0.005
        assert report.steps == pytest.approx(simulate(requests, deployment).report.steps, rel=tolerance)
        steps[allocation] = report.steps
    assert steps["max"] > 3.5 * steps["paged"]
    assert steps["pow2"] > 2.5 * steps["paged"]
    assert steps["oracle"] > 1.9 * steps["paged"]
