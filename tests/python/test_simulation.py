"""The scheduler on a virtual clock: the paper's memory and latency, workloads, traces, and the real engine's plans."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pagedcore import LLM, Corrupt, InvalidArgument, Io, SamplingParams, _core
from pagedcore.lab import (
    Deployment,
    Workload,
    poisson_workload,
    read_azure,
    read_lengths,
    read_mooncake,
    simulate,
)
from texts import PROMPTS

TRACES = Path(__file__).parents[2].parent / "shared" / "traces"
OPT_13B = Deployment.of_paper("opt-13b")


def real_trace(name: str) -> Path:
    path = TRACES / name
    if not path.exists():
        pytest.skip(f"the real trace {name} is not here (looked in {TRACES}); nothing else stands for it")
    return path


@pytest.fixture(scope="module")
def sharegpt() -> list[tuple[int, int]]:
    return read_lengths(real_trace("sharegpt_lengths.csv"))


def baseline(allocation: Any) -> Deployment:
    return replace(OPT_13B, allocation=allocation)


# Figure 2 of the paper: token states, reserved, internal, external and others, in percent of all slots.
FIGURE_2 = {
    "max": (20.41, 13.35, 57.30, 8.94),
    "pow2": (26.85, 17.88, 13.65, 41.62),
    "oracle": (38.20, 25.24, 0.0, 36.56),
}


@pytest.mark.parametrize("allocation", FIGURE_2)
def test_figure_2_baselines(allocation: str, sharegpt: list[tuple[int, int]]) -> None:
    workload = poisson_workload(sharegpt, rate=4, seconds=900)
    report = simulate(workload, baseline(allocation), window=(300, 900), stop=900).report
    shares = [100 * share for share in (report.token_states, report.reserved, report.internal)]
    shares.append(100 - sum(shares))
    assert abs(shares[0] - FIGURE_2[allocation][0]) < 1.5
    for ours, paper in zip(shares[1:], FIGURE_2[allocation][1:], strict=True):
        assert abs(ours - paper) < 2


def test_figure_2_paged(sharegpt: list[tuple[int, int]]) -> None:
    workload = poisson_workload(sharegpt, rate=4, seconds=900)
    report = simulate(workload, OPT_13B, window=(300, 900), stop=900).report
    assert abs(100 * report.token_states - 96.26) < 1.5
    assert abs(100 * report.allocated - 97.9) < 2
    assert report.reserved == report.internal == 0


# Figure 12 (a): requests a second, and the normalised latency there, below the knee.
FIGURE_12A = {
    "max": [(0.2, 0.0299), (0.4, 0.0595), (0.5, 0.0823)],
    "pow2": [(0.5, 0.0397), (0.75, 0.1168)],
    "oracle": [(0.75, 0.0412), (0.9, 0.0849), (1.0, 0.1923)],
    "paged": [(1.0, 0.0371), (1.5, 0.0487), (1.75, 0.1126)],
}


@pytest.mark.parametrize("allocation", FIGURE_12A)
def test_figure_12a_points(allocation: str, sharegpt: list[tuple[int, int]]) -> None:
    # The cost model's constants were fitted to these curves with an error of about 18 %.
    for rate, paper in FIGURE_12A[allocation]:
        ours = simulate(poisson_workload(sharegpt, rate, 3600), baseline(allocation)).normalized_latency
        assert ours == pytest.approx(paper, rel=0.25), rate


def test_ten_thousand_requests_take_less_than_ten_seconds(sharegpt: list[tuple[int, int]]) -> None:
    workload = poisson_workload(sharegpt, rate=1.7, seconds=6000)
    assert len(workload) > 10_000
    start = time.process_time()
    outcome = simulate(workload, OPT_13B)
    assert time.process_time() - start < 10
    assert outcome.report.finished == len(workload)


def test_an_hour_of_mooncake_takes_less_than_a_minute() -> None:
    workload = read_mooncake(real_trace("mooncake_conversation.jsonl"))
    assert len(workload) > 12_000
    # A device that keeps up; its memory holds part of what comes back.
    cost = _core.CostModel(step=0.005, weights=0.005, row=1e-6, pair=1e-12, context_token=2e-8, sample=1e-5)
    cluster = Deployment(
        name="a cluster", slots=20_000_000, cost=cost, enable_prefix_caching=True, max_batched_tokens=16384
    )
    start = time.process_time()  # others may use the machine
    report = simulate(workload, cluster).report
    assert time.process_time() - start < 60
    assert report.finished == len(workload)
    prompts = sum(size for prompt in workload.prompts for _, size in prompt)
    assert 0.15 < report.scheduler.prefix_hit_tokens / prompts < 0.40  # 37 % of the ids come again


def test_request_level_batches_are_worse_than_iterations() -> None:
    workload = poisson_workload([(100, 20), (40, 300), (500, 90)], rate=0.2, seconds=600)
    iterations = simulate(workload, OPT_13B).normalized_latency
    batches = simulate(workload, OPT_13B.request_level(5, step=0.0045)).normalized_latency
    assert batches > 1.3 * iterations


def test_workload_is_the_same_everywhere() -> None:
    workload = poisson_workload([(1, 2), (3, 4), (2000, 60), (5, 6), (7, 8)], rate=20, seconds=0.5)
    assert [round(time, 2) for time in workload.arrivals] == GOLDEN_ARRIVALS
    assert workload.outputs == GOLDEN_OUTPUTS
    assert [size for prompt in workload.prompts for _, size in prompt] == [output - 1 for output in GOLDEN_OUTPUTS]
    assert len({content for prompt in workload.prompts for content, _ in prompt}) == len(workload)


GOLDEN_ARRIVALS = [0.07, 0.07, 0.11, 0.14, 0.15, 0.15, 0.21, 0.31, 0.44]
GOLDEN_OUTPUTS = [8, 4, 4, 8, 2, 6, 2, 2, 6]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rate": 0, "seconds": 5}, "rate=0 is requests a second"),
        ({"rate": float("nan"), "seconds": 5}, "rate=nan"),
        ({"rate": 1, "seconds": -5}, "seconds=-5"),
        ({"rate": 1, "seconds": 5, "max_tokens": 10}, "none of the 1 pairs"),
    ],
)
def test_bad_workloads(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidArgument, match=message):
        poisson_workload([(10, 10)], **arguments)


@pytest.mark.parametrize(
    ("reader", "text", "message"),
    [
        (read_lengths, "input_tokens\n5\n", ":1: the first line has no column output_tokens"),
        (read_lengths, "", "has no column input_tokens, output_tokens"),
        (read_lengths, "input_tokens,output_tokens\n5\n", ":2: 1 fields"),
        (read_lengths, "input_tokens,output_tokens\n5,-6\n", ":2: a length of -6 tokens"),
        (read_lengths, "input_tokens,output_tokens\n5,many\n", "'many' is no number"),
        (read_lengths, "input_tokens,output_tokens\n99999999999,1\n", "a length of 99999999999"),
        (read_azure, "TIMESTAMP,ContextTokens,GeneratedTokens\nnoon,5,6\n", "TIMESTAMP 'noon' is no time"),
        (
            read_azure,
            "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46.68,5,6\n2023-11-16 18:15:45.0,5,6\n",
            ":3: arrives at -1.68 s",
        ),
        (read_mooncake, "[]\n", ":1: this is no JSON object"),
        (read_mooncake, '{"timestamp": 0, "input_length": 5}\n', "output_length, hash_ids missing"),
        (
            read_mooncake,
            '{"timestamp": 0, "input_length": 513, "output_length": 5, "hash_ids": [1]}\n',
            "of 513 tokens has 2 hash_ids",
        ),
        (
            read_mooncake,
            '{"timestamp": NaN, "input_length": 5, "output_length": 5, "hash_ids": [1]}\n',
            "arrives at nan s",
        ),
    ],
)
def test_bad_traces(reader: Any, text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "trace"
    path.write_text(text)
    with pytest.raises(Corrupt) as caught:
        reader(path)
    assert message in str(caught.value)


def test_missing_trace() -> None:
    with pytest.raises(Io, match="No such file"):
        read_lengths("nowhere.csv")


def test_real_traces_are_read() -> None:
    azure = read_azure(real_trace("azure_2023_conv.csv"))
    assert len(azure) == 19366
    assert 3400 < azure.arrivals[-1] < 3600
    assert np.mean([size for prompt in azure.prompts for _, size in prompt]) == pytest.approx(1155, abs=1)


def test_deployments_that_do_not_fit() -> None:
    with pytest.raises(InvalidArgument, match="none of the paper's settings: opt-13b, opt-66b, opt-175b"):
        Deployment.of_paper("opt-30b")
    workload = Workload([0.0], [[(1, 100)]], [50])
    with pytest.raises(InvalidArgument, match="15 slots hold no block"):
        simulate(workload, replace(OPT_13B, slots=15))
    with pytest.raises(InvalidArgument, match=r"request 1: .* need"):
        simulate(workload, replace(OPT_13B, slots=100))
    with pytest.raises(InvalidArgument, match="1 arrivals, 0 prompts"):
        Workload([0.0], [], [5])


# rule: sim.plans-as-the-engine
def test_plans_are_those_of_the_real_engine(gguf: Any, tmp_path: Path) -> None:
    """The engine says which requests were there at which step; served with a second for every step, the simulator plans
    the same, step by step: sequences, rows, block tables' sizes, copies and preemptions."""
    trace = tmp_path / "trace"
    # One sample: what a recomputed group shares depends on the tokens that its samples happen to have in common.
    params = SamplingParams(max_tokens=60, temperature=0.8, ignore_eos=True)
    blocks = 40
    with LLM(
        gguf,
        num_blocks=blocks,
        enable_prefix_caching=False,
        preemption="recompute",
        max_batched_tokens=64,
        trace_file=trace,
    ) as llm:
        llm.generate(PROMPTS[:16], params)
        assert llm.stats()["preemptions_recompute"] > 0
    arrivals: list[float] = []
    prompts: list[list[tuple[int, int]]] = []
    real: list[str] = []
    for line in trace.read_text().splitlines():
        word, *fields = line.split()
        if word == "submit":
            arrivals.append(float(len(real)))
            prompt = dict(field.split("=") for field in fields)["prompt"]
            prompts.append([(len(prompts) + 1, len(prompt.split(",")))])
        elif word == "plan" and " step 0 " not in line:
            real.append(line.split(" step ")[1].split(" digest ")[0])
    simulation = _core.Simulation(
        _core.SimulationConfig(
            scheduler=_core.SchedulerConfig(max_batched_tokens=64, max_context=8192, preemption="recompute"),
            cache=_core.KvCacheConfig(num_blocks=blocks, enable_prefix_caching=False),
            cost=_core.CostModel(step=1.0),
        ),
        arrivals,
        prompts,
        [60] * len(prompts),
    )
    simulated = []
    while simulation.run(1):
        simulated.append(simulation.last_plan().removeprefix("step ").split(" digest ")[0])
    assert len(real) > 50
    assert any(not plan.endswith("preempted 0") for plan in real)
    assert simulated == real
