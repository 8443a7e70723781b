"""``pagedcore simulate``: the paper's figures, and runs of one's own, from the shipped scheduler."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial
from itertools import product
from typing import TYPE_CHECKING, Any, NamedTuple

from ...errors import InvalidArgument
from ..common import Formatter, add_report_flags, check_output, print_json, refuse_unused
from .arrivals import add_arrival_flags, listed, read_arrivals
from .deployed import add_deployed_flags, read_deployed

if TYPE_CHECKING:
    from ...lab import Deployment, Workload

__all__ = ["add_to"]

_EPILOG = """\
examples:
  pagedcore simulate --figure 2
  pagedcore simulate --figure 12a --seconds 600 --plot figure12a.svg
  pagedcore simulate --model llama-7b --device a100-40gb --rate 1,2,4 --allocation paged,oracle
  pagedcore simulate --setting opt-13b --rate 1 --samples 1,2,4
  pagedcore simulate --model llama-7b --device a100-40gb --trace YOUR_TRACE.csv --json

The scheduler and block manager that serve real requests run under an executor that prices each plan on a virtual
clock. Requests come from a trace (Azure's or Mooncake's format, played as it was recorded, or at --rate), or have
lengths of a list and arrive at random at --rate. What may be a list (A,B,...) is run in every combination."""


class _Flag(NamedTuple):
    name: str
    kind: Callable[[str], int | str]
    help: str


_POLICIES = (
    _Flag("order", str, "who is served first: fcfs, priority or fair (between tenants)"),
    _Flag("admission", str, "when a request is admitted: known, watermark, never_evict or adaptive"),
    _Flag("victim", str, "who makes room: cheapest or last_arrival"),
    _Flag("allocation", str, "how memory is allocated: paged, or a baseline of the paper: max, pow2 or oracle"),
    _Flag("preemption", str, "how requests make room: recompute, swap (to a space as large as the cache) or auto"),
    _Flag("prefix-caching", str, "on (default) or off"),
    _Flag("block-size", int, "tokens per KV block"),
    _Flag("max-sequences", int, "sequences in one step"),
    _Flag("max-batched-tokens", int, "tokens computed in one step"),
)
_SAMPLES = (
    _Flag("samples", int, "sequences sampled for each request"),
    _Flag("beam-width", int, "width of a beam search, instead of samples"),
)


def add_to(commands: Any) -> None:
    parser: argparse.ArgumentParser = commands.add_parser(
        "simulate",
        help="simulate a deployment, or a figure of the PagedAttention paper",
        description="Says how fast a model on a device would serve a load, under which policy; or prints a figure of\n"
        "the PagedAttention paper as this scheduler reproduces it, beside the paper's.",
        epilog=_EPILOG,
        formatter_class=Formatter,
    )
    figure = parser.add_argument_group("a figure of the paper")
    figure.add_argument("--figure", metavar="NAME", help="which figure: 2, 12a, 13 and others")
    figure.add_argument("--plot", metavar="FILE", help="draw it: .svg, .png or .pdf (needs pagedcore[plot])")
    figure.add_argument(
        "--conversations", metavar="CSV", help="for figure 17: real chats, a CSV file with a column conversation"
    )

    served = parser.add_argument_group("model and device")
    served.add_argument(
        "-m", "--model", metavar="NAME", help="a known shape, such as llama-7b; or file, directory, hub id"
    )
    add_deployed_flags(served)
    add_arrival_flags(parser)

    for title, flags in (("every request", _SAMPLES), ("policies", _POLICIES)):
        group = parser.add_argument_group(title)
        for flag in flags:
            group.add_argument(f"--{flag.name}", metavar="N,..." if flag.kind is int else "NAME,...", help=flag.help)
        if flags is _SAMPLES:
            group.add_argument(
                "--max-tokens",
                type=int,
                metavar="N",
                help="max_tokens of a request (default: the length of its output)",
            )
            group.add_argument(
                "--tenants",
                metavar="SHARE,...",
                help="shares of the requests by tenant, at random; the first tenant has the highest priority",
            )

    parser.add_argument("--json", action="store_true", help="print a JSON object")
    add_report_flags(parser)
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    if arguments.figure is not None:
        return _figure(arguments)
    refuse_unused(arguments, ("plot", "conversations"), "is for a figure of the paper: give --figure too")
    return _compare(arguments)


def _figure(arguments: argparse.Namespace) -> int:
    from ...lab import FIGURES, draw, read_conversations, read_lengths, reproduce
    from ...lab.figures import MEASURED, OF_SHAREGPT, check_plot
    from ...progress import Progress

    if arguments.figure not in FIGURES:
        raise InvalidArgument(f"figure {arguments.figure!r} is not simulated; there are: {', '.join(FIGURES)}")
    own = {"figure", "plot", "conversations", "lengths", "seconds", "json", "debug", "verbose", "run"}
    others = [name for name, value in vars(arguments).items() if value is not None and name not in own]
    if others:
        raise InvalidArgument(
            f"--{others[0].replace('_', '-')} is for runs of your own: a figure of the paper has its own"
        )
    if arguments.figure not in OF_SHAREGPT:
        refuse_unused(arguments, ("lengths",), f"has no effect: figure {arguments.figure} is not about ShareGPT's")
    if arguments.figure != "17":
        refuse_unused(arguments, ("conversations",), "has no effect: figure 17 is about chats")
    if arguments.figure in MEASURED:
        refuse_unused(arguments, ("seconds",), f"has no effect: figure {arguments.figure} is measured, not simulated")
    if arguments.plot is not None:
        check_plot(arguments.plot)
        check_output(arguments.plot)
    lengths = read_lengths(arguments.lengths) if arguments.lengths else None
    chats = read_conversations(arguments.conversations) if arguments.conversations else None
    with Progress(1, "runs") as bar:
        figure = reproduce(
            arguments.figure, lengths, conversations=chats, seconds=arguments.seconds, progress=bar.reach
        )
    if arguments.plot is not None:
        draw(figure, arguments.plot)
    if arguments.json:
        print_json(figure.to_dict())
    else:
        print(figure)
    return 0


def _compare(arguments: argparse.Namespace) -> int:
    from ...lab import Trial, compare, costs_text
    from ...progress import Progress

    deploy = _deploy(arguments)
    policies = [_under(deploy, names) for names in _combinations(arguments, _POLICIES)]
    arrivals = read_arrivals(arguments, max_tokens=min(min(d.max_reservation, d.slots) for _, d in policies))
    trials = []
    for (named, deployment), samples in product(policies, _combinations(arguments, _SAMPLES)):
        for rate, workload in arrivals.workloads.items():
            arriving = {} if rate is None else {"rate": rate}
            shaped = _shaped(workload, samples, arguments)
            trials.append(Trial({**named, **samples, **arriving}, shaped, deployment))
    total = sum(len(trial.workload) for trial in trials)
    with Progress(total, "requests") as bar:
        comparison = compare(trials, progress=lambda done: bar.reach(done, total))
    constants = trials[0].deployment.cost
    if arguments.json:
        print_json(
            {
                "deployment": trials[0].deployment.name,
                "requests": arrivals.about,
                "constants": constants.to_dict(),
                "runs": comparison.to_dict(),
            }
        )
    else:
        slots = " or ".join(f"{slots:,}" for slots in sorted({trial.deployment.slots for trial in trials}))
        common = "".join(f", {name} {value}" for name, value in comparison.common.items())
        print(f"{trials[0].deployment.name}, {slots} slots of KV{common}")
        print(f"{arrivals.about}\n{costs_text(constants)}\n\n{comparison}")
    return 0


def _deploy(arguments: argparse.Namespace) -> Callable[..., Deployment]:
    """What makes a deployment of given policies."""
    from ...lab import Deployment

    if arguments.device is None and arguments.setting is None:
        raise InvalidArgument(
            "say what serves, with --model and --device, or --setting; or which figure of the paper to show: --figure"
        )
    served = read_deployed(arguments)
    return partial(replace, served) if isinstance(served, Deployment) else served.deploy


def _combinations(arguments: argparse.Namespace, flags: Iterable[_Flag]) -> Iterator[dict[str, Any]]:
    """Every combination of the values that are given."""
    given = {flag.name: values for flag in flags if (values := listed(arguments, flag.name, flag.kind))}
    for name, values in given.items():
        if any(isinstance(value, int) and value < 1 for value in values):
            raise InvalidArgument(f"--{name} {getattr(arguments, name.replace('-', '_'))} must be at least 1")
    for combination in product(*given.values()):
        yield dict(zip(given, combination, strict=True))


def _shaped(workload: Workload, samples: dict[str, int], arguments: argparse.Namespace) -> Workload:
    shares = listed(arguments, "tenants", float, distinct=False)
    workload = workload.with_samples(samples.get("samples", 1), beam_width=samples.get("beam-width", 0))
    if arguments.max_tokens is not None:
        workload = replace(workload, max_tokens=arguments.max_tokens)
    return workload.among(shares) if shares else workload


def _under(deploy: Callable[..., Deployment], named: dict[str, Any]) -> tuple[dict[str, Any], Deployment]:
    """A deployment under policies, with a prefix cache as in the engine unless they turn it off."""
    policies = {name.replace("-", "_"): value for name, value in named.items()}
    caching = policies.pop("prefix_caching", "on")
    if caching not in ("on", "off"):
        raise InvalidArgument(f"--prefix-caching {caching} is not one of on, off")
    deployment = deploy(enable_prefix_caching=caching == "on", **policies)
    if deployment.preemption != "recompute":
        deployment = replace(deployment, swap_slots=deployment.slots)
    deployment.config()
    return named, deployment
