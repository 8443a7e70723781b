"""The PagedAttention paper's comparison by the clock on the wall: paged, the Orca baselines, request-level batches.

python bench/allocation.py [--model PATH] [--dtype float32] [--slots 1024] [--scale 4] [--requests 100] [--rounds 1]
                           [--against max,pow2,oracle,batches]

Requests have ShareGPT's lengths (--lengths CSV, or drawn from the paper's histograms), divided by --scale so that a run
takes minutes; the longest sequence, for which Orca (Max) reserves, is 2048 / scale. All systems have the same model,
kernels, scheduler and KV cache of --slots tokens, no swap space, and share nothing between requests.

What a larger batch buys is what allocation can win. On a GPU reading the weights hides the arithmetic of a hundred
rows; on a CPU of AVX2 that of about eight, and the rest is arithmetic, which no allocation saves. So by default the
cache is small (two of the longest sequences, eight by paged allocation) and the type is float32, whose weights take
longest to read: the paper's situation. --dtype bfloat16, or more --slots, show what is left of it elsewhere.

saturated   all requests are there from the beginning: requests a second between the end of the first fifth of them and
            that of the fourth.
sustained   requests arrive at random (Poisson, the same requests and gaps for all systems, scaled to the rate); the
            rate at which the normalized latency (mean of (end - arrival) / output tokens) is the goal, by default the
            paper's 0.2 s: two runs whose rates are 15 % apart lie around it, and in between latency is taken to be a
            power of the rate.

The systems take turns, so that other work on the machine meets all of them; ratios are those of one round, and their
median over the rounds is reported. With few requests a rate above what a system sustains meets the goal as well: it is
over before the queue is long. That flatters those with the lower rates; take more --requests, and fewer systems, to be
rid of it. With two cores to itself the default takes half an hour; --goal 0 leaves the sustained rates out, and takes a
fifth of that.
"""

from __future__ import annotations

import argparse
import math
import random
import statistics
from collections.abc import Generator, Sequence
from typing import Any

from pagedcore import LLM
from pagedcore.lab import Workload, measure, paper_lengths, read_lengths

_STEP = 1.15  # between the rates of a search
_BASELINES = ("max", "pow2", "oracle", "batches")


class System:
    def __init__(self, name: str, llm: LLM, **options: Any) -> None:
        self.name = name
        self.llm = llm
        self.options = options

    def saturated(self, requests: Workload) -> tuple[float, float]:
        """Requests a second between the end of the first fifth of them and of the fourth, all being there from the
        beginning; and how many run at a time."""
        at_once = Workload([0.0] * len(requests), requests.prompts, requests.outputs)
        outcome = measure(at_once, self.llm, **self.options)
        ends = sorted(outcome.finish)
        first, last = len(ends) // 5, len(ends) * 4 // 5
        return (last - first) / (ends[last] - ends[first]), outcome.report.sequences

    def latency(self, requests: Workload, rate: float) -> float:
        arrivals = [time / rate for time in requests.arrivals]
        return measure(
            Workload(arrivals, requests.prompts, requests.outputs), self.llm, **self.options
        ).normalized_latency


def search(guess: float, goal: float) -> Generator[float, float, float]:
    """Asks for the latencies at rates; returns the rate of the goal, between two that are a step apart. Infinity when
    even 16 times the guess is no load, 0 when a sixteenth is too much."""
    rate = guess
    latency = yield rate
    up = latency < goal
    while guess / 16 < rate < 16 * guess:
        other_rate = rate * _STEP if up else rate / _STEP
        other = yield other_rate
        if (other < goal) != up:
            share = math.log(goal / latency) / math.log(other / latency)
            return rate * (other_rate / rate) ** share
        rate, latency = other_rate, other
    return math.inf if up else 0.0


def sustained(systems: Sequence[System], requests: Workload, guesses: Sequence[float], goal: float) -> list[float]:
    """One run of each system in turn, until every search has ended."""
    searches = [search(guess, goal) for guess in guesses]
    asked = [next(one) for one in searches]
    rates: dict[int, float] = {}
    while len(rates) < len(systems):
        for index, system in enumerate(systems):
            if index in rates:
                continue
            latency = system.latency(requests, asked[index])
            print(f"  {system.name:<14}{asked[index]:8.3f} requests/s: {latency:.4g} s per token", flush=True)
            try:
                asked[index] = searches[index].send(latency)
            except StopIteration as end:
                rates[index] = end.value
    return [rates[index] for index in range(len(systems))]


def report(what: str, unit: str, systems: Sequence[System], rounds: list[list[float]]) -> None:
    """`rounds`: a value of every system each; the first system is paged."""
    if not all(0 < value < math.inf for values in rounds for value in values):
        print(f"{what}: never reached by some; take more --requests, or another --goal")
        return
    print(f"{what}, {unit}: median of {len(rounds)} rounds, and how many times that is exceeded by {systems[0].name}")
    for index, system in enumerate(systems):
        ratios = sorted(values[0] / values[index] for values in rounds)
        middle = statistics.median(values[index] for values in rounds)
        spread = f"{ratios[0]:.2f} to {ratios[-1]:.2f}"
        print(f"  {system.name:<14}{middle:8.3f}   {statistics.median(ratios):5.2f}   ({spread})", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--lengths", metavar="CSV")
    parser.add_argument("--scale", type=int, default=4)
    parser.add_argument("--slots", type=int, default=1024)
    parser.add_argument("--requests", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--goal", type=float, default=0.2, help="seconds per token; 0: only saturated")
    parser.add_argument("--against", default=",".join(_BASELINES), help="which baselines")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    against = arguments.against.split(",")
    if unknown := set(against) - set(_BASELINES):
        parser.error(f"--against {', '.join(sorted(unknown))}: there are {', '.join(_BASELINES)}")

    longest = 2048 // arguments.scale
    batch = arguments.slots // longest
    if batch == 0:
        parser.error(f"--slots {arguments.slots}: Orca (Max) needs {longest} for one request")
    pairs = read_lengths(arguments.lengths) if arguments.lengths else paper_lengths("sharegpt")
    source = random.Random(arguments.seed)
    scaled = [(-(-a // arguments.scale), -(-b // arguments.scale)) for a, b in source.sample(pairs, len(pairs))]
    chosen = [pair for pair in scaled if sum(pair) < longest - 2][: arguments.requests]
    times = [0.0]
    for _ in chosen[1:]:
        times.append(times[-1] + source.expovariate(1.0))
    prompts = [[(number, prompt)] for number, (prompt, _) in enumerate(chosen, 1)]
    requests = Workload(times, prompts, [output for _, output in chosen])

    common: dict[str, Any] = {
        "dtype": arguments.dtype,
        "threads": arguments.threads,
        "num_blocks": arguments.slots // 16,
        "enable_prefix_caching": False,
    }
    systems = [System("paged", LLM(arguments.model, **common))]
    systems += [
        System(f"Orca ({policy})", LLM(arguments.model, allocation=policy, max_reservation=longest, **common))
        for policy in _BASELINES[:3]
        if policy in against
    ]
    if "batches" in against:
        systems.append(System("request-level", systems[0].llm, batch_requests=batch, batch_tokens=longest - 2))
    means = [statistics.mean(column) for column in zip(*chosen, strict=True)]
    print(systems[0].llm.engine.describe())
    print(
        f"{len(chosen)} requests of {means[0]:.0f} + {means[1]:.0f} tokens on average, {longest} at most; "
        f"request-level batches of {batch}"
    )

    warm_up = Workload([0.0] * 8, [[(1000 + i, 8)] for i in range(8)], [16] * 8)
    for system in systems:
        measure(warm_up, system.llm)
    capacity: list[list[float]] = []
    for _ in range(arguments.rounds):
        found = [system.saturated(requests) for system in systems]
        capacity.append([rate for rate, _ in found])
        text = ", ".join(
            f"{s.name} {rate:.3f} ({n:.1f} at a time)" for s, (rate, n) in zip(systems, found, strict=True)
        )
        print(f"  {text}", flush=True)
    report("saturated", "requests/s", systems, capacity)
    if arguments.goal <= 0:
        return
    guesses = [0.9 * statistics.median(column) for column in zip(*capacity, strict=True)]
    rates = []
    for _ in range(arguments.rounds):
        rates.append(sustained(systems, requests, guesses, arguments.goal))
        guesses = rates[-1]
    report(f"sustained at {arguments.goal:g} s per token", "requests/s", systems, rates)


if __name__ == "__main__":
    main()
