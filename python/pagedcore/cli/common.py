"""Flags that several commands share."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..errors import InvalidArgument

if TYPE_CHECKING:
    from ..llm import LLM
    from ..sampling_params import SamplingParams

__all__ = [
    "Formatter",
    "UsageError",
    "add_model_flags",
    "add_sampling_flags",
    "engine_options",
    "open_llm",
    "print_json",
    "sampling_params",
]

_SAMPLING = (
    ("temperature", float, "0 is greedy; higher is more varied"),
    ("top-p", float, "sample among the most likely tokens that sum up to this probability"),
    ("top-k", int, "sample among this many most likely tokens"),
    ("min-p", float, "drop tokens less likely than this share of the most likely one"),
    ("seed", int, "of the random numbers: the same seed gives the same text"),
    ("max-tokens", int, "generate at most this many tokens"),
    ("min-tokens", int, "generate at least this many tokens"),
    ("repetition-penalty", float, "above 1 discourages every token of the prompt and output"),
    ("presence-penalty", float, "above 0 discourages tokens that occurred in the output"),
    ("frequency-penalty", float, "above 0 discourages tokens as often as they occurred in the output"),
)


class Formatter(argparse.RawDescriptionHelpFormatter):
    """Keeps the examples as they are written."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=32)


class UsageError(InvalidArgument):
    """A flag's value is out of range: exit status 2, like other wrong usage."""


def add_model_flags(parser: argparse.ArgumentParser, *, device: bool = True) -> None:
    """`device`: whether --device says what computes; else it is the caller's."""
    group = parser.add_argument_group("model and memory")
    group.add_argument("-m", "--model", metavar="PATH", help="GGUF file, Hugging Face directory or model container")
    group.add_argument("--dtype", default="auto", help="compute type: auto, float32 or bfloat16")
    group.add_argument("--kv-cache-memory", metavar="SIZE", help="for the KV cache, such as 512MB or 2GiB")
    group.add_argument("--num-blocks", type=int, metavar="N", help="KV blocks, instead of --kv-cache-memory")
    group.add_argument("--block-size", type=int, default=16, metavar="N", help="tokens per KV block")
    group.add_argument("--max-context", type=int, metavar="N", help="tokens of one sequence (default: the model's)")
    group.add_argument("--max-batched-tokens", type=int, default=512, metavar="N", help="tokens computed in one step")
    group.add_argument("--max-sequences", type=int, default=256, metavar="N", help="sequences in one step")
    group.add_argument("--no-prefix-caching", action="store_true", help="do not reuse the KV of common beginnings")
    group.add_argument("--swap-space", metavar="SIZE", help="memory for requests that must make room, such as 1GiB")
    group.add_argument("--swap-file", metavar="PATH", help="a new file for those that find no place there")
    group.add_argument("--preemption", default="auto", help="how requests make room: auto, swap or recompute")
    group.add_argument("--order", default="fcfs", help="who is served first: fcfs, priority or fair between tenants")
    group.add_argument("--admission", default="known", help="when: known, watermark, never_evict or adaptive")
    group.add_argument("--victim", default="cheapest", help="who makes room: cheapest or last_arrival")
    group.add_argument("--allocation", default="paged", help="paged, or a baseline: max, pow2 or oracle")
    group.add_argument("--threads", type=int, metavar="N", help="default: the CPUs this process may run on")
    if device:
        group.add_argument("--device", default="cpu", help="cpu, cuda or cuda:<index>")
        group.add_argument("--kv-cache-dtype", default="auto", help="auto: the compute type; fp8 or int8, on a GPU")
    group.add_argument("--isa", default="auto", help="instruction set, for comparisons (pagedcore doctor lists them)")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")


def add_sampling_flags(parser: argparse.ArgumentParser, **defaults: Any) -> None:
    group = parser.add_argument_group("sampling")
    for name, kind, text in _SAMPLING:
        group.add_argument(
            f"--{name}", type=kind, metavar="N" if kind is int else "X", default=defaults.get(name), help=text
        )
    group.add_argument("--stop", action="append", metavar="TEXT", help="end at this text (may be repeated)")
    group.add_argument("--ignore-eos", action="store_true", help="go on after the end-of-sequence token")


def sampling_params(arguments: argparse.Namespace, **others: Any) -> SamplingParams:
    from ..sampling_params import SamplingParams

    values: dict[str, Any] = {"ignore_eos": arguments.ignore_eos, "stop": arguments.stop or (), **others}
    for name, _, _ in _SAMPLING:
        field = name.replace("-", "_")
        value = getattr(arguments, field)
        if value is not None:
            values[field] = value
    try:
        return SamplingParams(**values)
    except InvalidArgument as error:
        raise UsageError(str(error)) from None


def engine_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """Keywords for LLM and LLM.plan, checked as far as they can be without the model."""
    from ..engine_options import EngineOptions

    options = {
        "dtype": arguments.dtype,
        "kv_cache_memory": arguments.kv_cache_memory,
        "num_blocks": arguments.num_blocks,
        "block_size": arguments.block_size,
        "max_context": arguments.max_context,
        "max_batched_tokens": arguments.max_batched_tokens,
        "max_sequences": arguments.max_sequences,
        "enable_prefix_caching": not arguments.no_prefix_caching,
        "swap_space": arguments.swap_space,
        "swap_file": arguments.swap_file,
        "preemption": arguments.preemption,
        "order": arguments.order,
        "admission": arguments.admission,
        "victim": arguments.victim,
        "allocation": arguments.allocation,
        "threads": arguments.threads,
        "device": arguments.device,
        "kv_cache_dtype": arguments.kv_cache_dtype,
        "isa": arguments.isa,
    }
    try:
        EngineOptions(**options).config("float32")
    except InvalidArgument as error:
        raise UsageError(str(error)) from None
    return options


def open_llm(arguments: argparse.Namespace) -> LLM:
    from ..llm import LLM

    return LLM(arguments.model, **engine_options(arguments))


def print_json(values: Mapping[str, Any]) -> None:
    json.dump(values, sys.stdout, ensure_ascii=False)
    sys.stdout.write("\n")
