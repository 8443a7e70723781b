"""``pagedcore plan``: what a model would need, before anything is allocated."""

from __future__ import annotations

import argparse
from typing import Any

from .common import Formatter, add_model_flags, engine_options, print_json

__all__ = ["add_to"]

_EPILOG = """\
examples:
  pagedcore plan --model llama.gguf
  pagedcore plan --model llama.gguf --kv-cache-memory 4GiB --max-context 8192
  pagedcore plan --block-size 32 --dtype float32 --json

Weights are not loaded: the plan is arithmetic over the model's description, and exact."""


def add_to(commands: Any) -> None:
    parser: argparse.ArgumentParser = commands.add_parser(
        "plan",
        help="memory that a model needs, and what fits",
        description="Prints every byte that a model would hold, by purpose, and how many tokens fit.",
        epilog=_EPILOG,
        formatter_class=Formatter,
    )
    parser.add_argument("--json", action="store_true", help="print a JSON object, sizes in bytes")
    add_model_flags(parser)
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    options = engine_options(arguments)
    from ..llm import LLM

    plan = LLM.plan(arguments.model, **options)
    if arguments.json:
        print_json(plan.to_dict())
    else:
        print(plan)
    return 0
