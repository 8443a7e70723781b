"""Scheduling policies: each does what it is for on the virtual clock, and no output of the real engine changes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pagedcore import LLM, InvalidArgument, SamplingParams, replay_trace
from pagedcore.cli import main
from pagedcore.lab import Deployment, Outcome, Workload, paper_lengths, poisson_workload, simulate
from pagedcore.stream import Stream
from texts import PROMPTS

OPT_13B = Deployment.of_paper("opt-13b")


@pytest.fixture(scope="module")
def overload() -> Workload:
    """More than the device serves, by requests that ask for 2048 tokens and stop earlier."""
    return replace(poisson_workload(paper_lengths("sharegpt"), rate=1.9, seconds=900), max_tokens=2048)


def preemptions(outcome: Outcome) -> int:
    stats = outcome.report.scheduler
    return stats.preemptions_recompute + stats.preemptions_swap


def test_admissions(overload: Workload) -> None:
    of = {
        admission: simulate(overload, replace(OPT_13B, admission=admission), window=(200, 900))
        for admission in ("known", "watermark", "adaptive", "never_evict")
    }
    preempted = {name: preemptions(outcome) for name, outcome in of.items()}
    batch = {name: outcome.report.requests for name, outcome in of.items()}
    assert preempted["never_evict"] == 0
    assert preempted["watermark"] > 200
    assert preempted["known"] <= preempted["watermark"]
    assert 20 * preempted["adaptive"] < preempted["watermark"]
    assert batch["adaptive"] > 3 * batch["never_evict"]
    assert batch["adaptive"] > 0.8 * batch["known"]
    assert all(outcome.report.finished == len(overload) for outcome in of.values())


def test_victims(overload: Workload) -> None:
    cheapest, last = (simulate(overload, replace(OPT_13B, victim=victim)) for victim in ("cheapest", "last_arrival"))
    assert preemptions(cheapest) != preemptions(last)
    assert cheapest.report.finished == last.report.finished == len(overload)


def test_priority(overload: Workload) -> None:
    """One request in ten is urgent."""
    urgent = np.arange(len(overload)) % 10 == 0
    workload = replace(overload, priorities=urgent.astype(int).tolist())
    fcfs, priority = (simulate(workload, replace(OPT_13B, order=order)) for order in ("fcfs", "priority"))

    def wait(outcome: Outcome) -> Any:
        return np.array(outcome.first_token) - np.array(workload.arrivals)

    assert np.percentile(wait(priority)[urgent], 99) < 1.0
    assert np.percentile(wait(fcfs)[urgent], 99) > 5.0
    assert np.median(wait(priority)[~urgent]) >= np.median(wait(fcfs)[~urgent])
    # Who is served first costs little of what is served.
    assert priority.report.now < 1.05 * fcfs.report.now
    assert priority.report.finished == len(workload)


def served(outcome: Outcome, tenant: int, until: float) -> float:
    """Weighted tokens of requests that have ended."""
    workload = outcome.workload
    assert workload.tenants is not None
    return sum(
        sum(tokens for _, tokens in prompt) + 2.0 * output
        for prompt, output, finish, owner in zip(
            workload.prompts, workload.outputs, outcome.finish, workload.tenants, strict=True
        )
        if owner == tenant and 0 <= finish <= until
    )


def test_fair_bounds_the_difference_of_service() -> None:
    """Two tenants ask for more than there is, one of them nine times as much as the other."""
    workload = poisson_workload(paper_lengths("sharegpt"), rate=10, seconds=600)
    workload = replace(workload, tenants=[0 if i % 10 else 1 for i in range(len(workload))])
    longest = max(sum(tokens for _, tokens in prompt) for prompt in workload.prompts)
    bound = 2 * max(1.0 * longest, 2.0 * OPT_13B.slots)
    # Requests under way count when they end: each tenant may have a full cache of them at either end.
    bound += 2 * 2.0 * OPT_13B.slots
    differences = {}
    for order in ("fair", "fcfs"):
        outcome = simulate(workload, replace(OPT_13B, order=order), stop=600)
        shares = [[served(outcome, tenant, until) for tenant in (0, 1)] for until in range(100, 600, 50)]
        gaps = [one - other for one, other in shares]
        differences[order] = max(gaps) - min(gaps)
        assert sum(shares[-1]) > 5 * bound
    assert differences["fair"] <= bound
    assert differences["fcfs"] > 2 * bound


def test_fair_protects_a_tenant_that_asks_for_little() -> None:
    heavy = poisson_workload(paper_lengths("sharegpt"), rate=3, seconds=600)
    light = poisson_workload(paper_lengths("sharegpt"), rate=0.2, seconds=600, seed=1)
    both = sorted(
        [(*request, 0) for request in zip(heavy.arrivals, heavy.prompts, heavy.outputs, strict=True)]
        + [(*request, 1) for request in zip(light.arrivals, light.prompts, light.outputs, strict=True)],
        key=lambda request: request[0],
    )
    arrivals, prompts, outputs, tenants = (list(column) for column in zip(*both, strict=True))
    prompts = [[(number, tokens) for _, tokens in prompt] for number, prompt in enumerate(prompts)]
    workload = Workload(arrivals, prompts, outputs, tenants=tenants)
    own = np.array(tenants) == 1
    waits = {}
    for order in ("fcfs", "fair"):
        outcome = simulate(workload, replace(OPT_13B, order=order))
        waits[order] = float(np.mean((np.array(outcome.first_token) - np.array(arrivals))[own]))
    assert waits["fair"] < waits["fcfs"] / 5


POLICIES: dict[str, dict[str, Any]] = {
    "priority": {"order": "priority", "victim": "last_arrival"},
    "fair, adaptive": {"order": "fair", "admission": "adaptive"},
    "never_evict": {"order": "fair", "admission": "never_evict"},
    "watermark, swap": {"order": "priority", "admission": "watermark", "swap_space": "8MiB", "preemption": "swap"},
}


@pytest.fixture(scope="module")
def undisturbed(gguf: Any) -> list[Any]:
    with LLM(gguf, num_blocks=512) as llm:
        return [[(o.token_ids, o.logprobs) for o in llm.generate(p, params(i))[0].outputs] for i, p in prompts()]


def prompts() -> list[tuple[int, str]]:
    return list(enumerate(PROMPTS[:8]))


def params(index: int) -> SamplingParams:
    samples = 3 if index == 2 else 1
    return SamplingParams(max_tokens=24, temperature=0.9, seed=index, n=samples, logprobs=1, ignore_eos=True)


def read(stream: Stream) -> list[Any]:
    """All samples of a stream, put together from its news."""
    samples: dict[int, tuple[list[int], list[Any]]] = {}
    for news in stream:
        for delta in news.outputs:
            tokens, logprobs = samples.setdefault(delta.index, ([], []))
            tokens += delta.token_ids
            logprobs += delta.logprobs or []
    return [samples[index] for index in sorted(samples)]


@pytest.mark.parametrize("policies", POLICIES)
def test_no_output_changes(policies: str, gguf: Any, undisturbed: list[Any], tmp_path: Path) -> None:
    """Later requests have higher priorities and other tenants; the cache holds about a third of them."""
    trace = tmp_path / "trace"
    with LLM(gguf, num_blocks=14, trace_file=trace, **POLICIES[policies]) as llm:
        streams = [llm.stream(p, params(i), priority=i, tenant=i % 3) for i, p in prompts()]
        found = [read(stream) for stream in streams]
        stats = llm.stats()
    assert found == undisturbed
    preempted = stats["preemptions_recompute"] + stats["preemptions_swap"]
    assert preempted == 0 if policies == "never_evict" else preempted > 0 or "adaptive" in policies
    replay = replay_trace(str(trace))
    assert replay.requests == len(streams)
    assert not replay.difference


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"order": "lifo"}, "order = 'lifo' is not one of fcfs, priority, fair"),
        ({"admission": "all"}, "admission = 'all' is not one of known, watermark, never_evict, adaptive"),
        ({"victim": None}, "victim = None is not one of the texts cheapest, last_arrival"),
    ],
)
def test_unknown_policies(options: dict[str, Any], message: str, gguf: Any) -> None:
    with pytest.raises(InvalidArgument, match=message):
        LLM(gguf, **options)
    with pytest.raises(InvalidArgument, match="is not one of"):
        simulate(Workload([0.0], [[(1, 10)]], [5]), replace(OPT_13B, **{k: v or "" for k, v in options.items()}))
    (name, value) = next(iter(options.items()))
    with pytest.raises(SystemExit) as end:  # argparse's own check of choices
        main(["plan", f"--{name}", str(value)])
    assert end.value.code == 2


def test_bad_priorities_and_tenants(llm: LLM) -> None:
    for value in (1_000_001, -1_000_001):
        with pytest.raises(InvalidArgument, match=r"priority = .* must lie in \[-1000000, 1000000\]"):
            llm.generate("x", priority=value)
    for value in (1.5, True, None):
        with pytest.raises(InvalidArgument, match=r"priority = .* is not a whole number"):
            llm.generate("x", priority=value)  # type: ignore[arg-type]
    for value in (-1, 2**64):
        with pytest.raises(InvalidArgument, match=r"tenant = .* must lie in"):
            llm.stream("x", tenant=value)
    with pytest.raises(InvalidArgument, match=r"tenant = 'a' is not a whole number"):
        llm.stream("x", tenant="a")  # type: ignore[arg-type]
    one: dict[str, Any] = {"arrivals": [0.0], "prompts": [[(1, 10)]], "outputs": [5]}
    with pytest.raises(InvalidArgument, match="2 priorities for 1 requests"):
        Workload(**one, priorities=[1, 2])
    with pytest.raises(InvalidArgument, match=r"priorities\[0\]=1000001 must be an integer in"):
        Workload(**one, priorities=[1_000_001])
    with pytest.raises(InvalidArgument, match=r"tenants\[0\]=-1 must be an integer in"):
        Workload(**one, tenants=[-1])
    with pytest.raises(InvalidArgument, match="request 0 generates 5 tokens, more than its max_tokens = 4"):
        simulate(Workload(**one, max_tokens=4), OPT_13B)
