"""What this machine sustains, planned, simulated and measured.

python bench/planning.py [--device here.json] [--model PATH] [--dtype float32] [--slots 4096] [--requests 600]

Without --device the machine is measured first (`pagedcore calibrate`, a minute or two). Then `plan_service` says by
arithmetic at which rate requests of ShareGPT's lengths (--lengths CSV, or the paper's histograms), divided by --scale,
meet the goal of seconds per token; and the same requests with the same gaps, scaled to a rate, are simulated and
served for real at rates 15 % apart until the goal lies in between. Simulation and engine see the same finite trace;
the plan is about an endless one, so that few --requests would meet the goal at rates beyond it: they are over before
the queue is long. Other work on the machine makes the measured rate lower. Takes about six minutes.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Callable
from dataclasses import replace

from allocation import search

from pagedcore import LLM
from pagedcore.lab import (
    Device,
    ModelShape,
    Outcome,
    Placement,
    Workload,
    measure,
    paper_lengths,
    plan_service,
    read_lengths,
    simulate,
)
from pagedcore.lab.calibration import calibrate

_BYTES = {"float32": 4, "bfloat16": 2}
_BATCHED_TOKENS = 512


def sustained(run: Callable[[Workload], Outcome], requests: Workload, guess: float, goal: float, who: str) -> float:
    """The rate at which the normalized latency of a run is the goal."""
    rates = search(guess, goal)
    rate = next(rates)
    while True:
        outcome = run(replace(requests, arrivals=[time / rate for time in requests.arrivals]))
        latency = outcome.normalized_latency
        print(f"  {who:<10}{rate:8.3f} requests/s: {latency:.4g} s per token", flush=True)
        try:
            rate = rates.send(latency)
        except StopIteration as end:
            return float(end.value)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", metavar="JSON", help="as `pagedcore calibrate -o` writes it; default: measure now")
    parser.add_argument("--model")
    parser.add_argument("--dtype", default="float32", choices=list(_BYTES))
    parser.add_argument("--lengths", metavar="CSV")
    parser.add_argument("--scale", type=int, default=4)
    parser.add_argument("--slots", type=int, default=4096)
    parser.add_argument("--requests", type=int, default=600)
    parser.add_argument("--goal", type=float, default=0.2, help="seconds per token")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()

    longest = 2048 // arguments.scale
    pairs = read_lengths(arguments.lengths) if arguments.lengths else paper_lengths("sharegpt")
    scaled = [(-(-a // arguments.scale), -(-b // arguments.scale)) for a, b in pairs]
    fitting = [pair for pair in scaled if sum(pair) < longest]
    source = random.Random(arguments.seed)
    chosen = source.sample(fitting, min(arguments.requests, len(fitting)))
    times = [source.expovariate(1.0)]
    for _ in chosen[1:]:
        times.append(times[-1] + source.expovariate(1.0))
    prompts = [[(number, prompt)] for number, (prompt, _) in enumerate(chosen, 1)]
    requests = Workload(times, prompts, [output for _, output in chosen])

    if arguments.device:
        device = Device.load(arguments.device)
    else:
        calibration = calibrate(arguments.model, dtype=arguments.dtype)
        device = calibration.device
        print(f"calibrated: steps within {100 * calibration.fit.error:.1f} % in the median")
    model, size = ModelShape.load(arguments.model), _BYTES[arguments.dtype]
    kv_memory = float(arguments.slots * model.kv_elements * size)
    placement = Placement(model=model, device=device, weight_bytes=size, kv_bytes=size, kv_memory=kv_memory)
    deployment = placement.deploy(max_batched_tokens=_BATCHED_TOKENS, max_reservation=longest)
    plan = plan_service(chosen, deployment, latency=arguments.goal, options=False)
    print(plan)

    llm = LLM(
        arguments.model,
        dtype=arguments.dtype,
        num_blocks=arguments.slots // 16,
        max_batched_tokens=_BATCHED_TOKENS,
        enable_prefix_caching=False,
    )
    print(llm.engine.describe())
    simulated = sustained(lambda w: simulate(w, deployment), requests, plan.rate, arguments.goal, "simulated")
    measured = sustained(lambda w: measure(w, llm), requests, simulated, arguments.goal, "measured")
    print(f"{len(requests)} requests at {arguments.goal:g} s per token, requests/s and by how much above the measured:")
    for name, rate in (("measured", measured), ("simulated", simulated), ("planned", plan.rate)):
        print(f"  {name:<10}{rate:8.3f}  {100 * (rate / measured - 1):+6.1f} %")


if __name__ == "__main__":
    main()
