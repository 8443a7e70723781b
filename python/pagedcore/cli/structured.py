"""Flags for what an output is held to."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from ..errors import InvalidArgument

if TYPE_CHECKING:
    from ..structured_outputs import StructuredOutputs

__all__ = ["add_structured_flags", "structured_outputs"]

_FILES = {
    "json_schema": ("json", "output JSON that this JSON schema admits"),
    "grammar": ("grammar", "output a text of this grammar, in Lark or GBNF"),
    "structural_tag": ("structural_tag", "free text, with the structures of this JSON file"),
}


def add_structured_flags(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("structured output (one of them; needs the extra grammar)")
    for flag, (_, text) in _FILES.items():
        group.add_argument("--" + flag.replace("_", "-"), metavar="FILE", help=text)
    group.add_argument("--json-object", action="store_true", help="output some JSON object")
    group.add_argument("--regex", metavar="TEXT", help="output a text that this regular expression matches as a whole")
    group.add_argument("--choice", action="append", metavar="TEXT", help="output this text (repeat it for each choice)")


def structured_outputs(arguments: argparse.Namespace) -> StructuredOutputs | None:
    """What the flags ask for. Raises InvalidArgument for several, and Io for a file that is not there."""
    from ..config_files import read_given
    from ..structured_outputs import structured_outputs as held

    names = [*_FILES, "json_object", "regex", "choice"]
    asked = [name for name in names if getattr(arguments, name, None)]
    if not asked:
        return None
    if len(asked) > 1:
        flags = " and ".join("--" + name.replace("_", "-") for name in asked)
        raise InvalidArgument(f"{flags}: an output is held to one of them")
    (name,) = asked
    value = getattr(arguments, name)
    if name in _FILES:
        return held({_FILES[name][0]: read_given(value)})
    return held({name: value})
