"""``pagedcore info``: what is installed and what this machine can do."""

from __future__ import annotations

import argparse
import platform
from collections.abc import Sequence
from typing import Any

from ..errors import Error
from .common import Formatter, print_json

__all__ = ["Version", "add_to"]


class Version(argparse.Action):
    """Reads the version only when it is asked for."""

    def __init__(self, option_strings: Sequence[str], dest: str, **options: Any) -> None:
        super().__init__(option_strings, argparse.SUPPRESS, nargs=0, help=options.get("help"))

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        from .. import __version__

        print(f"pagedcore {__version__}")
        parser.exit()


def add_to(commands: Any) -> None:
    parser: argparse.ArgumentParser = commands.add_parser(
        "info",
        help="version, instruction sets and the default model",
        description="Prints the version, the instruction sets of this CPU and where the default model lies.",
        formatter_class=Formatter,
    )
    parser.add_argument("--json", action="store_true", help="print a JSON object")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    from .. import __version__, cpu_isas
    from ..default_model import default_model

    try:
        model = str(default_model())
    except Error as error:
        model = f"none ({error})"
    values = {
        "version": __version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "instruction_sets": cpu_isas(),
        "default_model": model,
    }
    if arguments.json:
        print_json(values)
    else:
        for name, value in values.items():
            print(f"{name.replace('_', ' '):<18}{', '.join(value) if isinstance(value, list) else value}")
    return 0
