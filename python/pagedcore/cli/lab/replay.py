"""``pagedcore replay``: plans a recorded trace again and compares."""

from __future__ import annotations

import argparse
from typing import Any

from ..common import Formatter, add_report_flags, print_json

__all__ = ["add_to"]


def add_to(commands: Any) -> None:
    parser: argparse.ArgumentParser = commands.add_parser(
        "replay",
        help="plan a recorded trace again and compare",
        description="Feeds a trace that LLM(trace_file=...) wrote to a new scheduler; all steps must come out alike.",
        epilog="Exit status: 0 all steps alike, 1 a difference (it is printed) or an error.",
        formatter_class=Formatter,
    )
    parser.add_argument("trace", help="the trace file")
    parser.add_argument("--json", action="store_true", help="print a JSON object")
    add_report_flags(parser)
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    from ... import replay_trace

    report = replay_trace(arguments.trace)
    if arguments.json:
        print_json(report.to_dict())
    else:
        print(f"{report.requests} requests, {report.steps} steps planned alike")
        if not report.is_complete:
            print("the last line is cut off: the program that wrote the trace did not end in peace")
        if report.difference:
            print(report.difference)
    return 1 if report.difference else 0
