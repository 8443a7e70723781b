"""``pagedcore simulate``: the paper's figures from the shipped scheduler."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from .common import Formatter, UsageError, print_json

__all__ = ["add_to"]

_EPILOG = """\
examples:
  pagedcore simulate --figure 2
  pagedcore simulate --figure 12a --lengths sharegpt_lengths.csv --json

The scheduler and block manager that serve real requests run under an executor that prices each plan on a virtual
clock. Lengths come from the paper's histograms, or from a CSV file with input_tokens and output_tokens."""


def add_to(commands: Any) -> None:
    parser: argparse.ArgumentParser = commands.add_parser(
        "simulate",
        help="figures of the PagedAttention paper, simulated",
        description="Prints a figure of the PagedAttention paper as this scheduler reproduces it, beside the paper's.",
        epilog=_EPILOG,
        formatter_class=Formatter,
    )
    parser.add_argument("--figure", required=True, metavar="NAME", help="such as 2, 12a or 13")
    parser.add_argument("--lengths", metavar="CSV", help="real ShareGPT lengths instead of the histograms")
    parser.add_argument("--seconds", type=float, metavar="S", help="length of the traces (default: the paper's)")
    parser.add_argument("--json", action="store_true", help="print a JSON object")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    from ..simulation import FIGURES, read_lengths, reproduce

    if arguments.figure not in FIGURES:
        raise UsageError(f"figure {arguments.figure!r} is not simulated; there are: {', '.join(FIGURES)}")
    lengths = read_lengths(arguments.lengths) if arguments.lengths else None
    figure = reproduce(arguments.figure, lengths, seconds=arguments.seconds, progress=_progress)
    if arguments.json:
        print_json(figure.to_dict())
    else:
        print(figure)
    return 0


def _progress(done: int, total: int) -> None:
    if sys.stderr is not None and sys.stderr.isatty():
        sys.stderr.write(f"\r{done}/{total} runs\x1b[K" if done < total else "\r\x1b[K")
        sys.stderr.flush()
