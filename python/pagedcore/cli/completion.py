"""``pagedcore completion``: what makes a shell complete commands, flags and their values."""

from __future__ import annotations

import argparse
from functools import partial
from typing import Any

from .common import Formatter, add_report_flags

__all__ = ["add_to"]

_EPILOG = """\
examples:
  source <(pagedcore completion bash)                                    this shell, until it ends
  pagedcore completion bash > ~/.local/share/bash-completion/completions/pagedcore
  pagedcore completion zsh > ~/.zfunc/_pagedcore                         a folder of $fpath
  pagedcore completion fish > ~/.config/fish/completions/pagedcore.fish

The script is made from the flags of this version: write it again after an update."""

_FILES = ("FILE", "PATH", "CSV")


def add_to(commands: Any, root: argparse.ArgumentParser) -> None:
    """`root`: the parser of all commands."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "completion",
        help="completion for bash, zsh or fish",
        description="Prints the script that makes a shell complete pagedcore's commands and flags.",
        epilog=_EPILOG,
        formatter_class=Formatter,
    )
    parser.add_argument("shell", choices=("bash", "zsh", "fish"))
    add_report_flags(parser)
    parser.set_defaults(run=partial(_run, root))


def _run(root: argparse.ArgumentParser, arguments: argparse.Namespace) -> int:
    import shtab  # type: ignore[import-untyped, import-not-found, unused-ignore]

    _name_files(root)
    print(shtab.complete(root, shell=arguments.shell))
    return 0


def _name_files(parser: argparse.ArgumentParser) -> None:
    """Says of each flag that takes a file that it does."""
    import shtab

    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                _name_files(command)
        elif action.metavar in _FILES:
            action.complete = shtab.FILE  # type: ignore[attr-defined]
