"""``pagedcore bench``: how fast a model runs on this machine."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from ...errors import InvalidArgument
from ..common import Formatter, add_model_flags, engine_options, open_llm, print_json, refuse_unused

if TYPE_CHECKING:
    from ...lab.bench import Job

__all__ = ["add_to"]

_EPILOG = """\
examples:
  pagedcore bench throughput --num-prompts 64 --input-len 256 --output-len 128
  pagedcore bench latency --input-len 512 --output-len 64
  pagedcore bench throughput --trace YOUR_TRACE.csv --num-prompts 100 --json

A trace is a .csv or .jsonl file with lengths in tokens, in columns input_tokens and output_tokens (or as the public
traces of Azure and Mooncake name them). Prompts are random tokens; every request generates its full length."""


def add_to(commands: Any) -> None:
    parser: argparse.ArgumentParser = commands.add_parser(
        "bench",
        help="measure throughput or latency",
        description="Measures throughput (all requests at once) or latency (one after another).",
        epilog=_EPILOG,
        formatter_class=Formatter,
    )
    parser.add_argument("what", choices=("throughput", "latency"))
    parser.add_argument(
        "--num-prompts", type=int, metavar="N", help="number of requests (default: 32, or 8 for latency)"
    )
    parser.add_argument("--input-len", type=int, metavar="N", help="tokens of each prompt (default: 128)")
    parser.add_argument("--output-len", type=int, metavar="N", help="tokens to generate (default: 128)")
    parser.add_argument("--trace", metavar="FILE", help="take the lengths of prompts and outputs from a file")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="seed of the random prompts")
    parser.add_argument("--json", action="store_true", help="print a JSON object")
    add_model_flags(parser, tokenizer=False)
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    from ...lab import bench

    for name in ("num_prompts", "input_len", "output_len"):
        if (value := getattr(arguments, name)) is not None and value < 1:
            raise InvalidArgument(f"--{name.replace('_', '-')} {value} must be at least 1")
    engine_options(arguments)  # before any file is read
    jobs = _jobs(arguments)
    with open_llm(arguments) as llm:
        result: bench.ThroughputResult | bench.LatencyResult
        if arguments.what == "throughput":
            result = bench.throughput(llm, jobs, seed=arguments.seed)
        else:
            result = bench.latency(llm, jobs, seed=arguments.seed)
        engine = llm.engine.describe()
    values = result.to_dict()
    if arguments.json:
        print_json({"what": arguments.what, "engine": engine, **values})
        return 0
    print(engine)
    if isinstance(result, bench.ThroughputResult):
        _print_throughput(result)
    else:
        _print_latency(result.to_dict())
    return 0


def _jobs(arguments: argparse.Namespace) -> list[Job]:
    from ...lab import bench

    if arguments.trace is not None:
        refuse_unused(arguments, ("input_len", "output_len"), "has no effect: the trace has its own lengths")
        return bench.read_trace(arguments.trace, arguments.num_prompts)
    number = arguments.num_prompts or (32 if arguments.what == "throughput" else 8)
    return bench.fixed_lengths(number, arguments.input_len or 128, arguments.output_len or 128)


def _print_throughput(result: Any) -> None:
    print(f"requests          {result.requests:>12,}   {result.requests_per_second:10.2f} /s")
    print(f"prompt tokens     {result.input_tokens:>12,}")
    print(f"generated tokens  {result.output_tokens:>12,}   {result.output_tokens_per_second:10.1f} /s")
    total = result.input_tokens + result.output_tokens
    print(f"all tokens        {total:>12,}   {result.total_tokens_per_second:10.1f} /s")
    print(f"seconds           {result.seconds:>12.2f}")


def _print_latency(rows: dict[str, dict[str, float]]) -> None:
    columns = next(iter(rows.values())).keys()
    print(f"{'milliseconds':<14}" + "".join(f"{column:>10}" for column in columns))
    for name, values in rows.items():
        print(f"{name.replace('_', ' '):<14}" + "".join(f"{1000 * value:>10.2f}" for value in values.values()))
