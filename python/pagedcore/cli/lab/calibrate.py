"""``pagedcore calibrate``: what this machine can do, for the simulator and the planner."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from ..common import Formatter, add_option_flags, add_report_flags, check_options, check_output, given, print_json

if TYPE_CHECKING:
    from ...lab.calibration import Calibration

__all__ = ["add_to"]

_EPILOG = """\
examples:
  pagedcore calibrate -o here.json
  pagedcore calibrate --dtype float32 --threads 1 --check -o one_thread.json

Runs the real engine for a minute or more, and fits the constants of the simulator's cost model to its steps. The file
is a device for the simulator and the planner: rates in bytes and FLOP a second, which any model can be placed on. Other
work on the machine makes them worse. --check then serves another workload, and compares it with its simulation."""

_ABOUT = {
    "step": "any step",
    "weights": "reading all weights once",
    "row": "arithmetic of a row",
    "pair": "attention, for a row and a token of its context",
    "context_token": "reading the KV of a token",
    "sample": "sampling once",
    "copy_block": "copying a token's KV",
    "swap_out_block": "moving a token's KV out",
    "swap_in_block": "and back",
}


def add_to(commands: Any) -> None:
    parser: argparse.ArgumentParser = commands.add_parser(
        "calibrate",
        help="measure this machine for the simulator",
        description="Measures what steps cost on this machine, and writes it as a device for the simulator.",
        epilog=_EPILOG,
        formatter_class=Formatter,
    )
    parser.add_argument(
        "-o",
        "--output",
        metavar="FILE",
        help="write the device to this file (JSON); without it the device is only printed",
    )
    parser.add_argument("-m", "--model", metavar="PATH", help="GGUF file, Hugging Face directory or model container")
    add_option_flags(parser.add_argument_group("engine"), "EngineConfig", only=("dtype", "threads", "isa"))
    parser.add_argument("--name", help="name of the device (default: the machine's)")
    parser.add_argument("--check", action="store_true", help="then compare a real run with its simulation")
    parser.add_argument("--json", action="store_true", help="print a JSON object, times in seconds")
    add_report_flags(parser)
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    from ...lab.calibration import calibrate
    from ...progress import Progress

    options = given(arguments, "EngineConfig")
    if arguments.output:
        check_output(arguments.output)
    check_options(options)
    with Progress(1, "measurements", title="measuring") as bar:
        calibration = calibrate(
            arguments.model, name=arguments.name, check=arguments.check, progress=bar.reach, **options
        )
    if arguments.output:
        calibration.device.save(arguments.output)
    if arguments.json:
        print_json(calibration.to_dict())
    else:
        _print(calibration)
    return 0


def _print(calibration: Calibration) -> None:
    fit = calibration.fit
    print(f"device {calibration.device.name}: {calibration.engine}")
    print(f"{'constant':<16}{'microseconds':>14}  of")
    for name, seconds in fit.cost.to_dict().items():
        print(f"{name:<16}{1e6 * seconds:>14.4g}  {_ABOUT[name]}")
    print(
        f"{fit.steps} steps; predicted within {100 * fit.error:.1f} % in the median, "
        f"{100 * fit.error_p90:.1f} % for nine out of ten"
    )
    for check in calibration.checks:
        print(
            f"{check.what}: measured {check.measured:.4g} {check.unit}, simulated {check.simulated:.4g} "
            f"({100 * check.error:+.1f} %)"
        )
