"""``pagedcore fleet``: many replicas behind the routers that serve, on a virtual clock."""

from __future__ import annotations

import argparse
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ...checks import check_real
from ...errors import InvalidArgument
from ..common import Formatter, add_report_flags, print_json
from .arrivals import listed
from .deployed import add_deployed_flags, read_deployed

if TYPE_CHECKING:
    from ...lab import Deployment, Workload
    from ...lab.fleet import Fleet

__all__ = ["add_to"]

_EPILOG = """\
examples:
  pagedcore fleet --model llama-3.1-8b --device h100 --trace YOUR_TRACE.jsonl
  pagedcore fleet --model llama-3.1-8b --device h100 --trace YOUR_TRACE.jsonl --replicas 10,100 --load 0.5,0.9
  pagedcore fleet --model mistral-7b --device l4 --trace YOUR_TRACE.jsonl --replicas 4 --autoscale 40 --rate 20

Every replica is the scheduler that serves real requests under an executor that prices each plan on a virtual clock;
routers and autoscaler are the code that pagedcore.ray runs. The trace (Mooncake's format has prefixes) is sped up to
--load of what the fleet can do: a replica's share is what it completes a second of requests that are all there at the
beginning. What may be a list (A,B,...) is run in every combination."""


def add_to(commands: Any) -> None:
    parser: argparse.ArgumentParser = commands.add_parser(
        "fleet",
        help="simulate many replicas behind routers",
        description="Says what many replicas of a model make of a trace, by how their routers choose.",
        epilog=_EPILOG,
        formatter_class=Formatter,
    )
    served = parser.add_argument_group("model and device")
    served.add_argument(
        "-m", "--model", metavar="NAME", help="a known shape, such as llama-3.1-8b; or file, directory, hub id"
    )
    add_deployed_flags(served)
    served.add_argument("--block-size", type=int, default=256, metavar="N", help="tokens per KV block (default 256)")
    served.add_argument(
        "--max-batched-tokens", type=int, default=2560, metavar="N", help="tokens computed in one step (default 2560)"
    )
    requests = parser.add_argument_group("requests")
    requests.add_argument("--trace", metavar="FILE", help="requests with their times and prefixes")
    requests.add_argument("--load", metavar="L,...", help="share of what the fleet can do (default 0.7)")
    requests.add_argument("--rate", type=float, metavar="R", help="requests a second, instead of --load")
    requests.add_argument("--seconds", type=float, metavar="S", help="the first S seconds of the trace (default: all)")
    requests.add_argument(
        "--copies", type=int, default=1, metavar="N", help="the trace N times side by side, each with its own prefixes"
    )
    fleet = parser.add_argument_group("fleet")
    fleet.add_argument("--replicas", metavar="N,...", help="how many serve (default 1000)")
    fleet.add_argument(
        "--policy",
        metavar="NAME,...",
        help="how routers choose: round-robin, least-loaded, prefix-aware, predicted (default: all of them)",
    )
    fleet.add_argument(
        "--routers", type=int, default=4, metavar="N", help="that know nothing of each other (default 4)"
    )
    fleet.add_argument(
        "--report-every", type=float, default=1.0, metavar="S", help="seconds between news of a replica (default 1)"
    )
    fleet.add_argument(
        "--autoscale", type=int, metavar="MOST", help="let the autoscaler choose, from --replicas to so many"
    )
    fleet.add_argument(
        "--start-seconds", type=float, default=30.0, metavar="S", help="until a new replica serves (default 30)"
    )
    parser.add_argument("--json", action="store_true", help="print a JSON object")
    add_report_flags(parser)
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    from ...lab.fleet import capacity, simulate_fleet
    from ...progress import Progress

    fleets = _fleets(arguments)
    loads = _loads(arguments)
    deployment, workload, about = _served(arguments)
    each = capacity(workload, deployment)
    runs = []
    with Progress(len(fleets) * len(loads) * len(workload), "requests") as bar:
        for at, (load, fleet) in enumerate((load, fleet) for load in loads for fleet in fleets):
            rate = arguments.rate if load is None else load * fleet.replicas * each
            played = workload.at_rate(rate)

            def reach(done: int, all: int, before: int = at) -> None:
                bar.reach(before * all + done, len(fleets) * len(loads) * all)

            runs.append({"load": load, **simulate_fleet(played, deployment, fleet, progress=reach).to_dict()})
    if arguments.json:
        print_json(
            {
                "deployment": deployment.name,
                "slots": deployment.slots,
                "requests": about,
                "capacity": each,
                "constants": deployment.cost.to_dict(),
                "runs": runs,
            }
        )
    else:
        print(f"{deployment.name}: {deployment.slots:,} tokens of KV a replica, in blocks of {deployment.block_size}")
        print(f"{about}; a replica completes {each:.3g} a second\n")
        print(_table(runs))
    return 0


def _loads(arguments: argparse.Namespace) -> list[float | None]:
    """None: at --rate."""
    loads = listed(arguments, "load", float)
    if arguments.rate is None:
        for load in loads:
            check_real("--load", load, 0, 100, above_low=True)
        return [*(loads or [0.7])]
    if loads:
        raise InvalidArgument("--rate and --load both say how fast requests arrive: give one of them")
    check_real("--rate", arguments.rate, 0, 1e9, above_low=True)
    return [None]


def _served(arguments: argparse.Namespace) -> tuple[Deployment, Workload, str]:
    from ...lab import Deployment, Workload, read_trace
    from ...lab.fleet import side_by_side

    if arguments.device is None and arguments.setting is None:
        raise InvalidArgument("say what serves, with --model and --device, or --setting")
    if arguments.trace is None:
        raise InvalidArgument("say which requests come, with --trace")
    sizes = {"block_size": arguments.block_size, "max_batched_tokens": arguments.max_batched_tokens}
    served = read_deployed(arguments)
    if isinstance(served, Deployment):
        deployment = replace(served, enable_prefix_caching=True, **sizes)
    else:
        deployment = served.deploy(enable_prefix_caching=True, **sizes)
    deployment.config()
    trace = read_trace(arguments.trace)
    if not isinstance(trace, Workload):
        raise InvalidArgument(f"--trace {arguments.trace} says nothing about when requests arrive")
    kept = trace.shorter_than(min(deployment.max_reservation, deployment.slots))
    left = len(trace) - len(kept)
    if arguments.seconds is not None:
        kept = kept.first(arguments.seconds)
    if len(kept) < 2:
        raise InvalidArgument(f"{arguments.trace} has fewer than two requests that can be served")
    copies = f", {arguments.copies} times side by side" if arguments.copies > 1 else ""
    about = f"{arguments.trace}: {len(kept):,} requests{copies}"
    about += f"; {left:,} left out that are longer than what can be served" if left else ""
    return deployment, side_by_side(kept, arguments.copies), about


def _fleets(arguments: argparse.Namespace) -> list[Fleet]:
    from ...lab.fleet import Fleet
    from ...routing import POLICIES, Autoscaler

    fleets = []
    for replicas in listed(arguments, "replicas", int) or [1000]:
        for policy in listed(arguments, "policy", str) or POLICIES:
            scaler = None
            if arguments.autoscale is not None:
                scaler = Autoscaler(min_replicas=replicas, max_replicas=arguments.autoscale)
            fleets.append(
                Fleet(
                    policy=policy,
                    replicas=replicas,
                    routers=arguments.routers,
                    report_every=arguments.report_every,
                    max_age=max(5.0, 5 * arguments.report_every),
                    autoscaler=scaler,
                    start_seconds=arguments.start_seconds,
                )
            )
    return fleets


def _table(runs: list[dict[str, Any]]) -> str:
    head = ("policy", "replicas", "load", "a second", "hits %", "first s", "p99", "then ms", "p99", "s/token", "took s")
    rows = [head]
    for run in runs:
        first, then, token = run["time_to_first_token"], run["time_per_output_token"], run["normalized_latency"]
        replicas = f"{run['replicas']:,}"
        if run["most_replicas"] != run["replicas"]:
            replicas += f"-{run['most_replicas']:,}"
        rows.append(
            (
                run["policy"],
                replicas,
                "" if run["load"] is None else f"{run['load']:g}",
                f"{run['requests_per_second']:.4g}",
                f"{100 * run['prefix_hits']:.1f}",
                f"{first['p50']:.3g}",
                f"{first['p99']:.3g}",
                "-" if then is None else f"{1000 * then['p50']:.3g}",
                "-" if then is None else f"{1000 * then['p99']:.3g}",
                f"{token['mean']:.3g}",
                f"{run['took']:.0f}",
            )
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            [row[0].ljust(widths[0]), *(text.rjust(width) for text, width in zip(row[1:], widths[1:], strict=True))]
        )
        for row in rows
    )
