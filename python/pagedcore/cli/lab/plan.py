"""``pagedcore plan``: the memory of a model, and how many requests a device can serve with it."""

from __future__ import annotations

import argparse
from math import ceil
from typing import TYPE_CHECKING, Any

from ..common import Formatter, add_model_flags, engine_options, given, hub_options, print_json, refuse_unused
from .arrivals import add_request_flags, read_requests
from .deployed import add_deployed_flags, read_deployed

if TYPE_CHECKING:
    from ...lab import Deployment, Placement

__all__ = ["add_to"]

_EPILOG = """\
examples:
  pagedcore plan
  pagedcore plan --kv-cache-memory 512MiB --max-context 2048
  pagedcore plan --device-memory 80GiB
  pagedcore plan --block-size 32 --dtype float32 --json
  pagedcore plan --model llama-3-8b --device a100-80gb --lengths sharegpt --latency 0.05
  pagedcore plan --model opt-66b --device a100-40gb --tensor-parallel 4 --rate 20 --simulate
  pagedcore plan --model llama-7b --device l4 --trace YOUR_TRACE.csv --first-token 2

Without --device: the memory of the model on this machine, or with --device-memory on a GPU that has so much free and
need not be there. Weights are not loaded: the plan is arithmetic over the model's description, and exact. With
--device: how many requests a second it sustains within the goals, what bounds that, and what changes would buy. That
too is arithmetic, over a model of a batch that docs/planning.md explains; --simulate runs the scheduler on a virtual
clock to confirm it."""

_POLICIES = (
    "block_size",
    "max_batched_tokens",
    "max_sequences",
    "allocation",
    "order",
    "admission",
    "victim",
    "preemption",
)
_OF_SERVICE = ("tensor_parallel", "enable_prefix_caching", "dtype", "kv_cache_memory", "swap_space", "max_context")
_SERVICE = (
    "replicas",
    "weight_bits",
    "kv_bits",
    "trace",
    "lengths",
    "rate",
    "latency",
    "first_token",
    "seconds",
)


def add_to(commands: Any) -> None:
    parser: argparse.ArgumentParser = commands.add_parser(
        "plan",
        help="memory that a model needs, and how many requests a device serves",
        description="Prints every byte that a model would hold, by purpose, and how many tokens fit;\n"
        "or, for a device, how many requests a second it would serve.",
        epilog=_EPILOG,
        formatter_class=Formatter,
    )
    parser.add_argument("--json", action="store_true", help="print a JSON object, sizes in bytes")
    parser.add_argument(
        "--device-memory", metavar="SIZE", help="plan for device cuda with so much free memory; no GPU is needed"
    )
    service = parser.add_argument_group("service")
    add_deployed_flags(service)
    service.add_argument(
        "--replicas", type=int, metavar="N", help="number of replicas that share the requests (default 1)"
    )
    add_request_flags(service)
    service.add_argument(
        "--rate", type=float, metavar="R", help="requests a second to serve: prints how many replicas that takes"
    )
    service.add_argument("--latency", type=float, metavar="S", help="goal: mean seconds per output token (default 0.2)")
    service.add_argument(
        "--first-token", type=float, metavar="S", help="goal: seconds to the first token, met by 99 of 100 requests"
    )
    service.add_argument("--simulate", action="store_true", help="confirm the plan by simulation")
    service.add_argument("--seconds", type=float, metavar="S", help="length of the simulated traces (default: an hour)")
    without = ("device", "trace_file", "timeline_file", "tensor_parallel")
    add_model_flags(parser, tokenizer=False, loads=False, without=without)
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    if arguments.device is None and arguments.setting is None:
        return _memory(arguments)
    refuse_unused(arguments, ("device_memory",), "is for the memory of a model: a --device has its own")
    return _service(arguments)


def _memory(arguments: argparse.Namespace) -> int:
    from ...llm import LLM

    refuse_unused(arguments, (*_SERVICE, "simulate"), "is about a service: say on which --device")
    if arguments.device_memory is not None:
        arguments.device = "cuda"
    options = engine_options(arguments)
    plan = LLM.plan(arguments.model, device_memory=arguments.device_memory, **hub_options(arguments), **options)
    if arguments.json:
        print_json(plan.to_dict())
    else:
        print(plan)
    return 0


def _service(arguments: argparse.Namespace) -> int:
    from ...lab import confirm_plan, plan_service
    from ...progress import Progress

    service, policies = _serving(arguments)
    name, requests = read_requests(arguments)
    with Progress(1, "runs", title="simulating", enabled=None if arguments.simulate else False) as bar:
        plan = plan_service(
            requests,
            service,
            latency=0.2 if arguments.latency is None else arguments.latency,
            first_token=arguments.first_token,
            target_rate=arguments.rate,
            replicas=1 if arguments.replicas is None else arguments.replicas,
            **policies,
        )
        if arguments.simulate:
            plan = confirm_plan(
                plan, requests, seconds=arguments.seconds, progress=lambda runs: bar.reach(round(runs, 1), ceil(runs))
            )
    if arguments.json:
        print_json({"requests_from": name, **plan.to_dict()})
    else:
        print(f"{name}\n{plan}")
    return 0


def _serving(arguments: argparse.Namespace) -> tuple[Deployment | Placement, dict[str, Any]]:
    """What serves, and the policies that were asked for."""
    from ...lab import Deployment
    from ...memory import parse_bytes

    policies = {name: value for name in _POLICIES if (value := getattr(arguments, name)) is not None}
    policies["enable_prefix_caching"] = arguments.enable_prefix_caching is not False
    here = given(arguments, "EngineConfig").keys() - {*_POLICIES, *_OF_SERVICE, "device"}
    unused = ("revision", "token", *sorted(here))
    refuse_unused(arguments, unused, "is for this machine: plan a service with sizes of memory")
    if not arguments.simulate:
        refuse_unused(arguments, ("seconds",), "is the length of simulated traces: give --simulate too")
    bits = 32.0 if arguments.dtype in ("float32", "f32", "fp32") else 16.0
    memory = None if arguments.kv_cache_memory is None else parse_bytes(arguments.kv_cache_memory)
    served = read_deployed(arguments, bits=bits, kv_memory=memory)
    if isinstance(served, Deployment):
        return served, policies
    if arguments.swap_space is not None:
        policies["swap_slots"] = int(parse_bytes(arguments.swap_space) / served.token_bytes)
    if arguments.max_context is not None:
        policies["max_reservation"] = min(arguments.max_context, served.model.max_context)
    return served, policies
